//! Named volumes: a folder each, which outlives the tasks that use it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

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
        // One that somebody took away by hand is still among those known.
        if let Err(error) = self.look() {
            tracing::warn!(%error, "can't list the volumes");
        }
        self.names.subscribe()
    }

    /// Reads the folder while nobody else changes the names: whatever is made meanwhile is added
    /// afterwards.
    fn look(&self) -> io::Result<()> {
        let mut looked = Ok(());
        self.names.send_if_modified(|known| match list(&self.dir) {
            Ok(names) => {
                let differ = *known != names;
                *known = names;
                differ
            }
            Err(error) => {
                looked = Err(error);
                false
            }
        });
        looked
    }

    /// The volume's files; made empty when there is no such volume yet.
    pub(crate) fn ensure(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        if !path.exists() {
            fs::create_dir_all(&path)?;
        }
        if !is_anonymous(name) {
            self.names.send_if_modified(|names| names.insert(name.to_owned()));
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

fn list(dir: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if !is_anonymous(&name) {
            names.insert(name);
        }
    }
    Ok(names)
}

/// `ID-NUMBER`, as [`Volumes::anonymous`] makes it.
fn is_anonymous(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(task, number)| {
        number.bytes().all(|byte| byte.is_ascii_digit())
            && task.parse::<shoal_proto::TaskId>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(names: &BTreeSet<String>) -> Vec<String> {
        names.iter().cloned().collect()
    }

    #[test]
    fn whoever_watches_hears_of_named_volumes_and_of_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Volumes::open(dir.path().join("volumes")).unwrap();
        let volumes = open();
        let mut names = volumes.names();
        assert!(names.borrow_and_update().is_empty());
        let task = shoal_proto::TaskId::from_bits(7).to_string();
        volumes.ensure(&Volumes::anonymous(&task, 2)).unwrap();
        assert!(!names.has_changed().unwrap(), "a task's own");
        volumes.ensure("web-2").unwrap();
        volumes.ensure("data").unwrap();
        assert!(names.has_changed().unwrap());
        assert_eq!(shown(&names.borrow_and_update()), ["data", "web-2"]);
        volumes.ensure("data").unwrap();
        assert!(!names.has_changed().unwrap(), "known before");
        volumes.remove_anonymous(&task).unwrap();

        // An agent that starts anew, and one whose volume was taken away by hand.
        let anew = open();
        assert_eq!(shown(&anew.names().borrow()), ["data", "web-2"]);
        fs::remove_dir_all(dir.path().join("volumes/data")).unwrap();
        assert_eq!(shown(&anew.names().borrow()), ["web-2"]);
    }
}
