//! Fills a new volume with what the image has at its place, as Docker does: contents, owners,
//! modes, times, links, devices and extended attributes.

use std::collections::BTreeMap;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

use crate::sys;

/// Copies a folder's contents and attributes into an empty folder; a folder that is not empty
/// stays as it is. Neither path may have a link in it that the container controls: both are
/// `/proc/self/fd/N` of open folders. On an error, what was copied is removed again.
pub(super) fn fill(from: &Path, to: &Path) -> io::Result<()> {
    if fs::read_dir(to)?.next().is_some() {
        return Ok(());
    }
    let copied = copy_folder(from, to, &mut BTreeMap::new());
    if copied.is_err() {
        // What can't be removed makes the volume count as filled; the error tells of it.
        for entry in fs::read_dir(to)?.flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let _ = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
    copied
}

/// Files with several names: device and inode, and the first copy.
type Links = BTreeMap<(u64, u64), PathBuf>;

fn copy_folder(from: &Path, to: &Path, links: &mut Links) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let found = fs::symlink_metadata(&source)?;
        if found.is_dir() {
            fs::create_dir(&target)?;
            copy_folder(&source, &target, links)?;
        } else {
            copy_file(&source, &target, &found, links)?;
        }
    }
    // The folder itself is a link below /proc when it is the topmost.
    let found = fs::metadata(from)?;
    std::os::unix::fs::chown(to, Some(found.uid()), Some(found.gid()))?;
    fs::set_permissions(to, Permissions::from_mode(found.mode() & 0o7777))?;
    set_times(to, &found, UtimensatFlags::FollowSymlink)
}

fn copy_file(source: &Path, target: &Path, found: &Metadata, links: &mut Links) -> io::Result<()> {
    if found.nlink() > 1 {
        if let Some(first) = links.get(&(found.dev(), found.ino())) {
            return fs::hard_link(first, target);
        }
        links.insert((found.dev(), found.ino()), target.to_owned());
    }
    let kind = found.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(source)?, target)?;
        lchown(target, Some(found.uid()), Some(found.gid()))?;
        return set_times(target, found, UtimensatFlags::NoFollowSymlink);
    }
    if kind.is_file() {
        fs::copy(source, target)?;
    } else {
        let special = if kind.is_fifo() {
            SFlag::S_IFIFO
        } else if kind.is_socket() {
            // Nobody listens on a copy.
            return Ok(());
        } else if kind.is_block_device() {
            SFlag::S_IFBLK
        } else {
            SFlag::S_IFCHR
        };
        mknod(target, special, Mode::from_bits_truncate(0o600), found.rdev())?;
    }
    lchown(target, Some(found.uid()), Some(found.gid()))?;
    // After the owner, whose change takes the set-uid bit and capabilities away.
    fs::set_permissions(target, Permissions::from_mode(found.mode() & 0o7777))?;
    sys::copy_attributes(source, target)?;
    set_times(target, found, UtimensatFlags::NoFollowSymlink)
}

fn set_times(path: &Path, found: &Metadata, follow: UtimensatFlags) -> io::Result<()> {
    let accessed = TimeSpec::new(found.atime(), found.atime_nsec());
    let modified = TimeSpec::new(found.mtime(), found.mtime_nsec());
    Ok(utimensat(nix::fcntl::AT_FDCWD, path, &accessed, &modified, follow)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_folder_is_like_its_source_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/file"), "content").unwrap();
        fs::set_permissions(from.join("sub/file"), Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(from.join("sub/file"), from.join("same")).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        fs::set_permissions(&from, Permissions::from_mode(0o750)).unwrap();
        fill(&from, &to).unwrap();
        let inode = |path: &str| fs::metadata(to.join(path)).unwrap().ino();
        assert_eq!(fs::read_to_string(to.join("same")).unwrap(), "content");
        assert_eq!(inode("same"), inode("sub/file"));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::metadata(to.join("same")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o750);
        fs::write(from.join("new"), "later").unwrap();
        fill(&from, &to).unwrap();
        assert!(!to.join("new").exists(), "a volume in use is left alone");
    }
}
