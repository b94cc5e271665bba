//! The agent's own program as a sealed copy in memory, which shims are started from: neither an
//! upgrade of the file nor a container that reaches for it changes what runs (CVE-2019-5736).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use crate::error::RuntimeError;
use crate::sys;

pub(crate) struct Binary {
    memory: OwnedFd,
}

impl Binary {
    pub(crate) fn copy_own() -> Result<Self, RuntimeError> {
        let path = PathBuf::from("/proc/self/exe");
        let copy = || {
            let memory = sys::memfd(c"shoal-shim")?;
            let mut file = File::from(memory.try_clone()?);
            io::copy(&mut File::open(&path)?, &mut file)?;
            drop(file);
            // Not F_SEAL_WRITE: the kernel refuses it with EBUSY while anything still holds one of
            // the pages just written, which a busy machine's page lists do. F_SEAL_FUTURE_WRITE
            // refuses every write and writable mapping from now on, and there is none from before.
            let seals = SealFlag::F_SEAL_SEAL
                | SealFlag::F_SEAL_SHRINK
                | SealFlag::F_SEAL_GROW
                | SealFlag::F_SEAL_FUTURE_WRITE;
            fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
            Ok(memory)
        };
        copy().map(|memory| Self { memory }).map_err(RuntimeError::io("copy", &path))
    }

    /// What to execute.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.memory.as_raw_fd()))
    }
}
