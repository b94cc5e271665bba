//! What goes wrong with the log, in words that name the file.

use std::path::PathBuf;

use shoal_core::store::Conflict;

/// Why raft could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// A file or folder of the log.
    #[error("raft: {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The log can't be read or written.
    #[error("raft log in {}: {}", path.display(), reason(source))]
    Log {
        /// The log's folder.
        path: PathBuf,
        /// What the log's library said.
        #[source]
        source: raft_engine::Error,
    },
    /// What is on disk is not what was written.
    #[error("raft: {}: {what}; restore the raft folder from a backup, or start with an empty one", path.display())]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Something that raft did not put there, and that its log can't be told from.
    #[error("raft: {} is no part of a raft log; move it out of the folder", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the folder open.
    #[error("raft: {} is in use by another agent; stop it, or use another data folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The settings make no sense, or the raft library refused its own state.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// A thread could not be started, or died.
    #[error("raft: no thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// The log's library wraps a full disk in layers that mean nothing to people.
fn reason(error: &raft_engine::Error) -> String {
    let text = error.to_string();
    let full = match error {
        raft_engine::Error::Io(io) => io.kind() == std::io::ErrorKind::StorageFull,
        raft_engine::Error::TryAgain(_) => text.contains("nospace"),
        _ => false,
    };
    if full { "no space left on the disk".to_owned() } else { text }
}

/// Why a proposal did not commit, or is not known to have.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// It was made from a state that is not the newest; nothing was done.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Another manager leads. A change that was under way may still commit there.
    #[error("this manager is not the leader")]
    NotLeader {
        /// The leader's number, when known.
        leader: Option<u64>,
    },
    /// The log can't be written. The change is not confirmed; it may still commit later.
    #[error("the change is not confirmed: {0}; free space or repair the disk, then try again")]
    Storage(String),
    /// More than one entry may hold.
    #[error("the change is {size} bytes, more than the {limit} that one change may have")]
    TooLarge {
        /// Bytes of the encoded change.
        size: usize,
        /// The bound in bytes.
        limit: usize,
    },
    /// This manager is stopping.
    #[error("the manager is stopping")]
    Stopped,
}
