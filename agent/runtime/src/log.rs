//! Container logs: JSON lines as Docker's `json-file` driver writes them, in files that rotate.

pub(crate) mod reader;
pub(crate) mod sink;
pub(crate) mod time;
pub(crate) mod writer;

use std::path::{Path, PathBuf};

/// The rotated file of that age; 0 is the one being written.
fn rotated(path: &Path, age: u32) -> PathBuf {
    if age == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

#[cfg(test)]
mod tests;
