//! System calls that `nix` has no safe form of. The only unsafe code of the crate.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::mount::MsFlags;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(CString::new(path.as_os_str().as_bytes())?)
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

/// An anonymous file of that name, which can be sealed.
pub(crate) fn memfd(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a C string; the descriptor is new and ours.
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), flags) }.into())?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Opens a path below `root` as if `root` were `/`: symbolic links and `..` can't lead out.
pub(crate) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: libc::c_int,
) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: all-zero is a valid `open_how`.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the pointers are valid for the call; the descriptor is new and ours.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    })?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// One instruction of classic BPF.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// Puts a filter on the system calls of this process and those it makes.
pub(crate) fn load_seccomp(program: &[Filter]) -> io::Result<()> {
    const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
    let header = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        filter: program.as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: `Filter` has the layout of `sock_filter`; the kernel copies the program.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const header)
    })?;
    Ok(())
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

/// The capabilities that this process may use: on a host that is a container itself, not all.
pub(crate) fn permitted_capabilities() -> io::Result<u64> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut data = [0u32; 6];
    // SAFETY: both arrays have the layout of the kernel's structures, version 3.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) })?;
    Ok(u64::from(data[1]) | u64::from(data[4]) << 32)
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

/// Loads a program that decides on device access and attaches it to a v2 cgroup, which keeps it
/// after the descriptors are closed.
pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: &[u64]) -> io::Result<()> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let license = c"Apache-2.0";
    // The first fields of `union bpf_attr` for each command; the kernel takes the rest as zero.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the pointers in `load` are valid for the call; the descriptor is new and ours.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>())
    })?;
    // SAFETY: see above.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attach` is valid for the call.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>())
    })?;
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

/// Closes on exec all descriptors from `first` on.
pub(crate) fn close_from_on_exec(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: changes a flag of descriptors, closes none.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Closes all descriptors from `first` on.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called before the process has any descriptor of its own there.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Gives freed memory back to the system.
pub(crate) fn trim_heap() {
    // SAFETY: plain call into the allocator.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Copies extended attributes, such as file capabilities, from one file to another. What the
/// target's file system does not have is left out.
pub(crate) fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    // SAFETY: the paths are C strings, and each buffer is as long as is said.
    unsafe {
        let mut names = vec![0u8; 64 << 10];
        let read = libc::llistxattr(from.as_ptr(), names.as_mut_ptr().cast(), names.len());
        let Ok(length) = check(read as libc::c_long) else { return Ok(()) };
        names.truncate(length as usize);
        for name in names.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
            let mut value = vec![0u8; 64 << 10];
            let (data, size) = (value.as_mut_ptr().cast(), value.len());
            let read = libc::lgetxattr(from.as_ptr(), name.as_ptr(), data, size);
            let length = check(read as libc::c_long)? as usize;
            let data = value.as_ptr().cast();
            let set = libc::lsetxattr(to.as_ptr(), name.as_ptr(), data, length, 0);
            match check(set.into()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => {}
                other => drop(other?),
            }
        }
    }
    Ok(())
}

/// Sends any signal, a real-time one too.
pub(crate) fn send_signal(pid: libc::pid_t, number: libc::c_int) -> io::Result<()> {
    // SAFETY: plain call; a number that is no signal is refused.
    check(unsafe { libc::kill(pid, number) }.into())?;
    Ok(())
}

/// The other side of a terminal, unlocked first (TIOCGPTPEER of ioctl_tty(2): no path that a
/// container could have covered).
pub(crate) fn open_terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCSPTLCK reads one number, TIOCGPTPEER takes flags; the descriptor is new and ours.
    unsafe {
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock).into())?;
        let fd = check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags).into())?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Sets a terminal's size.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one `winsize`.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into())?;
    Ok(())
}

/// Makes a terminal that of the calling process's session.
pub(crate) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes a number; 0 does not steal another session's terminal.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())?;
    Ok(())
}

/// One byte, and the descriptor that came with it; no byte when the other end is closed.
pub(crate) fn receive_descriptor(socket: &UnixStream) -> io::Result<(Option<u8>, Option<OwnedFd>)> {
    let mut byte = [0u8];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let received = message.bytes;
    let descriptor = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made it for this process.
    let descriptor = descriptor.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(((received > 0).then_some(byte[0]), descriptor))
}

