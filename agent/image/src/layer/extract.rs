//! Turns a tar archive into a layer's directory, in the form that overlayfs reads.
//!
//! Nothing is ever made outside the root, whatever the archive's paths and links say (see
//! [`super::directories`]). A later entry replaces an earlier one of the same path, except that a
//! directory stays and takes the new attributes.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes;
use super::directories::{self, Directories};
use super::path::{self, Name};
use super::tar::{Archive, Entry, Kind, TarError};

/// Why an archive can't be unpacked.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExtractError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("the tar entry {path:?} would lie outside the image's root")]
    Outside { path: String },
    #[error("the tar entry {path:?} is a whiteout of nothing")]
    Whiteout { path: String },
    #[error("the tar entry {path:?} is a hard link to {target:?}, which the layer doesn't hold")]
    HardLink { path: String, target: String },
    #[error("the tar entry {path:?} can't be unpacked: {source}")]
    Io { path: String, source: Arc<io::Error> },
}

/// Unpacks a whole archive below `root`, which must exist and be empty, and reads its source to
/// the end. Returns the bytes that the files hold.
pub(crate) fn extract<R: BufRead>(
    archive: &mut Archive<R>,
    root: &Path,
) -> Result<u64, ExtractError> {
    let directories = Directories::new(root).map_err(|source| failed(b"/", source))?;
    let mut extractor = Extractor { directories, times: Vec::new(), content: 0 };
    while let Some(entry) = archive.next()? {
        extractor.entry(archive, &entry)?;
    }
    archive.drain()?;
    extractor.set_times();
    Ok(extractor.content)
}

struct Extractor {
    directories: Directories,
    /// Directories and the times that they get when nothing is made in them any more.
    times: Vec<(Vec<u8>, (i64, u32))>,
    content: u64,
}

impl Extractor {
    fn entry<R: BufRead>(
        &mut self,
        archive: &mut Archive<R>,
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        let outside = || ExtractError::Outside { path: lossy(&entry.path) };
        let path = path::clean(&entry.path).ok_or_else(outside)?;
        if path.is_empty() {
            return match entry.kind {
                Kind::Directory => self.root(entry).map_err(|source| failed(b"/", source)),
                _ => Err(outside()),
            };
        }
        let (parent, name) = directories::split(&path);
        let io = |source| failed(&path, source);
        match path::meaning(name) {
            Name::Plain => {}
            Name::Meta => return Ok(()),
            Name::Opaque => {
                let directory = self.directories.ensure(parent).map_err(io)?;
                return directories::set_opaque(&directory).map_err(io);
            }
            Name::Whiteout(hidden) => {
                let directory = self.directories.ensure(parent).map_err(io)?;
                return white_out(&directory, hidden).map_err(io);
            }
            Name::Wrong => return Err(ExtractError::Whiteout { path: lossy(&path) }),
        }
        let directory = self.directories.ensure(parent).map_err(io)?;
        match entry.kind {
            Kind::Directory => self.directory(&directory, &path, entry).map_err(io),
            Kind::File => self.file(archive, &directory, &path, entry),
            Kind::HardLink => self.hard_link(&directory, &path, entry),
            Kind::Symlink => {
                self.replacing(&directory, name, |directory| {
                    rustix::fs::symlinkat(entry.link.as_slice(), directory, name)
                })
                .map_err(io)?;
                attributes::apply_at(&directory, name, entry, false).map_err(io)
            }
            Kind::CharDevice => {
                self.node(&directory, name, entry, FileType::CharacterDevice).map_err(io)
            }
            Kind::BlockDevice => {
                self.node(&directory, name, entry, FileType::BlockDevice).map_err(io)
            }
            Kind::Fifo => self.node(&directory, name, entry, FileType::Fifo).map_err(io),
        }
    }

    fn root(&mut self, entry: &Entry) -> io::Result<()> {
        let root = self.directories.existing(b"")?;
        self.times.push((Vec::new(), entry.mtime));
        attributes::apply(&root, entry)
    }

