//! Leases: a container may run until a time that whoever wants it has to put off again and again.
//! The shim keeps the time, so that it is kept when the agent has died too.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::protocol::{self, Request};
use crate::{Runtime, RuntimeError};

/// Time since the host's start, sleep included; nobody can set it.
#[must_use]
pub fn uptime() -> Duration {
    // The kernel has this clock since 2.6.39, and a process can always read it.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

impl Runtime {
    /// Lets the container run until `uptime` ([`uptime`]) says so; then it is killed. A container
    /// without a lease runs for as long as it likes.
    ///
    /// # Errors
    /// The container is not there or has ended.
    pub fn set_lease(&self, id: &str, until: Duration) -> Result<(), RuntimeError> {
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        match self.request(id, Request::Lease, &millis.to_le_bytes())? {
            (protocol::OK, _) => Ok(()),
            (_, message) => Err(RuntimeError::Setup(message)),
        }
    }
}
