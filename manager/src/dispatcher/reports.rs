//! Statuses from all sessions on their way into the store: what comes while one batch commits is
//! the next batch.

use std::time::Duration;

use shoal_core::store::Change;
use tokio::sync::mpsc;

use crate::raft::{ProposeError, Raft};

/// Reports in one entry of the log.
const MAX_BATCH: usize = 1000;
const RETRY: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct Reports {
    queue: mpsc::Sender<Change>,
}

impl Reports {
    pub(super) fn start(raft: Raft) -> Self {
        let (queue, inbox) = mpsc::channel(MAX_BATCH);
        tokio::spawn(commit(raft, inbox));
        Self { queue }
    }

    /// Waits when too many are on their way already.
    pub(super) async fn add(&self, report: Change) {
        // The queue closes only with the manager.
        let _ = self.queue.send(report).await;
    }
}

async fn commit(raft: Raft, mut inbox: mpsc::Receiver<Change>) {
    let mut batch = Vec::new();
    while inbox.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let mut parts = vec![std::mem::take(&mut batch)];
        while let Some(mut part) = parts.pop() {
            match raft.propose(part.clone()).await {
                Ok(_) => {}
                Err(ProposeError::Storage(error)) => {
                    tracing::warn!(error, "statuses wait for the disk");
                    tokio::time::sleep(RETRY).await;
                    parts.push(part);
                }
                // A leadership that is being handed over may stay here.
                Err(ProposeError::NotLeader { .. }) if raft.is_leader() => {
                    tokio::time::sleep(RETRY).await;
                    parts.push(part);
                }
                Err(ProposeError::TooLarge { .. }) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(error @ ProposeError::TooLarge { .. }) => {
                    tracing::warn!(%error, "a status is not taken");
                }
                // Reports have no versions to conflict; agents tell a new leader everything again.
                Err(
                    ProposeError::Conflict(_)
                    | ProposeError::NotLeader { .. }
                    | ProposeError::LeaderChanged
                    | ProposeError::Members(_)
                    | ProposeError::Stopped,
                ) => {}
            }
        }
    }
}
