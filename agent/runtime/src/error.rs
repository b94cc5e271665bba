//! What can go wrong with a container, in the runtime's words.

use std::io;
use std::path::{Path, PathBuf};

/// Why the runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file, folder or socket of the runtime's.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried: "create", "read".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A system call of the runtime's own.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no such container.
    #[error("no such container: {0}")]
    Missing(String),
    /// A container of that id is there already.
    #[error("container {0} exists already")]
    Exists(String),
    /// The container's set-up failed; nothing of it remains.
    #[error("container can't be set up: {0}")]
    Setup(String),
    /// The command to run can't be executed (exit code 126) or is not there (127), as in Docker.
    #[error("{message}")]
    Exec {
        /// 126 or 127.
        code: i32,
        /// Names the command and says why.
        message: String,
    },
    /// The container's shim is gone or does not answer.
    #[error("the shim of container {id} does not answer: {source}")]
    Shim {
        /// The container.
        id: String,
        /// What the socket said.
        #[source]
        source: io::Error,
    },
    /// The container is not in a state in which that can be done.
    #[error("container {id} is {state}")]
    State {
        /// The container.
        id: String,
        /// Its state.
        state: &'static str,
    },
    /// A setting that can't be.
    #[error("{0}")]
    Invalid(String),
}

impl RuntimeError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
