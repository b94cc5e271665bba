//! Files in and out of a container, as tar archives. The work is done by a process of its own (a
//! copy of this program, as shims are) with the container's root as its root: a link in there
//! can't lead out.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::init::enter_user_namespace;
use crate::init::mounts::mount_root;
use crate::plan::Rootfs;
use crate::sys;

/// `argv[0]` of such a process.
pub(crate) const NAME: &str = "shoal-files";

/// What to do with a container's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archive {
    /// Pack a path to standard output. The archive's first entry is what the path names; a path
    /// that ends in `/.` packs a folder's contents.
    Pack {
        /// In the container.
        path: PathBuf,
        /// Pack what a link at its end points at.
        follow: bool,
    },
    /// Pack the whole root, without what is mounted in it.
    Export,
    /// Unpack standard input: into the path when it is a folder, else under its name.
    Unpack {
        /// In the container.
        path: PathBuf,
        /// Owners as in the archive; else root's.
        keep_owners: bool,
        /// The path must be a folder.
        must_be_folder: bool,
    },
}

impl Archive {
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let flag = |set: bool| OsString::from(if set { "1" } else { "0" });
        match self {
            Self::Pack { path, follow } => vec!["pack".into(), path.into(), flag(*follow)],
            Self::Export => vec!["export".into()],
            Self::Unpack { path, keep_owners, must_be_folder } => {
                vec!["unpack".into(), path.into(), flag(*keep_owners), flag(*must_be_folder)]
            }
        }
    }

    fn from_args(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let kind = args.next()?;
        let mut path = || args.next().map(PathBuf::from);
        Some(match kind.to_str()? {
            "pack" => Self::Pack { path: path()?, follow: args.next()? == "1" },
            "export" => Self::Export,
            "unpack" => Self::Unpack {
                path: path()?,
                keep_owners: args.next()? == "1",
                must_be_folder: args.next()? == "1",
            },
            _ => return None,
        })
    }
}

/// Whose files.
pub(crate) enum Files {
    /// Of a container whose first process this is.
    Running(libc::pid_t),
    /// Of one that does not run; mounted at the folder, where nobody else sees it.
    Stopped(Rootfs, PathBuf),
}

impl Files {
    pub(crate) fn to_args(&self) -> io::Result<Vec<OsString>> {
        Ok(match self {
            Self::Running(pid) => vec!["running".into(), pid.to_string().into(), "".into()],
            Self::Stopped(rootfs, at) => {
                vec!["stopped".into(), serde_json::to_string(rootfs)?.into(), at.into()]
            }
        })
    }

    fn from_args(args: &mut impl Iterator<Item = OsString>) -> Option<Self> {
        let (kind, what, at) = (args.next()?, args.next()?, args.next()?);
        match kind.to_str()? {
            "running" => Some(Self::Running(what.to_str()?.parse().ok()?)),
            "stopped" => Some(Self::Stopped(serde_json::from_str(what.to_str()?).ok()?, at.into())),
            _ => None,
        }
    }
}

/// Does the work when this process is one for it, and then never returns. What went wrong is on
/// standard error.
pub(crate) fn run_if_asked() {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name != NAME) {
        return;
    }
    let files = Files::from_args(&mut args);
    let done = match (files, Archive::from_args(args)) {
        (Some(files), Some(archive)) => run(&files, &archive),
        _ => Err("wrong arguments".to_owned()),
    };
    let code = match done {
        Ok(()) => 0,
        Err(message) => {
            // Nobody listens any more, if this fails.
            let _ = io::stderr().write_all(message.as_bytes());
            1
        }
    };
    sys::exit_now(code)
}

fn run(files: &Files, archive: &Archive) -> Result<(), String> {
    enter(files, *archive == Archive::Export)
        .map_err(|error| format!("reach the container's files: {error}"))?;
    match archive {
        Archive::Pack { path, follow } => pack(path, *follow),
        Archive::Export => pack(Path::new("/."), false),
        Archive::Unpack { path, keep_owners, must_be_folder } => {
            unpack(path, *keep_owners, *must_be_folder)
        }
    }
}

