//! What a control loop gets from outside: the time and random bits.

use std::time::SystemTime;

use shoal_proto::Timestamp;
use shoal_proto::time::timestamp;

/// Time and randomness for one run of a loop.
pub struct Context<'a> {
    /// The time at which the run happens.
    pub now: SystemTime,
    /// Random bits for ids.
    pub random: &'a mut (dyn FnMut() -> u128 + Send),
}

impl Context<'_> {
    /// The time as the store's objects hold it.
    #[must_use]
    pub fn stamp(&self) -> Timestamp {
        timestamp(self.now)
    }

    /// Random bits for a new id.
    pub fn bits(&mut self) -> u128 {
        (self.random)()
    }
}
