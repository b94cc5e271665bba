//! Runs the control loops while this manager leads: wiring only, the decisions are in
//! `shoal_core::control`.

use std::time::{Duration, Instant, SystemTime};

use shoal_core::context::Context;
use shoal_core::control::Control;
use shoal_core::managers;
use shoal_core::store::Store;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;

use crate::dispatcher::Dispatcher;
use crate::founding::Founding;
use crate::raft::{Commit, ProposeError, Raft};
use crate::{membership, random, rotation};

/// After a change that the disk did not take.
const RETRY: Duration = Duration::from_secs(1);
/// What a manager that goes on alone gives the nodes more: they look for it where others were.
const FIRST_GRACE: Duration = Duration::from_secs(10);
/// Before a leader begins anew.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a leader that stops waits for another.
const HAND_OVER: Duration = Duration::from_secs(1);

/// Never ends while raft runs: leads each time that this manager is elected.
pub(crate) async fn run(
    raft: Raft,
    dispatcher: Dispatcher,
    mut founding: Option<(Founding, watch::Sender<bool>)>,
) {
    while raft.elected().await {
        tracing::info!(raft.term = raft.status().term, "leading");
        tokio::select! {
            () = lead(&raft, &dispatcher, &mut founding) => {}
            () = raft.deposed() => {
                tracing::info!("no longer leading");
                continue;
            }
        }
        // A part has ended because something was refused to a leader that still leads, or because it
        // leads no more and that is not shown yet.
        tokio::time::sleep(AGAIN).await;
    }
}

/// Everything that a leader does. A part that ends has found that this manager leads no more; the
/// others would find the same.
async fn lead(
    raft: &Raft,
    dispatcher: &Dispatcher,
    founding: &mut Option<(Founding, watch::Sender<bool>)>,
) {
    let mut longer = Duration::ZERO;
    if let Some((what, founded)) = founding {
        if what.alone {
            longer = FIRST_GRACE;
        }
        match what.carry_out(raft).await {
            Ok(()) => {
                founded.send_replace(true);
                *founding = None;
            }
            Err(error) => {
                tracing::error!(%error, "the cluster can't be founded yet");
                return tokio::time::sleep(RETRY).await;
            }
        }
    }
    tokio::select! {
        () = control(raft) => {}
        () = membership::run(raft) => {}
        () = rotation::run(raft) => {}
        () = dispatcher.watch_nodes(longer) => {}
    }
}

/// Lets another manager lead, if one can; returns when it does, or after a short while.
pub(crate) async fn hand_over(raft: &Raft) {
    if !raft.is_leader() {
        return;
    }
    let own = raft.status().id;
    let Ok(caught_up) = raft.caught_up().await else { return };
    let wanted = managers::wanted(&raft.store());
    let voters = raft.members().voters;
    let fit = |id: &&u64| **id != own && caught_up.contains(id) && wanted.contains(id);
    let Some(heir) = voters.iter().find(fit) else { return };
    raft.transfer_leadership(*heir);
    // Without it the others hold an election when this manager has gone.
    let _ = tokio::time::timeout(HAND_OVER, raft.deposed()).await;
}

async fn control(raft: &Raft) {
    let (mut store, mut commits) = raft.commits();
    let mut control = Control::new(&store);
    let origin = Instant::now();
    loop {
        let now = SystemTime::now();
        let mut random = random::bits;
        let mut context = Context { now, random: &mut random };
        let pass = control.run(&store, origin.elapsed(), &mut context);
        let mut wake_at = pass.wake_at;
        if !pass.changes.is_empty() {
            match raft.propose(pass.changes).await {
                Ok(_) => {}
                Err(ProposeError::Conflict(conflict)) => {
                    tracing::debug!(%conflict, "decided on an old state, again");
                    (store, commits) = raft.commits();
                    control.resync(&store);
                    continue;
                }
                Err(
                    ProposeError::NotLeader { .. }
                    | ProposeError::LeaderChanged
                    | ProposeError::Stopped,
                ) => return,
                Err(ProposeError::TooLarge { .. }) => {
                    control.decide_less();
                    control.resync(&store);
                    continue;
                }
                Err(error @ (ProposeError::Storage(_) | ProposeError::Members(_))) => {
                    tracing::error!(%error, "the control loops can't commit");
                    control.resync(&store);
                    wake_at = Some(now + RETRY);
                }
            }
        }
        let sleep = wake_at.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        let next = tokio::select! {
            commit = commits.recv() => Some(commit),
            () = tokio::time::sleep(sleep.unwrap_or(Duration::MAX)), if sleep.is_some() => None,
        };
        // The loops see no commit before they have been told of it.
        let mut next = match next {
            None => commits.try_recv(),
            Some(Ok(commit)) => Ok(commit),
            Some(Err(RecvError::Lagged(missed))) => Err(TryRecvError::Lagged(missed)),
            Some(Err(RecvError::Closed)) => Err(TryRecvError::Closed),
        };
        loop {
            match next {
                Ok(commit) => take_in(&mut control, &mut store, commit),
                Err(TryRecvError::Lagged(_)) => {
                    (store, commits) = raft.commits();
                    control.resync(&store);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return,
            }
            next = commits.try_recv();
        }
    }
}

fn take_in(control: &mut Control, store: &mut Store, commit: Commit) {
    // What was begun with may have it already.
    if commit.index <= store.version() && !commit.whole {
        return;
    }
    match commit.whole {
        true => control.resync(&commit.store),
        false => control.observe(&commit.store, &commit.events),
    }
    *store = commit.store;
}