/// Makes the container's root this process's. `bare`: without what is mounted in it.
fn enter(files: &Files, bare: bool) -> Result<(), String> {
    let say = |error: nix::Error| error.to_string();
    let none = None::<&str>;
    let mut user = None;
    match files {
        Files::Running(pid) => {
            let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
            let has_own_users = link(&pid.to_string()) != link("self");
            let handle = sys::pidfd_open(*pid).map_err(|error| error.to_string())?;
            setns(&handle, CloneFlags::CLONE_NEWNS).map_err(say)?;
            if bare {
                let tree: OwnedFd =
                    sys::clone_mount(Path::new("/"), false).map_err(|e| e.to_string())?;
                nix::unistd::fchdir(tree.as_fd()).map_err(say)?;
            } else {
                nix::unistd::chdir("/").map_err(say)?;
            }
            user = has_own_users.then_some(handle);
        }
        Files::Stopped(rootfs, at) => {
            unshare(CloneFlags::CLONE_NEWNS).map_err(say)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(say)?;
            mount_root(at, rootfs)?;
            nix::unistd::chdir(at).map_err(say)?;
        }
    }
    nix::unistd::chroot(".").map_err(say)?;
    nix::unistd::chdir("/").map_err(say)?;
    match user {
        // Owners are as the container sees them.
        Some(handle) => enter_user_namespace(handle.as_fd()),
        None => Ok(()),
    }
}

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

fn pack(path: &Path, follow: bool) -> Result<(), String> {
    let say = |error: io::Error| error.to_string();
    let contents = path.as_os_str().to_string_lossy().ends_with("/.");
    let shown = path.display();
    let mut path = absolute(path);
    if follow || contents {
        path = fs::canonicalize(&path).map_err(|error| format!("{shown}: {error}"))?;
    }
    let found =
        fs::symlink_metadata(&path).map_err(|_| format!("there is no {shown} in the container"))?;
    if contents && !found.is_dir() {
        return Err(format!("{shown} is no folder in the container"));
    }
    let output = io::BufWriter::with_capacity(256 << 10, io::stdout().lock());
    let mut builder = tar::Builder::new(output);
    builder.follow_symlinks(false);
    let mut links = std::collections::HashMap::new();
    if contents {
        for entry in sorted(&path)? {
            add(
                &mut builder,
                &entry,
                Path::new(entry.file_name().unwrap_or_default()),
                &mut links,
            )?;
        }
    } else {
        let name = path.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
        add(&mut builder, &path, &name, &mut links)?;
    }
    builder.into_inner().and_then(|mut output| output.flush()).map_err(say)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let say = |error: io::Error| format!("{}: {error}", folder.display());
    let entries = fs::read_dir(folder).map_err(say)?;
    let mut entries: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(say)?;
    entries.sort();
    Ok(entries)
}

type Links = std::collections::HashMap<(u64, u64), PathBuf>;

fn add<W: Write>(
    builder: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
    links: &mut Links,
) -> Result<(), String> {
    let say = |error: io::Error| format!("{}: {error}", path.display());
    let found = fs::symlink_metadata(path).map_err(say)?;
    let kind = found.file_type();
    if std::os::unix::fs::FileTypeExt::is_socket(&kind) {
        // An archive has no such thing.
        return Ok(());
    }
    if found.nlink() > 1 && !found.is_dir() {
        let place = (found.dev(), found.ino());
        if let Some(first) = links.get(&place) {
            let mut header = tar::Header::new_gnu();
            header.set_metadata(&found);
            header.set_entry_type(tar::EntryType::Link);
            header.set_size(0);
            return builder.append_link(&mut header, name, first).map_err(say);
        }
        links.insert(place, name.to_owned());
    }
    if let Some(capability) = sys::file_capability(path).map_err(say)? {
        let record = [("SCHILY.xattr.security.capability", &capability[..])];
        builder.append_pax_extensions(record).map_err(say)?;
    }
    builder.append_path_with_name(path, name).map_err(say)?;
    if found.is_dir() {
        for entry in sorted(path)? {
            let inner = name.join(entry.file_name().unwrap_or_default());
            add(builder, &entry, &inner, links)?;
        }
    }
    Ok(())
}

