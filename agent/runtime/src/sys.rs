//! System calls that `nix` has no safe form of. The only unsafe code of the crate.

#![allow(unsafe_code)]

pub(crate) mod filter;
pub(crate) mod mount;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Who `fork` or `clone3` returned to.
pub(crate) enum Forked {
    Child,
    Parent(libc::pid_t),
}

/// Forks. The process must have one thread: the child may then go on as if it were alone.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: shims and inits are single-threaded, so no lock is held by a thread that the child
    // does not have.
    match check(unsafe { libc::fork() }.into())? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as libc::pid_t)),
    }
}

/// Forks into new namespaces and, where given, a v2 cgroup.
pub(crate) fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args =
        CloneArgs { flags: namespaces, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no memory is shared with the child (no CLONE_VM), and the process is
    // single-threaded, as for `fork`; the kernel copies `args`.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    Ok(if pid == 0 { Forked::Child } else { Forked::Parent(pid as libc::pid_t) })
}

/// `struct clone_args` of the kernel, its third version (88 bytes).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A handle on a process that can't come to mean another one.
pub(crate) fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: a plain call; the descriptor it returns is new and ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// An anonymous file of that name, which can be sealed and executed.
pub(crate) fn memfd(name: &CStr) -> io::Result<OwnedFd> {
    // Since Linux 6.3; without it there, the host's vm.memfd_noexec decides.
    const MFD_EXEC: libc::c_uint = 0x10;
    let create = |flags: libc::c_uint| {
        // SAFETY: `name` is a C string.
        check(unsafe { libc::memfd_create(name.as_ptr(), flags) }.into())
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let fd = match create(flags | MFD_EXEC) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create(flags)?,
        other => other?,
    };
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `prctl` with one number.
pub(crate) fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take numbers, no pointers.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }.into())?;
    Ok(())
}

/// Names the calling thread, as seen in `ps`.
pub(crate) fn set_name(name: &CStr) {
    // SAFETY: `name` is a C string; the kernel reads 16 bytes at most.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Sets the three capability sets that a process carries; bit n is capability n.
pub(crate) fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let half = |set: u64, high: bool| (if high { set >> 32 } else { set }) as u32;
    let mut data = [0u32; 6];
    for (index, high) in [false, true].into_iter().enumerate() {
        data[index * 3] = half(effective, high);
        data[index * 3 + 1] = half(permitted, high);
        data[index * 3 + 2] = half(inheritable, high);
    }
    // SAFETY: both arrays have the layout of the kernel's structures, version 3.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    Ok(())
}

/// Sets a resource limit of the calling process.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is valid for the call; nothing is written back.
    check(
        unsafe {
            libc::prlimit64(
                0,
                resource as libc::__rlimit_resource_t,
                &raw const limit,
                std::ptr::null_mut(),
            )
        }
        .into(),
    )?;
    Ok(())
}

/// A descriptor for SIGCHLD and SIGTERM, which are blocked from now on.
pub(crate) fn signal_fd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd.into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// All signals unblocked and at their defaults, as a new program expects.
pub(crate) fn reset_signals() {
    // SAFETY: the set is initialised by sigemptyset; SIG_DFL is always a valid disposition.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Ends the process at once: no destructors, no exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Takes over a descriptor that the parent process left open under that number.
pub(crate) fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: called once for a number that the spawning code set up and nobody else uses.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Closes every descriptor from `first` on. Only for a process that never gets back to the frames
/// that own them: a child between fork and exec.
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: the owners of the descriptors never run again in this process (see above).
    check(unsafe { libc::syscall(libc::SYS_close_range, first as u32, u32::MAX, 0) })?;
    Ok(())
}

/// Keeps standard input and output and the given descriptors, which move to 3 and up and close on
/// exec; closes all others. For the same processes as [`close_from`]: what they execute, or enter
/// as a working folder, must not be reachable through a descriptor of the host's.
pub(crate) fn keep_only<const N: usize>(kept: [OwnedFd; N]) -> io::Result<[OwnedFd; N]> {
    let end = 3 + N as RawFd;
    let aside = |fd: OwnedFd| fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(end));
    let mut raised = [-1; N];
    for (slot, fd) in raised.iter_mut().zip(kept) {
        *slot = aside(fd)?;
    }
    for (place, fd) in (3..).zip(raised) {
        // SAFETY: whoever owned `place` never runs again (see above).
        check(unsafe { libc::dup3(fd, place, libc::O_CLOEXEC) }.into())?;
    }
    close_from(end)?;
    // SAFETY: the numbers were filled just now and nobody else uses them.
    Ok(std::array::from_fn(|index| unsafe { OwnedFd::from_raw_fd(3 + index as RawFd) }))
}

/// Gives freed memory back to the system.
pub(crate) fn trim_heap() {
    // SAFETY: plain call into the allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
