//! Open handles of a layer's directories.
//!
//! Every path of an archive is followed by the kernel with `RESOLVE_IN_ROOT` from the layer's own
//! root: a `..` or a symbolic link, however it got there, ends inside the layer (openat2(2)).
//! Handles are kept, since an archive's neighbours share their directory.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

/// Handles kept open at once, far below the usual limit of 1,024 for a process.
const MAX_OPEN: usize = 64;
const OPAQUE: &str = "trusted.overlay.opaque";

/// The directories below one root.
pub(super) struct Directories {
    root: Rc<OwnedFd>,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
}

impl Directories {
    /// `root` must exist.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        Ok(Self { root: Rc::new(root), open: HashMap::new() })
    }

    /// The directory at a clean path (`a/b`, or nothing for the root) that must exist.
    pub(super) fn existing(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(handle) = self.open.get(path) {
            return Ok(Rc::clone(handle));
        }
        let handle = Rc::new(resolve(&self.root, path)?);
        self.remember(path, &handle);
        Ok(handle)
    }

    /// The directory at a clean path; what is missing of it is made, as root's and 0755.
    pub(super) fn ensure(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        match self.existing(path) {
            // A parent may also be hidden behind a whiteout that came before it.
            Err(error) if is(&error, Errno::NOENT) || is(&error, Errno::NOTDIR) => {
                let (parent, name) = split(path);
                let parent = self.ensure(parent)?;
                let created = make(&parent, name, false)?;
                let handle = Rc::new(resolve(&self.root, path)?);
                if created {
                    rustix::fs::fchmod(&handle, Mode::from_raw_mode(0o755))?;
                }
                self.remember(path, &handle);
                Ok(handle)
            }
            result => result,
        }
    }

    /// Keeps a handle of a directory that the caller has opened.
    pub(super) fn remember(&mut self, path: &[u8], handle: &Rc<OwnedFd>) {
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Rc::clone(handle));
    }

    /// Forgets the handles: a directory or a link has been replaced, so paths lead elsewhere.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }
}

/// Parent and name of a clean path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Makes a directory unless there is one. Returns whether it was made.
///
/// One that takes the place of a whiteout is opaque, as the whiteout has removed what lies below.
/// Any other thing in its place is an error, or replaced when the archive has an entry for the
/// directory itself (`replace`).
pub(super) fn make(parent: &OwnedFd, name: &[u8], replace: bool) -> io::Result<bool> {
    let mode = Mode::from_raw_mode(0o700);
    match rustix::fs::mkdirat(parent, name, mode) {
        Ok(()) => return Ok(true),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let whiteout = is_whiteout(&stat);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Ok(false),
        // A link to a directory stands for it until an entry of its own says otherwise.
        FileType::Symlink if !replace => return Ok(false),
        _ if !replace && !whiteout => return Err(Errno::NOTDIR.into()),
        _ => {}
    }
    rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
    rustix::fs::mkdirat(parent, name, mode)?;
    if whiteout {
        set_opaque(&open_child(parent, name)?)?;
    }
    Ok(true)
}

/// Opens a directory by its own name, never through a link.
pub(super) fn open_child(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Hides everything that lower layers have in a directory (kernel's overlayfs.rst, "whiteouts and
/// opaque directories").
pub(super) fn set_opaque(directory: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())?)
}

/// A character device 0:0 hides the same name in lower layers.
pub(super) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn resolve(root: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), how) {
            // Something on the machine was renamed while a link's `..` was followed: try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
