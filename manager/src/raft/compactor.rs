//! Decides when to take a snapshot, takes it beside the raft thread, and says how much of the log
//! it makes superfluous.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shoal_core::store::Store;

use super::storage::Mark;
use super::{RaftError, snapshot};

/// Bytes of applied entries that are reason enough for a snapshot, however few they are.
const MAX_BYTES: usize = 64 << 20;
/// After a snapshot that could not be written.
const RETRY: Duration = Duration::from_secs(30);

pub(super) struct Compactor {
    dir: PathBuf,
    every: u64,
    newest: u64,
    /// Applied since the newest snapshot was begun.
    bytes: usize,
    job: Option<Job>,
    not_before: Option<Instant>,
}

struct Job {
    index: u64,
    thread: JoinHandle<Result<Option<Mark>, RaftError>>,
}

impl Compactor {
    /// `newest` is the index of the newest snapshot that there is, 0 for none.
    pub(super) fn new(dir: PathBuf, every: u64, newest: u64) -> Self {
        Self { dir, every, newest, bytes: 0, job: None, not_before: None }
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Begins a snapshot when one is due. A clone of the store stays as it is, so that raft goes
    /// on while it is written; a failure leaves the log longer, and is tried again later.
    pub(super) fn begin_if_due(&mut self, applied: Mark, store: &Store, now: Instant) {
        let new = applied.index.saturating_sub(self.newest);
        let due = new >= self.every || (self.bytes >= MAX_BYTES && new > 0);
        if !due || self.job.is_some() || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        let (dir, store) = (self.dir.clone(), store.clone());
        let write = move || snapshot::write(&dir, applied, &store);
        match std::thread::Builder::new().name("raft-snapshot".to_owned()).spawn(write) {
            Ok(thread) => {
                self.job = Some(Job { index: applied.index, thread });
                self.bytes = 0;
            }
            Err(error) => self.failed(&RaftError::Thread(error), now),
        }
    }

    /// The end of the log that a snapshot finished since the last call allows to drop.
    pub(super) fn finished(&mut self, now: Instant) -> Option<Mark> {
        self.job.take_if(|job| job.thread.is_finished()).and_then(|job| self.join(job, now))
    }

    /// Waits for the snapshot that is being written: nobody writes to the folder afterwards.
    pub(super) fn wait(&mut self) {
        if let Some(job) = self.job.take() {
            self.join(job, Instant::now());
        }
    }

    fn join(&mut self, job: Job, now: Instant) -> Option<Mark> {
        let died = |_| Err(RaftError::Thread(std::io::Error::other("the snapshot's thread died")));
        match job.thread.join().unwrap_or_else(died) {
            Ok(superfluous) => {
                self.newest = job.index;
                tracing::debug!(raft.index = job.index, "snapshot");
                superfluous
            }
            Err(error) => {
                self.failed(&error, now);
                None
            }
        }
    }

    fn failed(&mut self, error: &RaftError, now: Instant) {
        tracing::warn!(%error, "no snapshot; the raft log grows until one succeeds");
        self.not_before = Some(now + RETRY);
    }
}
