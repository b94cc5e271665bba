//! A process's terminal, from the container's own devpts.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::sys;

pub(crate) struct Terminal {
    /// The shim's end.
    pub(crate) master: OwnedFd,
    /// The process's end.
    pub(crate) slave: OwnedFd,
}

/// Opens a new one, with so many columns and rows; 0: as the kernel makes it.
pub(crate) fn open((columns, rows): (u16, u16)) -> Result<Terminal, String> {
    let say = |error: std::io::Error| format!("open a terminal: {error}");
    let master: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
        .open("/dev/pts/ptmx")
        .map_err(say)?
        .into();
    let slave = sys::open_terminal_peer(master.as_fd()).map_err(say)?;
    if columns > 0 && rows > 0 {
        sys::set_window_size(master.as_fd(), columns, rows).map_err(say)?;
    }
    Ok(Terminal { master, slave })
}

/// Makes it this session's controlling terminal and its standard streams. The process must lead a
/// session without a terminal.
pub(crate) fn take_over(slave: OwnedFd) -> Result<(), String> {
    let say = |error: std::io::Error| format!("take the terminal over: {error}");
    sys::set_controlling_terminal(slave.as_fd()).map_err(say)?;
    let say = |error: nix::Error| format!("take the terminal over: {error}");
    nix::unistd::dup2_stdin(&slave).map_err(say)?;
    nix::unistd::dup2_stdout(&slave).map_err(say)?;
    nix::unistd::dup2_stderr(&slave).map_err(say)?;
    Ok(())
}
