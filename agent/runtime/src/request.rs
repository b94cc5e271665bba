//! What a container is made from, and what it can be seen to do.

use std::path::PathBuf;
use std::time::SystemTime;

use oci_spec::runtime::Spec;

use crate::exit::ExitStatus;
use crate::plan::{IdRange, Rootfs};

/// A container's log.
#[derive(Debug, Clone, Default)]
pub struct LogConfig {
    /// The file; rotated ones stand beside it with `.1` and so on. Empty: no file.
    pub path: PathBuf,
    /// Fields of entries in the host's journal, as `NAME=value` lines; empty: no journal.
    pub journal: String,
    /// Bytes in one file at the most.
    pub max_size: u64,
    /// Files, the current one included.
    pub max_files: u32,
}

/// What a container is made from.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// See [`crate::spec`].
    pub spec: Spec,
    /// Its root.
    pub rootfs: Rootfs,
    /// Its log.
    pub log: LogConfig,
    /// `user[:group]`, by name or number, of the container's own files; empty: root.
    pub user: String,
    /// Further groups, by name or number.
    pub additional_groups: Vec<String>,
    /// Bit n is capability n; see [`capability::set`].
    pub capabilities: u64,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Run under a small init.
    pub init: bool,
    /// Its standard streams.
    pub streams: Streams,
    /// Which namespaces are its own.
    pub namespaces: Namespaces,
    /// A profile of AppArmor's to confine it by; empty: none.
    pub apparmor: String,
    /// A label of SELinux's to confine it by; empty: none.
    pub label: String,
}

/// A filter of system calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON form.
    Profile(String),
}

/// A container's standard streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// A terminal.
    pub terminal: bool,
    /// Standard input is open for those who attach; else it is empty.
    pub stdin: bool,
    /// Standard input ends with the first who brought some.
    pub stdin_once: bool,
}

/// A namespace of a container's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Namespace {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container.
    Of(String),
}

/// A container's namespaces; its mounts are always its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Interfaces, routes, ports.
    pub network: Namespace,
    /// Processes.
    pub pid: Namespace,
    /// System V IPC and message queues.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Control groups.
    pub cgroup: Namespace,
    /// Users and groups: the host's that its own are mapped to; none: they are the host's.
    pub user: Option<IdRange>,
}

/// A container that is set up and not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its first process.
    pub pid: u32,
    /// Its network namespace, as long as that process lives.
    pub netns: PathBuf,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Set up, not started.
    Created {
        /// Its first process.
        pid: u32,
    },
    /// Started.
    Running {
        /// Its first process.
        pid: u32,
        /// Since when.
        started_at: SystemTime,
    },
    /// Over.
    Exited(ExitStatus),
    /// Gone without a record: its shim was killed, or the host restarted.
    Dead,
}
