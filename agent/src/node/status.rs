//! What the agent keeps on disk: its assignments and each task's last status. An agent that
//! starts anew goes on from there, with or without a manager in reach.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use prost::Message;
use shoal_proto::v1::{Assignments, TaskStatus};

pub(crate) struct StatusStore {
    dir: PathBuf,
}

impl StatusStore {
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        // Specs hold what is nobody else's to read.
        DirBuilder::new().recursive(true).mode(0o700).create(dir.join("tasks"))?;
        Ok(Self { dir })
    }

    fn assignments_path(&self) -> PathBuf {
        self.dir.join("assignments")
    }

    fn status_path(&self, task: &str) -> PathBuf {
        self.dir.join("tasks").join(task)
    }

    /// As of the last [`Self::save_assignments`]. What can't be read counts as nothing: the
    /// manager tells everything again.
    pub(crate) fn assignments(&self) -> Assignments {
        read(&self.assignments_path())
    }

    pub(crate) fn save_assignments(&self, assignments: &Assignments) -> io::Result<()> {
        write(&self.assignments_path(), &assignments.encode_to_vec())
    }

    pub(crate) fn status(&self, task: &str) -> Option<TaskStatus> {
        let path = self.status_path(task);
        path.exists().then(|| read(&path))
    }

    pub(crate) fn save_status(&self, task: &str, status: &TaskStatus) -> io::Result<()> {
        write(&self.status_path(task), &status.encode_to_vec())
    }

    pub(crate) fn forget(&self, task: &str) -> io::Result<()> {
        match fs::remove_file(self.status_path(task)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Tasks that a status is kept of.
    pub(crate) fn tasks(&self) -> io::Result<Vec<String>> {
        let read = fs::read_dir(self.dir.join("tasks"))?;
        let names = read.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| !name.contains('.')).collect())
    }
}

fn read<M: Message + Default>(path: &Path) -> M {
    let bytes = fs::read(path).unwrap_or_default();
    M::decode(&*bytes).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "unreadable, going on without it");
        M::default()
    })
}

/// A crash of the agent leaves the old or the new content; after a power cut the manager knows.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(partial, path)
}
