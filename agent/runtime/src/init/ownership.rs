//! Whose the files of a container in a user namespace are: on disk they have the owners that they
//! would have without one, so the same image, volume and writable layer serve both.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::mounts::common_folder;
use crate::plan::{IdRange, Rootfs};
use crate::sys;

/// The same layers, seen with mapped owners: mounts below the folder, in this mount namespace alone.
pub(super) fn map_layers(
    rootfs: &Rootfs,
    at: &Path,
    user: BorrowedFd<'_>,
) -> Result<Rootfs, String> {
    let Rootfs::Overlay { lower, upper, work } = rootfs;
    let layers = common_folder(lower);
    let writable = common_folder(&[upper.clone(), work.clone()]);
    let (lower_at, upper_at) = (at.join("lower"), at.join("upper"));
    map(&layers, &lower_at, user)?;
    map(&writable, &upper_at, user)?;
    let moved = |path: &Path, from: &Path, to: &Path| match path.strip_prefix(from) {
        Ok(below) => to.join(below),
        Err(_) => path.to_owned(),
    };
    Ok(Rootfs::Overlay {
        lower: lower.iter().map(|layer| moved(layer, &layers, &lower_at)).collect(),
        upper: moved(upper, &writable, &upper_at),
        work: moved(work, &writable, &upper_at),
    })
}

fn map(folder: &Path, at: &Path, user: BorrowedFd<'_>) -> Result<(), String> {
    let mapped = || {
        fs::create_dir_all(at)?;
        let tree = sys::clone_mount(folder, false)?;
        sys::map_owners(tree.as_fd(), user)?;
        sys::attach_mount(tree.as_fd(), fs::File::open(at)?.as_fd())
    };
    mapped().map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOSYS) => {
                "; user namespaces need Linux 5.19 and a file system with mapped owners"
            }
            _ => "",
        };
        format!("map the owners of {}: {error}{why}", folder.display())
    })
}

/// From here on this process makes files as the container's root, with all rights that it has
/// (which the kernel takes along with the user; capabilities(7), "Effect of user ID changes").
pub(super) fn make_as(ids: IdRange) -> Result<(), String> {
    setfsgid(Gid::from_raw(ids.gid));
    setfsuid(Uid::from_raw(ids.uid));
    let permitted =
        sys::permitted_capabilities().map_err(|error| format!("read capabilities: {error}"))?;
    sys::set_capabilities(permitted, permitted, 0)
        .map_err(|error| format!("keep the right to make files: {error}"))
}
