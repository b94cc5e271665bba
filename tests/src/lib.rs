//! Real agents, each on a host of its own: a network namespace with a link to the outside, and
//! folders of its own. Everything that a test makes is taken away when it ends, however it ends.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // tests

mod agent;
pub mod history;
mod host;
mod managers;
pub mod measure;
mod registry;
pub mod sim;
mod wait;
pub mod writer;

pub use agent::{Agent, Output};
pub use host::{Host, Switch};
pub use managers::{Listed, Managers};
pub use registry::Registry;
pub use wait::until;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why the tests can't run here, if they can't; with `SHOAL_REQUIRE_PRIVILEGED` set, that fails.
#[must_use]
pub fn skip() -> bool {
    let root = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = root.lines().any(|line| line.starts_with("Uid:\t0\t"));
    let lack = if !is_root {
        Some("root".to_owned())
    } else {
        [binary("agent"), binary("ctl"), hello_tar()]
            .into_iter()
            .find(|path| !path.exists())
            .map(|path| format!("{} (run them with \"make test\")", path.display()))
    };
    let Some(lack) = lack else { return false };
    assert!(std::env::var_os("SHOAL_REQUIRE_PRIVILEGED").is_none(), "it lacks {lack}");
    eprintln!("SKIPPED: it lacks {lack}");
    true
}

/// The tests of one program take turns: two cores serve one cluster at a time.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A program as it was built; benchmarks set `SHOAL_PROFILE` to `release`.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let profile = std::env::var("SHOAL_PROFILE").unwrap_or_else(|_| "debug".to_owned());
    project().join("target").join(profile).join(name)
}

#[must_use]
pub fn hello_tar() -> PathBuf {
    project().join("target/test-images/hello.tar")
}

#[must_use]
pub fn example(name: &str) -> PathBuf {
    project().join("examples").join(name)
}
