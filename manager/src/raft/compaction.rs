//! When a snapshot is due, and the thread that writes it: encoding a large store and syncing its
//! file takes longer than a commit may wait.
//!
//! The log is kept back to the older of the two snapshots that stay, so that a newest one that
//! can't be read loses nothing.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shoal_core::store::Store;

use super::snapshot::{self, SnapshotFiles};
use super::storage::Mark;
use super::{Members, RaftError};

/// After a snapshot that could not be written.
const RETRY: Duration = Duration::from_secs(10);

pub(super) struct Snapshots {
    files: SnapshotFiles,
    /// Applied entries between two.
    every: u64,
    newest: Mark,
    job: Option<Job>,
    not_before: Option<Instant>,
}

struct Job {
    mark: Mark,
    writing: Writing,
}

enum Writing {
    Thread(JoinHandle<Result<(), RaftError>>),
    Over(Result<(), RaftError>),
}

impl Writing {
    fn is_over(&self) -> bool {
        match self {
            Self::Thread(thread) => thread.is_finished(),
            Self::Over(_) => true,
        }
    }

    /// Waits for it.
    fn end(self) -> Result<(), RaftError> {
        match self {
            Self::Thread(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(RaftError::Thread(std::io::Error::other("it panicked")))),
            Self::Over(result) => result,
        }
    }
}

impl Snapshots {
    /// `newest` is the one that the store was read from.
    pub(super) fn new(files: SnapshotFiles, every: u64, newest: Mark) -> Self {
        Self { files, every, newest, job: None, not_before: None }
    }

    /// Begins one of the store as of `applied`, when it is due or somebody waits for it, and none
    /// is being written.
    pub(super) fn begin_if_due(
        &mut self,
        applied: Mark,
        store: &Store,
        members: &Members,
        wanted: bool,
    ) {
        let new = applied.index - self.newest.index;
        let due = new >= self.every || (wanted && new > 0);
        let waiting = self.not_before.is_some_and(|until| Instant::now() < until);
        if !due || waiting || self.job.is_some() {
            return;
        }
        let (files, previous) = (self.files.clone(), self.newest);
        let (store, members) = (store.clone(), members.clone());
        let write = move || {
            files.write(applied, &snapshot::encode(&store, &members))?;
            files.keep_only([previous, applied])
        };
        match std::thread::Builder::new().name("raft-snapshot".to_owned()).spawn(write) {
            Ok(thread) => self.job = Some(Job { mark: applied, writing: Writing::Thread(thread) }),
            Err(error) => self.put_off(&RaftError::Thread(error)),
        }
    }

    /// Writes one here and now; all of the log that it stands for may be cut.
    pub(super) fn make(
        &mut self,
        applied: Mark,
        store: &Store,
        members: &Members,
    ) -> Result<(), RaftError> {
        self.install(applied, &snapshot::encode(store, members))
    }

    /// Keeps one that came from the leader, in place of all others.
    pub(super) fn install(&mut self, mark: Mark, body: &[u8]) -> Result<(), RaftError> {
        self.wait();
        self.files.write(mark, body)?;
        self.newest = mark;
        self.files.keep_only([mark, mark])
    }

    /// When one has been written since the last call: up to where the log may be cut.
    pub(super) fn finished(&mut self) -> Option<Mark> {
        let job = self.job.take_if(|job| job.writing.is_over())?;
        match job.writing.end() {
            Ok(()) => {
                self.not_before = None;
                Some(std::mem::replace(&mut self.newest, job.mark))
            }
            Err(error) => {
                self.put_off(&error);
                None
            }
        }
    }

    /// Waits until the one that is being written is there.
    pub(super) fn let_finish(&mut self) {
        if let Some(Job { mark, writing }) = self.job.take() {
            self.job = Some(Job { mark, writing: Writing::Over(writing.end()) });
        }
    }

    /// A snapshot that can't be written leaves the log longer, and is tried again later.
    fn put_off(&mut self, error: &RaftError) {
        tracing::warn!(%error, "no snapshot; the log stays longer");
        self.not_before = Some(Instant::now() + RETRY);
    }

    /// Waits for the one that is being written: the folder is another's afterwards.
    pub(super) fn wait(&mut self) {
        if let Some(job) = self.job.take()
            && let Err(error) = job.writing.end()
        {
            tracing::warn!(%error, "no snapshot");
        }
    }
}
