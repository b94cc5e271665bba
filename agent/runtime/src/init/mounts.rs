//! A container's view of the file system: its root, the mounts of its spec, what is hidden.
//!
//! Until the root is switched, every target is opened below the new root with
//! `RESOLVE_IN_ROOT` and mounted over by descriptor: a link in an image can't lead a mount onto
//! the host.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat};
use nix::unistd::symlinkat;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount};

use super::{copy, hooks, ownership};
use crate::plan::{IdRange, Plan, Rootfs};
use crate::spec::COPY_UP;
use crate::sys::{attach_mount, clone_mount, map_owners, open_in_root};

const NONE: Option<&str> = None;

/// Mounts everything and makes the container's root this process's root.
pub(super) fn set_up(dir: &Path, plan: &Plan, user: Option<BorrowedFd<'_>>) -> Result<(), String> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(|error| format!("make mounts private: {error}"))?;
    let root = dir.join("rootfs");
    match (plan.ids, user) {
        (Some(ids), Some(user)) => {
            let mapped = ownership::map_layers(&plan.rootfs, &dir.join("layers"), user)?;
            // All that is made from here on is the container's root's.
            ownership::make_as(ids)?;
            mount_root(&root, &mapped)?;
        }
        _ => mount_root(&root, &plan.rootfs)?,
    }
    let handle = File::open(&root).map_err(|error| format!("open {}: {error}", root.display()))?;
    for mount in plan.spec.mounts().iter().flatten() {
        let target = mount.destination().display();
        mount_one(handle.as_fd(), mount, plan, user).map_err(|error| match mount.source() {
            Some(source) => format!("mount {} at {target}: {error}", source.display()),
            None => format!("mount {target}: {error}"),
        })?;
    }
    make_devices(handle.as_fd()).map_err(|error| format!("make /dev: {error}"))?;
    let linux = plan.spec.linux().as_ref();
    for device in linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten() {
        make_device(handle.as_fd(), device, plan.ids)
            .map_err(|error| format!("make device {}: {error}", device.path().display()))?;
    }
    hooks::run(dir, &plan.spec)?;
    switch_root(&handle).map_err(|error| format!("switch the root: {error}"))
}

/// Overlay options are one page at most, so layers are named from their common folder.
pub(crate) fn mount_root(root: &Path, rootfs: &Rootfs) -> Result<(), String> {
    let Rootfs::Overlay { lower, upper, work } = rootfs;
    let common = common_folder(lower);
    let names = lower.iter().map(|layer| layer.strip_prefix(&common).unwrap_or(layer));
    let names: Vec<String> = names.map(|name| name.display().to_string()).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        names.join(":"),
        upper.display(),
        work.display()
    );
    let page = 4096;
    if options.len() >= page {
        return Err(format!("the image has too many layers ({}) to mount", lower.len()));
    }
    std::env::set_current_dir(&common)
        .map_err(|error| format!("enter {}: {error}", common.display()))?;
    mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|error| format!("mount the overlay of {} layers: {error}", lower.len()))?;
    std::env::set_current_dir("/").map_err(|error| format!("leave {}: {error}", common.display()))
}

pub(super) fn common_folder(paths: &[PathBuf]) -> PathBuf {
    let first = paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("/"));
    let shared = |folder: &&Path| paths.iter().all(|path| path.starts_with(folder));
    first.ancestors().find(shared).unwrap_or(Path::new("/")).to_owned()
}

