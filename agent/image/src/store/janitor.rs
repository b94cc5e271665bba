//! Deletes in the background: taking a large tree apart can take longer than unpacking it.

use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Inner;
use super::layout::{Layout, names};
use crate::error::ImageError;

/// Numbers that make names in the trash unique within a run.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Hands things to the thread that deletes. It ends when the last of these is gone.
#[derive(Debug, Clone)]
pub(crate) struct Janitor {
    trash: PathBuf,
    jobs: Sender<Job>,
}

#[derive(Debug)]
enum Job {
    Delete(PathBuf),
    Collect(Weak<Inner>),
}

impl Janitor {
    /// Starts the thread and has it delete what an earlier run left in the trash.
    pub(crate) fn start(layout: &Layout) -> Result<Self, ImageError> {
        let trash = layout.trash();
        let (jobs, queue) = channel();
        std::thread::Builder::new()
            .name("image-janitor".to_owned())
            .spawn(move || work(&queue))
            .map_err(|error| ImageError::io("start a thread for", &trash, error))?;
        let janitor = Self { trash, jobs };
        for name in names(&janitor.trash)? {
            janitor.send(Job::Delete(janitor.trash.join(name)));
        }
        Ok(janitor)
    }

    /// Takes a file or folder out of sight at once and deletes it soon. What isn't there is gone
    /// already.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), ImageError> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = self.trash.join(format!("{time:x}-{number:x}"));
        match std::fs::rename(path, &place) {
            Ok(()) => {
                self.send(Job::Delete(place));
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(ImageError::io("remove", path, error)),
        }
    }

    /// Has a store's unneeded content collected soon.
    pub(crate) fn collect(&self, store: Weak<Inner>) {
        self.send(Job::Collect(store));
    }

    fn send(&self, job: Job) {
        // Without its thread, the trash waits for the next run.
        let _ = self.jobs.send(job);
    }
}

fn work(queue: &Receiver<Job>) {
    for job in queue {
        match job {
            Job::Delete(path) => {
                let deleted = match path.symlink_metadata() {
                    Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(&path),
                    Ok(_) => std::fs::remove_file(&path),
                    Err(error) => Err(error),
                };
                if let Err(error) = deleted {
                    tracing::warn!(path = %path.display(), %error, "can't delete from the trash");
                }
            }
            Job::Collect(store) => {
                if let Some(store) = store.upgrade() {
                    store.collect();
                }
            }
        }
    }
}
