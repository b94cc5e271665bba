//! What the agent hands to a container's init, resolved as far as it can be outside.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::seccomp::Program;

/// The container's root file system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Rootfs {
    /// An image's layers with a writable folder on top.
    Overlay {
        /// Read-only folders, the topmost first.
        lower: Vec<PathBuf>,
        /// Where changes go.
        upper: PathBuf,
        /// Scratch for the kernel, on the same file system as `upper`.
        work: PathBuf,
    },
}

/// The host's ids that a container's are mapped to, from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host's number of the container's user 0.
    pub uid: u32,
    /// The host's number of the container's group 0.
    pub gid: u32,
    /// How many users, and how many groups.
    pub count: u32,
}

impl IdRange {
    /// The host's numbers of a user and a group of the container's.
    pub(crate) fn outside(self, (uid, gid): (u32, u32)) -> (u32, u32) {
        (self.uid.saturating_add(uid), self.gid.saturating_add(gid))
    }
}

/// All that init needs, read once from `plan.json` in the container's folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) rootfs: Rootfs,
    /// `user[:group]` by name or number, looked up in the container's own files.
    pub(crate) user: String,
    pub(crate) additional_groups: Vec<String>,
    pub(crate) capabilities: u64,
    pub(crate) last_capability: u32,
    pub(crate) seccomp: Option<Program>,
    /// Hierarchies to show read-only under /sys/fs/cgroup: folder name and mount options; empty
    /// on hosts that have v2 alone.
    pub(crate) cgroup_v1: Vec<(String, String)>,
    /// Run under a small init that reaps and forwards signals.
    pub(crate) init: bool,
    /// A terminal as standard input, output and error.
    pub(crate) terminal: bool,
    /// Namespaces of others to join: their files.
    pub(crate) join: Vec<PathBuf>,
    /// Users and groups are those of a user namespace; none: the host's.
    pub(crate) ids: Option<IdRange>,
    /// See its own cgroup as the topmost.
    pub(crate) cgroup_namespace: bool,
    /// Confinement by AppArmor: a profile's name; empty: none.
    pub(crate) apparmor: String,
    /// Confinement by SELinux: a label; empty: none.
    pub(crate) label: String,
}

impl Plan {
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("plan.json")
    }
}

/// A process to start in a container that runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Command and arguments.
    pub args: Vec<String>,
    /// `NAME=value`; added to the container's own.
    pub env: Vec<String>,
    /// Working directory; empty: the container's.
    pub cwd: String,
    /// `user[:group]`; empty: the container's.
    pub user: String,
    /// Killed after this long; 0: never.
    pub timeout_ms: u64,
    /// Bytes of output kept, of standard output and error together; what is more is dropped. Not
    /// for one that is attached to.
    pub max_output: usize,
    /// A terminal as standard input, output and error.
    pub terminal: bool,
    /// The terminal's columns and rows; 0: the kernel's default.
    pub size: (u16, u16),
    /// Standard input stays open for whoever attaches.
    pub stdin: bool,
    /// All capabilities and no seccomp filter.
    pub privileged: bool,
    /// What becomes of its streams.
    pub mode: ExecMode,
}

/// What becomes of an exec's standard streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecMode {
    /// Kept until it ends, and returned.
    #[default]
    Collect,
    /// Carried by the connection.
    Attach,
    /// Dropped; the answer comes when it has started.
    Detach,
}

/// How an exec ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecResult {
    /// As a shell has it: 126, 127, 128 + signal.
    pub exit_code: i32,
    /// The first bytes that it wrote.
    pub output: Vec<u8>,
    /// It was killed because it ran longer than it may.
    pub timed_out: bool,
}
