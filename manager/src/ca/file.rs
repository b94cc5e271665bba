//! Key and certificate files: readable by root alone, never half-written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::CaError;

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CaError + '_ {
    move |source| CaError::Io { path: path.to_owned(), source }
}

/// The file's text; none when it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, CaError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaError::Io { path: path.to_owned(), source }),
    }
}

/// Writes the file, all of it or nothing; the folder is made when it is missing.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), CaError> {
    let dir = parent(path);
    let partial = path.with_extension("partial");
    let write = || {
        make_dir(dir)?;
        ignore_missing(fs::remove_file(&partial))?;
        write_new(&partial, text)?;
        fs::rename(&partial, path)?;
        sync_dir(dir)
    };
    write().map_err(io_error(path))
}

/// Makes the folder with all of the files in it, or nothing. It must be missing or empty.
pub(super) fn make_folder(dir: &Path, files: [(&str, &str); 2]) -> Result<(), CaError> {
    let partial = dir.with_extension("partial");
    let make = || {
        ignore_missing(fs::remove_dir_all(&partial))?;
        make_dir(&partial)?;
        for (name, text) in files {
            write_new(&partial.join(name), text)?;
        }
        sync_dir(&partial)?;
        fs::rename(&partial, dir)?;
        sync_dir(parent(dir))
    };
    make().map_err(io_error(dir))
}

/// Whether the folder has anything in it.
pub(super) fn is_used(dir: &Path) -> Result<bool, CaError> {
    match fs::read_dir(dir) {
        Ok(mut files) => Ok(files.next().is_some()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(CaError::Io { path: dir.to_owned(), source }),
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
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
