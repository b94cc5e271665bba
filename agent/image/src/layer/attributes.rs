//! Owners, modes, times and extended attributes of what an archive holds.
//!
//! The order matters: a change of owner drops set-user-id bits and file capabilities, so the
//! owner comes first, then the mode, then attributes, then times.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::tar::Entry;

/// Sets everything but the times, which a directory gets last.
pub(super) fn apply(handle: &OwnedFd, entry: &Entry) -> io::Result<()> {
    rustix::fs::fchown(handle, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    rustix::fs::fchmod(handle, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in kept(entry) {
        tolerate(rustix::fs::fsetxattr(handle, name, value, XattrFlags::empty()))?;
    }
    Ok(())
}

/// Sets everything on what can't be opened for it: links, devices, pipes.
pub(super) fn apply_at(
    parent: &OwnedFd,
    name: &[u8],
    entry: &Entry,
    has_mode: bool,
) -> io::Result<()> {
    let (owner, group) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let itself = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(owner), Some(group), itself)?;
    if has_mode {
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    for (attribute, value) in kept(entry) {
        let set = rustix::fs::lsetxattr(at(parent, name), attribute, value, XattrFlags::empty());
        tolerate(set)?;
    }
    Ok(rustix::fs::utimensat(parent, name, &times(entry.mtime), itself)?)
}

/// A path to a name in an open directory, for calls that know no directory handles.
pub(super) fn at(parent: &OwnedFd, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
    path.push(OsString::from_vec(name.to_vec()));
    path
}

pub(super) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// The attributes that an image may set. Overlay's own would let a layer redirect directories of
/// the layers below; labels and signatures belong to the host's policy.
fn kept(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    let allowed = |name: &[u8]| {
        let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        !overlay
            && (name == b"security.capability"
                || [&b"user."[..], b"trusted.", b"system.posix_acl_"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix)))
            && !name.contains(&0)
    };
    entry
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .filter(move |(name, _)| allowed(name))
}

/// File systems without extended attributes, and links that can't have `user.` ones, do without.
fn tolerate(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::NOTSUP | Errno::PERM) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
