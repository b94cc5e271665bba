//! This node's seat among the managers: taken, given up and locked while the agent runs.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use shoal_manager::ca::{Credentials, NodeCertificate};
use shoal_manager::keys::{self, UnlockKey};
use shoal_manager::raft::{Begin, DataKey};
use shoal_manager::{ControlGate, Manager, ManagerConfig, NodeInfo};
use shoal_proto::NodeId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::membership::{ManagerPart, NodeFolder};
use crate::session::Managers;

/// Before a key that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What every manager of this node is started with.
pub(crate) struct Setup {
    pub(crate) data_dir: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) info: NodeInfo,
    /// Where others find this node.
    pub(crate) address: String,
    /// How long to wait for a leader before one is elected.
    pub(crate) election_timeout: Option<Duration>,
}

/// Who answers for the cluster on this node.
#[derive(Clone)]
pub(crate) enum Occupant {
    /// It is not known yet: the agent has just started.
    Nobody,
    /// A manager that needs the unlock key.
    Locked,
    /// Managers elsewhere.
    Worker,
    /// A manager here.
    Manager(Arc<Running>),
}

/// A manager with what is served of it.
pub(crate) struct Running {
    manager: Arc<Manager>,
    raft_id: NonZeroU64,
    key: DataKey,
    pub(crate) control: ControlGate,
    pub(crate) routes: Routes,
    upkeep: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Seat {
    setup: Arc<Setup>,
    managers: Managers,
    occupant: Arc<watch::Sender<Occupant>>,
}

impl Seat {
    pub(crate) fn new(setup: Setup, managers: Managers) -> Self {
        let occupant = Arc::new(watch::channel(Occupant::Nobody).0);
        Self { setup: Arc::new(setup), managers, occupant }
    }

    /// Who sits there, as soon as that is known.
    pub(crate) async fn occupant(&self) -> Occupant {
        let mut occupant = self.occupant.subscribe();
        let known = occupant.wait_for(|now| !matches!(now, Occupant::Nobody)).await;
        // The sender is this seat's own.
        known.map_or(Occupant::Worker, |known| known.clone())
    }

    pub(crate) fn lock(&self) {
        self.occupant.send_replace(Occupant::Locked);
    }

    /// The manager is about to start: who asks waits.
    pub(crate) fn unlock(&self) {
        self.occupant.send_replace(Occupant::Nobody);
    }

    pub(crate) fn leave_to_others(&self) {
        self.occupant.send_replace(Occupant::Worker);
    }

    /// The number of the manager here; none when there is none.
    pub(crate) fn raft_id(&self) -> Option<NonZeroU64> {
        self.running().map(|running| running.raft_id)
    }

    /// What the manager here encrypts with.
    pub(crate) fn data_key(&self) -> Option<DataKey> {
        self.running().map(|running| running.key.clone())
    }

    fn running(&self) -> Option<Arc<Running>> {
        match &*self.occupant.borrow() {
            Occupant::Manager(running) => Some(Arc::clone(running)),
            Occupant::Nobody | Occupant::Locked | Occupant::Worker => None,
        }
    }

    /// Returns when a manager here has stopped by itself.
    pub(crate) async fn fails(&self) {
        let mut occupant = self.occupant.subscribe();
        loop {
            let manager = match &*occupant.borrow_and_update() {
                Occupant::Manager(running) => Some(Arc::clone(&running.manager)),
                Occupant::Nobody | Occupant::Locked | Occupant::Worker => None,
            };
            let stopped = async {
                match &manager {
                    Some(manager) => manager.stopped().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopped => {
                    let still = self.running().map(|running| Arc::clone(&running.manager));
                    if still.zip(manager).is_some_and(|(now, then)| Arc::ptr_eq(&now, &then)) {
                        return;
                    }
                }
                // The sender is this seat's own.
                _ = occupant.changed() => {}
            }
        }
    }

    /// A certificate for this node of the manager here, whose own store has the root; none when
    /// there is none, or it does not know.
    pub(crate) fn issue(&self) -> Option<NodeCertificate> {
        self.running()?.manager.issue(self.setup.node)
    }

    /// Starts a manager that the cluster has just made of this node.
    pub(crate) async fn take(
        &self,
        folder: &NodeFolder,
        credentials: &Credentials,
        key: Option<DataKey>,
    ) -> anyhow::Result<()> {
        let key = match key {
            Some(key) => key,
            None => keys::load_or_create(folder.path(), None)?,
        };
        let part = ManagerPart {
            raft_id: folder.raft_id()?.context("the folder does not say which manager it is")?,
            key,
            unlock: None,
            begin: Begin::Join,
            founding: None,
        };
        self.start(folder, credentials, part).await
    }

    /// Starts a manager.
    pub(crate) async fn start(
        &self,
        folder: &NodeFolder,
        credentials: &Credentials,
        part: ManagerPart,
    ) -> anyhow::Result<()> {
        let alone = part.founding.as_ref().is_some_and(|founding| founding.alone);
        let manager = Manager::start(ManagerConfig {
            data_dir: self.setup.data_dir.clone(),
            node: self.setup.node,
            info: self.setup.info.clone(),
            address: self.setup.address.clone(),
            raft_id: part.raft_id,
            begin: part.begin,
            founding: part.founding,
            credentials: credentials.clone(),
            key: part.key.clone(),
            election_timeout: self.setup.election_timeout,
        })
        .await?;
        let manager = Arc::new(manager);
        let (key, unlock) = (part.key.clone(), part.unlock);
        let running = Running {
            raft_id: part.raft_id,
            key: part.key,
            control: manager.control_service(),
            routes: manager.node_routes(),
            upkeep: tokio::spawn(keep_up(folder.clone(), Arc::clone(&manager), key, unlock, alone)),
            manager,
        };
        self.occupant.send_replace(Occupant::Manager(Arc::new(running)));
        self.managers.set_own(true);
        Ok(())
    }

    /// Stops the manager here, if there is one; afterwards its folder is not in use.
    pub(crate) async fn leave(&self) {
        if let Some(running) = self.running() {
            self.managers.set_own(false);
            self.leave_to_others();
            running.manager.shutdown().await;
        }
    }
}

/// What a manager's files need while it runs: what the cluster was founded with goes when it is in
/// the store, and the data key is sealed as the cluster wants it.
async fn keep_up(
    folder: NodeFolder,
    manager: Arc<Manager>,
    key: DataKey,
    mut unlock: Option<UnlockKey>,
    alone: bool,
) {
    if !manager.is_founded().await {
        return;
    }
    folder.is_founded();
    if alone && let Err(error) = folder.note_alone() {
        tracing::warn!(error = format!("{error:#}"), "the next start would begin anew once more");
    }
    while manager.unlock_key_differs(unlock.as_ref()).await {
        let state = manager.store();
        let wanted = state.cluster().and_then(|cluster| UnlockKey::of(&cluster.state));
        match keys::store(folder.path(), &key, wanted.as_ref()) {
            Ok(()) => {
                tracing::info!(locked = wanted.is_some(), "the manager's key is kept anew");
                unlock = wanted;
            }
            Err(error) => {
                tracing::error!(%error, "the manager's key can't be kept as it should");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
