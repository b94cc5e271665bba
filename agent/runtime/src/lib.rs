//! OCI containers on Shoal's own code: namespaces, cgroups, mounts, seccomp, capabilities, exec,
//! and the shim that keeps each of them.
//!
//! A container is described by an OCI runtime spec ([`spec`] makes Docker's defaults) and lives
//! in a folder of its own below the run folder. Its shim outlives the agent; [`Runtime::open`]
//! finds again what an agent before this one has started. After a failure at any step nothing of
//! the container remains.

mod archive;
mod binary;
pub mod capability;
mod cgroup;
mod console;
mod error;
mod exit;
mod init;
mod lease;
mod log;
mod plan;
mod protocol;
mod request;
mod runtime;
mod seccomp;
mod shim;
mod spawn;
pub mod spec;
mod sys;

pub use archive::{Archive, diff};
pub use cgroup::{CgroupMode, DeviceUsage, Usage};
pub use console::{ConsoleEvent, ConsoleInput, ConsoleReader, ConsoleWriter};
pub use error::RuntimeError;
pub use exit::ExitStatus;
pub use lease::uptime;
pub use log::reader::{LogEntry, LogQuery, LogReader};
pub use plan::{ExecMode, ExecRequest, ExecResult, IdRange, Rootfs};
pub use request::{
    ContainerState, CreateRequest, Created, LogConfig, Namespace, Namespaces, Seccomp, Streams,
};
pub use runtime::{Runtime, RuntimeConfig};

/// Whether a profile can be put in force.
///
/// # Errors
/// What is wrong with it.
pub fn check_seccomp(seccomp: &Seccomp) -> Result<(), RuntimeError> {
    match seccomp {
        Seccomp::Default | Seccomp::Unconfined => Ok(()),
        Seccomp::Profile(text) => seccomp::program(text, u64::MAX).map(drop),
    }
}

/// Must be the first thing that `main` does: when this process was started as a shim or for a
/// container's files, does that and
/// does not return.
pub fn run_if_shim() {
    shim::run_if_asked();
    archive::run_if_asked();
}
