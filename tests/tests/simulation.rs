//! The control plane over a few hundred seeds, or as many as `SHOAL_SEEDS` says, from
//! `SHOAL_FIRST_SEED` on. Each failure says its seed; `SHOAL_FIRST_SEED=SEED SHOAL_SEEDS=1` has it
//! again.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const SEEDS: u64 = 200;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("it is a number"))
}

#[test]
fn whatever_goes_wrong_the_cluster_keeps_its_word() {
    let first = number("SHOAL_FIRST_SEED", 1);
    let last = first + number("SHOAL_SEEDS", SEEDS);
    let next = AtomicU64::new(first);
    let failed = std::sync::Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| shoal_tests::sim::run(seed))).is_err() {
                failed.lock().unwrap().push(seed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
}
