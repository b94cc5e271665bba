//! Named volumes: a folder each, which outlives the tasks that use it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

pub(crate) struct Volumes {
    dir: PathBuf,
}

impl Volumes {
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o711).create(&dir)?;
        Ok(Self { dir })
    }

    /// The volume's files; made empty when there is no such volume yet.
    pub(crate) fn ensure(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Where its files are, or would be.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("_data")
    }

    /// The name of a volume that lives and dies with a task.
    pub(crate) fn anonymous(task: &str, number: usize) -> String {
        format!("{task}-{number}")
    }

    /// Takes the task's anonymous volumes away.
    pub(crate) fn remove_anonymous(&self, task: &str) -> io::Result<()> {
        let prefix = format!("{task}-");
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}
