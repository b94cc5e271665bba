//! Files that only root may read, never half-written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the system said of a file or folder.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    path: PathBuf,
    source: io::Error,
}

fn error(path: &Path) -> impl FnOnce(io::Error) -> FileError + '_ {
    move |source| FileError { path: path.to_owned(), source }
}

/// The file's text; none when it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(error(path)),
    }
}

/// Writes the file, all of it or nothing, also when the power fails; the folder is made when it is
/// missing.
///
/// # Errors
///
/// When the folder can't be made or the file can't be written; an older file is kept then.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<(), FileError> {
    let dir = parent(path);
    let partial = path.with_extension("partial");
    let write = || {
        make_dir(dir)?;
        ignore_missing(fs::remove_file(&partial))?;
        write_new(&partial, contents.as_ref())?;
        fs::rename(&partial, path)?;
        sync_dir(dir)
    };
    write().map_err(error(path))
}

/// Makes the folder with all of the files in it, or nothing. It must be missing or empty.
pub(crate) fn make_folder(dir: &Path, files: [(&str, &str); 2]) -> Result<(), FileError> {
    let partial = dir.with_extension("partial");
    let make = || {
        ignore_missing(fs::remove_dir_all(&partial))?;
        make_dir(&partial)?;
        for (name, text) in files {
            write_new(&partial.join(name), text.as_bytes())?;
        }
        sync_dir(&partial)?;
        fs::rename(&partial, dir)?;
        sync_dir(parent(dir))
    };
    make().map_err(error(dir))
}

/// Whether the folder has anything in it.
pub(crate) fn is_used(dir: &Path) -> Result<bool, FileError> {
    match fs::read_dir(dir) {
        Ok(mut files) => Ok(files.next().is_some()),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(error(dir)(source)),
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A name without a folder is one of the current folder.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