/// A target by descriptor, as a path that `mount` takes.
fn by_fd(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn mount_one(
    root: BorrowedFd<'_>,
    entry: &Mount,
    plan: &Plan,
    user: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let kind = entry.typ().as_deref().unwrap_or("bind");
    let options = Options::parse(entry.options().iter().flatten().map(String::as_str));
    if kind == "cgroup" {
        return mount_cgroups(root, entry.destination(), plan, options.flags);
    }
    let is_bind = kind == "bind" || options.flags.contains(MsFlags::MS_BIND);
    let source = entry.source().as_deref();
    let is_file = is_bind && source.is_some_and(|source| source.is_file() || !source.is_dir());
    let target = open_target(root, entry.destination(), is_file)?;
    let data = (!options.data.is_empty()).then(|| options.data.join(","));
    if !is_bind {
        let source = source.unwrap_or(Path::new(kind));
        let flags = options.flags;
        return Ok(mount(Some(source), &by_fd(&target), Some(kind), flags, data.as_deref())?);
    }
    let Some(source) = source else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
    let recursive = options.flags & MsFlags::MS_REC;
    let mapped = match user.filter(|_| options.map_owners) {
        Some(user) => {
            let tree = clone_mount(source, !recursive.is_empty())?;
            map_owners(tree.as_fd(), user)?;
            Some(tree)
        }
        None => None,
    };
    if options.copy_up && !is_file {
        let volume = match &mapped {
            Some(tree) => tree.try_clone()?,
            None => File::open(source)?.into(),
        };
        let image = open_in_root(root, entry.destination(), libc::O_RDONLY | libc::O_DIRECTORY)?;
        copy::fill(&by_fd(&image), &by_fd(&volume))?;
    }
    match mapped {
        Some(tree) => attach_mount(tree.as_fd(), target.as_fd())?,
        None => mount(Some(source), &by_fd(&target), NONE, MsFlags::MS_BIND | recursive, NONE)?,
    }
    // The target's descriptor is of what is now covered: open what covers it.
    let mounted = open_in_root(root, entry.destination(), libc::O_PATH)?;
    let propagation = options.propagation.unwrap_or(MsFlags::MS_PRIVATE | MsFlags::MS_REC);
    mount(NONE, &by_fd(&mounted), NONE, propagation, NONE)?;
    let restrictions = options.flags - MsFlags::MS_BIND - MsFlags::MS_REC;
    if !restrictions.is_empty() {
        crate::sys::restrict_mount(mounted.as_fd(), restrictions, !recursive.is_empty())?;
    }
    Ok(())
}

/// A spec's mount options (runtime-spec, config.md, "Linux mount options").
struct Options {
    flags: MsFlags,
    propagation: Option<MsFlags>,
    copy_up: bool,
    /// In a user namespace, its users own what theirs own on disk.
    map_owners: bool,
    data: Vec<String>,
}

impl Options {
    fn parse<'a>(options: impl Iterator<Item = &'a str>) -> Self {
        let mut parsed = Self {
            flags: MsFlags::empty(),
            propagation: None,
            copy_up: false,
            map_owners: false,
            data: Vec::new(),
        };
        for option in options {
            let flag = match option {
                "ro" => MsFlags::MS_RDONLY,
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "relatime" => MsFlags::MS_RELATIME,
                "strictatime" => MsFlags::MS_STRICTATIME,
                "sync" => MsFlags::MS_SYNCHRONOUS,
                "bind" => MsFlags::MS_BIND,
                "rbind" => MsFlags::MS_BIND | MsFlags::MS_REC,
                "rw" | "defaults" | "suid" | "dev" | "exec" | "async" => MsFlags::empty(),
                COPY_UP => {
                    parsed.copy_up = true;
                    continue;
                }
                "idmap" => {
                    parsed.map_owners = true;
                    continue;
                }
                _ => match propagation(option) {
                    Some(propagation) => {
                        parsed.propagation = Some(propagation);
                        continue;
                    }
                    None => {
                        parsed.data.push(option.to_owned());
                        continue;
                    }
                },
            };
            parsed.flags |= flag;
        }
        parsed
    }
}

