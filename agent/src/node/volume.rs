//! Named volumes: a folder each, which outlives the tasks that use it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use tokio::sync::watch;

pub(crate) struct Volumes {
    dir: PathBuf,
    /// The names of those that are no task's own.
    names: watch::Sender<BTreeSet<String>>,
}

impl Volumes {
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o711).create(&dir)?;
        let volumes = Self { dir, names: watch::channel(BTreeSet::new()).0 };
        volumes.look()?;
        Ok(volumes)
    }

    /// The names of those that have one, in order, and each time that they are others.
    pub(crate) fn names(&self) -> watch::Receiver<BTreeSet<String>> {
        self.names.subscribe()
    }

    fn look(&self) -> io::Result<()> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.dir)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if !is_anonymous(&name) {
                names.insert(name);
            }
        }
        self.names.send_if_modified(|known| {
            let differ = *known != names;
            *known = names;
            differ
        });
        Ok(())
    }

    /// The volume's files; made empty when there is no such volume yet.
    pub(crate) fn ensure(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        if !path.exists() {
            fs::create_dir_all(&path)?;
            self.look()?;
        }
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

/// `ID-NUMBER`, as [`Volumes::anonymous`] makes it.
fn is_anonymous(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(task, number)| {
        number.bytes().all(|byte| byte.is_ascii_digit())
            && task.parse::<shoal_proto::TaskId>().is_ok()
    })
}