/// Sends one byte, with a descriptor where there is one.
pub(crate) fn send_descriptor(
    socket: &UnixStream,
    byte: u8,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = [byte];
    let parts = [io::IoSlice::new(&bytes)];
    let fds: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    sendmsg::<()>(socket.as_raw_fd(), &parts, control, MsgFlags::empty(), None)?;
    Ok(())
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn set_mount_attributes(
    mounted: BorrowedFd<'_>,
    depth: libc::c_int,
    attributes: &MountAttributes,
) -> io::Result<()> {
    // SAFETY: the path is empty, and `attributes` has the layout and length that are said.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mounted.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | depth,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    })?;
    Ok(())
}

/// Maps the owners of a mount that is attached nowhere: what user 0 owns on disk, user 0 of the
/// user namespace owns in it (mount_setattr(2), "ID-mapped mounts"; on overlayfs' layers Linux 5.19).
pub(crate) fn map_owners(mounted: BorrowedFd<'_>, user: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttributes {
        set: libc::MOUNT_ATTR_IDMAP,
        user_namespace: user.as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    set_mount_attributes(mounted, 0, &attributes)
}

/// Attaches a mount where an open file or folder is.
pub(crate) fn attach_mount(mounted: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const FROM_EMPTY_PATH: libc::c_uint = 0x4;
    const TO_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: the paths are empty C strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mounted.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            FROM_EMPTY_PATH | TO_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// Adds restrictions to a mount and, where asked, to all below it (mount_setattr(2), Linux 5.12):
/// a read-only bind of a folder is read-only in what is mounted inside it too. Older kernels
/// restrict the topmost alone.
pub(crate) fn restrict_mount(
    mounted: BorrowedFd<'_>,
    flags: MsFlags,
    recursive: bool,
) -> io::Result<()> {
    let mut attributes = MountAttributes::default();
    for (flag, attribute) in [
        (MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    ] {
        if flags.contains(flag) {
            attributes.set |= attribute;
        }
    }
    let access_time = if flags.contains(MsFlags::MS_NOATIME) {
        Some(libc::MOUNT_ATTR_NOATIME)
    } else if flags.contains(MsFlags::MS_STRICTATIME) {
        Some(libc::MOUNT_ATTR_STRICTATIME)
    } else {
        None
    };
    if let Some(access_time) = access_time {
        attributes.clear |= libc::MOUNT_ATTR__ATIME;
        attributes.set |= access_time;
    }
    let depth = if recursive { libc::AT_RECURSIVE } else { 0 };
    let set = set_mount_attributes(mounted, depth, &attributes);
    match set {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let path = format!("/proc/self/fd/{}", mounted.as_raw_fd());
            let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
            let none = None::<&str>;
            Ok(nix::mount::mount(none, path.as_str(), none, flags, none)?)
        }
        other => other.map(drop),
    }
}

/// The name of the domain of this UTS namespace.
pub(crate) fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer is valid for as many bytes as are said.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into())?;
    Ok(())
}

/// A copy of a mount, where asked with those below it, that is attached nowhere.
pub(crate) fn clone_mount(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let path = c_path(path)?;
    let depth = if recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | depth;
    // SAFETY: the path is a C string; the descriptor is new and ours.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The capabilities that a file gives its program, as the file system keeps them.
pub(crate) fn file_capability(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = c_path(path)?;
    let name = c"security.capability";
    let mut value = [0u8; 64];
    // SAFETY: the strings are C strings, and the buffer is as long as is said.
    let read = unsafe {
        libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    match check(read as libc::c_long) {
        Ok(length) => Ok(Some(value[..length as usize].to_vec())),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENODATA | libc::ENOTSUP) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Replaces what `ps` shows as this process's command line: a shim's arguments are paths of the
/// host's, and none of the container's business.
pub(crate) fn set_command_line(title: &str) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else { return };
    // arg_start and arg_end, fields 48 and 49 of proc_pid_stat(5); the third comes first here.
    let mut fields = fields.split_whitespace().skip(45).map(str::parse::<usize>);
    let (Some(Ok(start)), Some(Ok(end))) = (fields.next(), fields.next()) else { return };
    if start == 0 || end <= start {
        return;
    }
    // SAFETY: the kernel put this process's arguments there; nobody reads them any more.
    let memory = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, end - start) };
    memory.fill(0);
    let length = title.len().min(memory.len() - 1);
    memory[..length].copy_from_slice(&title.as_bytes()[..length]);
}