fn propagation(option: &str) -> Option<MsFlags> {
    let (name, recursive) = match option.strip_prefix('r') {
        Some(name) => (name, MsFlags::MS_REC),
        None => (option, MsFlags::empty()),
    };
    let kind = match name {
        "private" => MsFlags::MS_PRIVATE,
        "shared" => MsFlags::MS_SHARED,
        "slave" => MsFlags::MS_SLAVE,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

/// Opens the target below the root, made with its parents when it is missing.
fn open_target(root: BorrowedFd<'_>, path: &Path, is_file: bool) -> io::Result<OwnedFd> {
    match open_in_root(root, path, libc::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut current = open_in_root(root, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY)?;
    let mut walked = PathBuf::from("/");
    let parts: Vec<_> =
        path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        let name = Path::new(part.as_os_str());
        walked.push(name);
        if last && is_file {
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(by_fd(&current).join(name));
            match made {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        } else {
            match mkdirat(&current, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        current = open_in_root(root, &walked, libc::O_PATH)?;
    }
    Ok(current)
}

/// Shows the container its own cgroups, mostly read-only.
fn mount_cgroups(root: BorrowedFd<'_>, path: &Path, plan: &Plan, flags: MsFlags) -> io::Result<()> {
    let target = open_target(root, path, false)?;
    if plan.cgroup_v1.is_empty() {
        return Ok(mount(Some("cgroup"), &by_fd(&target), Some("cgroup2"), flags, NONE)?);
    }
    let mode = Some("mode=755,size=64k");
    let writable = flags - MsFlags::MS_RDONLY;
    mount(Some("tmpfs"), &by_fd(&target), Some("tmpfs"), writable, mode)?;
    for (name, options) in &plan.cgroup_v1 {
        let at = open_target(root, &path.join(name), false)?;
        let kind = if options.is_empty() { "cgroup2" } else { "cgroup" };
        let data = (!options.is_empty()).then_some(options.as_str());
        mount(Some("cgroup"), &by_fd(&at), Some(kind), flags, data)?;
    }
    let mounted = open_in_root(root, path, libc::O_PATH)?;
    let remount = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    Ok(mount(NONE, &by_fd(&mounted), NONE, remount, NONE)?)
}

/// The devices and links that every container has (runtime-spec, config-linux.md, "Default
/// Devices"). /dev is a tmpfs of the container's own by now; it is opened below the root, since an
/// image's /dev may have been a link to anywhere.
fn make_devices(root: BorrowedFd<'_>) -> io::Result<()> {
    let dev = open_in_root(root, Path::new("/dev"), libc::O_PATH | libc::O_DIRECTORY)?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let mode = Mode::from_bits_truncate(0o666);
        match mknodat(&dev, name, SFlag::S_IFCHR, mode, makedev(major, minor)) {
            Ok(()) => {
                let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
                nix::sys::stat::fchmodat(&dev, name, mode, follow)?;
            }
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A device of the host's. One that is there already, as /dev/null is, stays.
fn make_device(root: BorrowedFd<'_>, device: &LinuxDevice, ids: Option<IdRange>) -> io::Result<()> {
    let path = device.path();
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let folder = open_target(root, folder, false)?;
    let kind = match device.typ() {
        LinuxDeviceType::B => SFlag::S_IFBLK,
        _ => SFlag::S_IFCHR,
    };
    let mode = Mode::from_bits_truncate(device.file_mode().unwrap_or(0o600) & 0o777);
    let number = makedev(device.major() as u64, device.minor() as u64);
    match mknodat(&folder, name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EEXIST) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
    nix::sys::stat::fchmodat(&folder, name, mode, follow)?;
    let owner = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    let (uid, gid) = ids.map_or(owner, |ids| ids.outside(owner));
    let no_follow = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(nix::unistd::fchownat(&folder, name, Some(uid.into()), Some(gid.into()), no_follow)?)
}

/// `pivot_root(".", ".")` puts the old root over the new one, from where it is detached
/// (pivot_root(2), "Notes"): no folder for the old root is needed.
fn switch_root(root: &File) -> nix::Result<()> {
    nix::unistd::fchdir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")
}

/// Makes a file below /dev, which is the container's own, and shows an open one there.
pub(super) fn cover_file(path: &str, shown: &OwnedFd) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY);
    let target = options.open(path)?;
    let flags = MsFlags::MS_BIND;
    Ok(mount(Some(&by_fd(shown)), &by_fd(&target), NONE, flags, NONE)?)
}

/// Hides and write-protects what the spec says; called in the new root, after everything that
/// must still write has.
pub(super) fn protect(plan: &Plan) -> Result<(), String> {
    let Some(linux) = plan.spec.linux() else { return Ok(()) };
    for path in linux.readonly_paths().iter().flatten() {
        read_only(path).map_err(|error| format!("make {path} read-only: {error}"))?;
    }
    for path in linux.masked_paths().iter().flatten() {
        mask(path).map_err(|error| format!("hide {path}: {error}"))?;
    }
    if plan.spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(NONE, "/", NONE, flags, NONE)
            .map_err(|error| format!("make the root read-only: {error}"))?;
    }
    Ok(())
}

fn read_only(path: &str) -> nix::Result<()> {
    match mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    }
    let keep = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | keep;
    mount(NONE, path, NONE, flags, NONE)
}

fn mask(path: &str) -> nix::Result<()> {
    match fs::metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => {
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k"))
        }
        Ok(_) => mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE),
    }
}
