//! Waits for conditions, never for time.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Polls until the state is as wanted, and returns it. Fails with the last state seen.
pub fn until<T: Debug>(what: &str, look: impl Fn() -> T, done: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let state = look();
        if done(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "not in time: {what}; last seen: {state:#?}");
        sleep(Duration::from_millis(20));
    }
}