    fn directory(&mut self, parent: &OwnedFd, path: &[u8], entry: &Entry) -> io::Result<()> {
        let (_, name) = directories::split(path);
        if directories::make(parent, name, true)? {
            // It may have replaced a link that handles were opened through.
            self.directories.forget();
        }
        let handle = Rc::new(directories::open_child(parent, name)?);
        attributes::apply(&handle, entry)?;
        self.directories.remember(path, &handle);
        self.times.push((path.to_vec(), entry.mtime));
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        archive: &mut Archive<R>,
        directory: &OwnedFd,
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        let (_, name) = directories::split(path);
        let io = |source| failed(path, source);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = self
            .replacing(directory, name, |directory| {
                rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))
            })
            .map_err(io)?;
        let mut file = File::from(handle);
        match &entry.sparse {
            None => archive.data(|piece| file.write_all(piece).map_err(io))?,
            Some(segments) => {
                file.set_len(entry.size).map_err(io)?;
                let mut segments = segments.iter().copied();
                let mut current = segments.next();
                archive.data(|mut piece| {
                    while let Some(segment) = current.as_mut().filter(|_| !piece.is_empty()) {
                        let length =
                            piece.len().min(usize::try_from(segment.length).unwrap_or(usize::MAX));
                        file.write_all_at(&piece[..length], segment.offset).map_err(io)?;
                        piece = &piece[length..];
                        segment.offset += length as u64;
                        segment.length -= length as u64;
                        if segment.length == 0 {
                            current = segments.next();
                        }
                    }
                    Ok::<_, ExtractError>(())
                })?;
            }
        }
        let handle = OwnedFd::from(file);
        attributes::apply(&handle, entry).map_err(io)?;
        rustix::fs::futimens(&handle, &attributes::times(entry.mtime)).map_err(|e| io(e.into()))?;
        self.content += entry.size;
        Ok(())
    }

    /// The target is a path from the layer's root, and must be in the same layer.
    fn hard_link(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        let (_, name) = directories::split(path);
        let missing = || ExtractError::HardLink { path: lossy(path), target: lossy(&entry.link) };
        let target = path::clean(&entry.link).ok_or_else(missing)?;
        if target == path {
            return Ok(());
        }
        let (target_parent, target_name) = directories::split(&target);
        let absent = |error: io::Error| {
            if directories::is(&error, Errno::NOENT) || directories::is(&error, Errno::NOTDIR) {
                missing()
            } else {
                failed(path, error)
            }
        };
        let target_directory = self.directories.existing(target_parent).map_err(absent)?;
        let link = |directory: &OwnedFd| {
            rustix::fs::linkat(&target_directory, target_name, directory, name, AtFlags::empty())
        };
        match link(directory) {
            // Both names may already be one file, or reach each other through linked directories:
            // look before the old one is removed.
            Err(Errno::EXIST) => {
                let stat = |directory: &OwnedFd, name: &[u8]| {
                    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|errno| absent(errno.into()))
                };
                let (old, new) = (stat(directory, name)?, stat(&target_directory, target_name)?);
                if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino) {
                    return Ok(());
                }
                self.replacing(directory, name, link).map_err(absent)
            }
            result => result.map_err(|errno| absent(errno.into())),
        }
    }

    fn node(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        kind: FileType,
    ) -> io::Result<()> {
        let device: Dev = rustix::fs::makedev(entry.device.0, entry.device.1);
        self.replacing(directory, name, |directory| {
            rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        attributes::apply_at(directory, name, entry, true)
    }

    /// Makes a new name; when it is taken, what has it goes and it is made again.
    fn replacing<T>(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        make: impl Fn(&OwnedFd) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make(directory) {
            Err(Errno::EXIST) => {}
            result => return Ok(result?),
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR) => std::fs::remove_dir_all(attributes::at(directory, name))?,
            Err(error) => return Err(error.into()),
        }
        self.directories.forget();
        Ok(make(directory)?)
    }

    /// Times that can't be set any more belong to directories that a later entry replaced.
    fn set_times(&mut self) {
        for (path, mtime) in std::mem::take(&mut self.times) {
            let (parent, name) = directories::split(&path);
            let handle = match (path.is_empty(), self.directories.existing(parent)) {
                (true, root) => root,
                (false, parent) => {
                    parent.and_then(|parent| directories::open_child(&parent, name)).map(Rc::new)
                }
            };
            if let Ok(handle) = handle {
                let _ = rustix::fs::futimens(&handle, &attributes::times(mtime));
            }
        }
    }
}

/// Hides a name of the layers below. A name that this layer has itself hides them already, or, if
/// it is a directory, must not be merged with theirs.
fn white_out(directory: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let made = rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0);
    match made {
        Err(Errno::EXIST) => match directories::open_child(directory, name) {
            Ok(own) => directories::set_opaque(&own),
            Err(error)
                if directories::is(&error, Errno::NOTDIR)
                    || directories::is(&error, Errno::LOOP) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        },
        result => Ok(result?),
    }
}

fn failed(path: &[u8], source: io::Error) -> ExtractError {
    ExtractError::Io { path: lossy(path), source: Arc::new(source) }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
