//! The small init that a container gets with `init: true`: forwards signals to the command,
//! reaps what is orphaned, and ends as the command does. As `docker run --init`.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys::{self, Forked};

/// Returns in a child, which goes on to exec; the caller's process stays as its init and ends
/// with it. When no child can be made, the caller goes on itself.
pub(super) fn fork_command() {
    let Ok(Forked::Parent(command)) = sys::fork() else { return };
    // Its own copies of the pipes to the shim must close, or the shim never hears of the exec.
    for fd in 3..16 {
        // Most are not open.
        let _ = nix::unistd::close(fd);
    }
    forward_and_reap(Pid::from_raw(command))
}

fn forward_and_reap(command: Pid) -> ! {
    let forwarded: Vec<libc::c_int> = (1..=31)
        .filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP))
        .filter(|signal| {
            !matches!(*signal, libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE)
        })
        .collect();
    let Ok(signals) = sys::signal_fd(&forwarded) else { sys::exit_now(1) };
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == command => sys::exit_now(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                    sys::exit_now(128 + signal as i32)
                }
                Ok(WaitStatus::StillAlive) => break,
                Err(Errno::EINTR) | Ok(_) => {}
                Err(_) => sys::exit_now(1),
            }
        }
        for signal in crate::shim::wait_for_signals(&signals) {
            if signal != libc::SIGCHLD
                && let Ok(signal) = Signal::try_from(signal)
            {
                // The command may have ended just now.
                let _ = kill(command, signal);
            }
        }
    }
}
