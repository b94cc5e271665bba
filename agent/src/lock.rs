//! One agent a folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held as long as the agent runs; the kernel lets go of it however the agent ends.
pub(crate) struct Lock {
    _lock: Flock<File>,
}

/// Makes the folder, readable by root alone, and takes it.
pub(crate) fn take(dir: &Path, mode: u32, flag: &str) -> anyhow::Result<Lock> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .with_context(|| format!("can't make the folder {}", dir.display()))?;
    let path = dir.join("agent.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("can't open {}", path.display()))?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            bail!(
                "another agent (pid {}) uses {}; stop it, or give this one its own {flag}",
                pid.trim(),
                dir.display()
            );
        }
        Err((_, error)) => bail!("can't lock {}: {error}", path.display()),
    };
    let own = format!("{}\n", std::process::id());
    lock.set_len(0)
        .and_then(|()| lock.write_all(own.as_bytes()))
        .with_context(|| format!("can't write {}", path.display()))?;
    Ok(Lock { _lock: lock })
}
