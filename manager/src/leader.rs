//! Runs the control loops while this manager leads: wiring only, the decisions are in
//! `shoal_core::control`.

use std::time::{Duration, SystemTime};

use shoal_core::context::Context;
use shoal_core::control::Control;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::raft::{Commit, Leadership, ProposeError, Raft};
use crate::random;

/// After a change that the disk did not take.
const RETRY: Duration = Duration::from_secs(1);

/// Never ends while raft runs: leads each time that this manager is elected.
pub(crate) async fn run(raft: Raft) {
    while raft.leadership_until(|now| matches!(now, Leadership::Leader { .. })).await {
        tracing::info!(raft.term = raft.status().term, "leading");
        tokio::select! {
            () = lead(&raft) => {}
            _ = raft.leadership_until(|now| matches!(now, Leadership::Follower { .. })) => {}
        }
        tracing::info!("no longer leading");
    }
}

async fn lead(raft: &Raft) {
    let (store, mut commits) = raft.commits();
    let mut control = Control::new(&store);
    loop {
        let now = SystemTime::now();
        let mut random = random::bits;
        let mut context = Context { now, random: &mut random };
        let pass = control.run(&raft.store(), &mut context);
        let mut wake_at = pass.wake_at;
        if !pass.changes.is_empty() {
            match raft.propose(pass.changes).await {
                Ok(_) => {}
                Err(ProposeError::Conflict(conflict)) => {
                    tracing::debug!(%conflict, "decided on an old state, again");
                    control.resync(&raft.store());
                    continue;
                }
                Err(
                    ProposeError::NotLeader { .. }
                    | ProposeError::LeaderChanged
                    | ProposeError::Stopped,
                ) => return,
                Err(
                    error @ (ProposeError::Storage(_)
                    | ProposeError::TooLarge { .. }
                    | ProposeError::Members(_)),
                ) => {
                    tracing::error!(%error, "the control loops can't commit");
                    control.resync(&raft.store());
                    wake_at = Some(now + RETRY);
                }
            }
        }
        let sleep = wake_at.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        let next = tokio::select! {
            commit = commits.recv() => Some(commit),
            () = tokio::time::sleep(sleep.unwrap_or(Duration::MAX)), if sleep.is_some() => None,
        };
        match next {
            None => {}
            Some(Ok(commit)) => take_in(&mut control, &commit),
            Some(Err(RecvError::Lagged(_))) => control.resync(&raft.store()),
            Some(Err(RecvError::Closed)) => return,
        }
        loop {
            match commits.try_recv() {
                Ok(commit) => take_in(&mut control, &commit),
                Err(TryRecvError::Lagged(_)) => control.resync(&raft.store()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return,
            }
        }
    }
}

fn take_in(control: &mut Control, commit: &Commit) {
    match commit.whole {
        true => control.resync(&commit.store),
        false => control.observe(&commit.store, &commit.events),
    }
}