fn unpack(path: &Path, keep_owners: bool, must_be_folder: bool) -> Result<(), String> {
    let shown = path.display();
    let path = absolute(path);
    let is_folder = fs::metadata(&path).is_ok_and(|found| found.is_dir());
    // Its own name, when the path is no folder to put it into.
    let (folder, name) = if is_folder {
        (path.clone(), None)
    } else {
        if must_be_folder {
            return Err(format!("there is no folder {shown} in the container"));
        }
        let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
        if !parent.is_dir() {
            return Err(format!("there is no folder {} in the container", parent.display()));
        }
        (parent, path.file_name().map(PathBuf::from))
    };
    let mut archive =
        tar::Archive::new(io::BufReader::with_capacity(256 << 10, io::stdin().lock()));
    archive.set_preserve_ownerships(keep_owners);
    let say = |error: io::Error| match error.get_ref() {
        Some(inner) => format!("{error}: {inner}"),
        None => error.to_string(),
    };
    let mut later = Vec::new();
    for entry in archive.entries().map_err(say)? {
        let mut entry = entry.map_err(say)?;
        entry.set_preserve_permissions(true);
        entry.set_preserve_mtime(true);
        let own = entry.path().map_err(say)?.into_owned();
        let place = folder.join(renamed(&own, name.as_deref()));
        let is_dir = entry.header().entry_type().is_dir();
        if is_dir && fs::metadata(&place).is_err() {
            fs::create_dir_all(&place).map_err(say)?;
        }
        match fs::symlink_metadata(&place) {
            // A folder is not replaced by a file, nor a file by a folder, without anybody asking.
            Ok(found) if found.is_dir() && !is_dir => {
                return Err(format!("{} is a folder in the container", place.display()));
            }
            Ok(found) if !found.is_dir() && is_dir => {
                return Err(format!("{} is no folder in the container", place.display()));
            }
            _ => {}
        }
        if entry.header().entry_type().is_hard_link() {
            let target = entry.link_name().map_err(say)?.map(|target| target.into_owned());
            later.push((place, folder.join(renamed(&target.unwrap_or_default(), name.as_deref()))));
            continue;
        }
        entry.unpack(&place).map_err(say)?;
    }
    for (place, target) in later {
        let _ = fs::remove_file(&place);
        fs::hard_link(&target, &place).map_err(say)?;
    }
    // Whatever follows the archive's end is taken, so that the sender is not cut off.
    let _ = io::copy(&mut archive.into_inner(), &mut io::sink());
    Ok(())
}

/// A path of an archive without ways out of it, its first part replaced by a name where given.
fn renamed(path: &Path, name: Option<&Path>) -> PathBuf {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part),
        _ => None,
    });
    match name {
        None => parts.collect(),
        Some(name) => name.components().map(Component::as_os_str).chain(parts.skip(1)).collect(),
    }
}

/// What differs between a container's writable folder and its layers, in Docker's letters, sorted
/// by path.
///
/// # Errors
/// A folder that can't be read.
pub fn diff(rootfs: &Rootfs) -> io::Result<Vec<(char, PathBuf)>> {
    let Rootfs::Overlay { lower, upper, .. } = rootfs;
    let mut changes = Vec::new();
    walk(upper, Path::new("/"), lower, &mut changes)?;
    changes.sort_by(|a, b| a.1.cmp(&b.1));
    let (ours, mut changes): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|(letter, path)| *letter == 'A' && is_mount_point(path));
    // A folder that changed only because of those.
    for (_, path) in ours {
        for folder in path.ancestors().skip(1) {
            let has_more =
                changes.iter().any(|(_, other)| other != folder && other.starts_with(folder));
            if !has_more {
                changes.retain(|(letter, other)| *letter != 'C' || other != folder);
            }
        }
    }
    Ok(changes)
}

/// What every container needs to mount on, and gets when its image lacks it.
fn is_mount_point(path: &Path) -> bool {
    ["/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
        .iter()
        .any(|own| path == Path::new(own))
}

fn walk(
    folder: &Path,
    place: &Path,
    lower: &[PathBuf],
    changes: &mut Vec<(char, PathBuf)>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = place.join(entry.file_name());
        let found = entry.metadata()?;
        let below = |root: &PathBuf| {
            let relative = path.strip_prefix("/").unwrap_or(&path);
            fs::symlink_metadata(root.join(relative)).is_ok()
        };
        // Overlayfs's mark for what is gone: a character device 0:0.
        let kind = entry.file_type()?;
        if std::os::unix::fs::FileTypeExt::is_char_device(&kind) && found.rdev() == 0 {
            changes.push(('D', path));
            continue;
        }
        let letter = if lower.iter().any(below) { 'C' } else { 'A' };
        changes.push((letter, path.clone()));
        if kind.is_dir() {
            walk(&entry.path(), &path, lower, changes)?;
        }
    }
    Ok(())
}
