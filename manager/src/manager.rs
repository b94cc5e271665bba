//! A manager: raft, and what runs over it.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_core::settings::Settings;
use shoal_core::store::Store;
use shoal_proto::NodeId;
use shoal_proto::v1::control_server::ControlServer;
use shoal_proto::v1::dispatcher_server::DispatcherServer;
use shoal_proto::v1::node_ca_server::NodeCaServer;
use shoal_proto::v1::raft_server::RaftServer;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use crate::api::{Api, NodeInfo};
use crate::ca::{ClusterCa, Credentials, NodeCertificate};
use crate::dispatcher::Dispatcher;
use crate::founding::Founding;
use crate::gate::{ControlGate, MAX_REQUEST};
use crate::join::NodeCa;
use crate::keys::UnlockKey;
use crate::leader;
use crate::logs::LogBroker;
use crate::peers::Peers;
use crate::raft::{self, Begin, DataKey, Raft, RaftConfig, RaftError};
use crate::read::not_leader;
use crate::transport::{self, RaftService, Sender, manager_identity};

/// What a manager is started with.
pub struct ManagerConfig {
    /// Its folder.
    pub data_dir: PathBuf,
    /// The node it runs on.
    pub node: NodeId,
    /// What that node tells people of itself.
    pub info: NodeInfo,
    /// Where other managers find it.
    pub address: String,
    /// Its number in the raft group.
    pub raft_id: NonZeroU64,
    /// What its folder begins as.
    pub begin: Begin,
    /// What it writes before anything else when it leads.
    pub founding: Option<Founding>,
    /// What it shows to the others.
    pub credentials: Credentials,
    /// What its log is encrypted with.
    pub key: DataKey,
    /// How long it waits for a leader before one is elected; a second when nothing is said.
    pub election_timeout: Option<Duration>,
}

/// A running manager. Dropping it stops its loops; [`Self::shutdown`] also stops raft cleanly.
pub struct Manager {
    raft: Raft,
    api: Api,
    dispatcher: Dispatcher,
    node_ca: NodeCa,
    peers: Peers,
    /// What it was started to write first is written.
    founded: watch::Receiver<bool>,
    leader: JoinHandle<()>,
}

impl Manager {
    /// Starts raft on the folder. Somebody may lead or not: whoever asks waits.
    ///
    /// # Errors
    /// See [`RaftError`].
    pub async fn start(config: ManagerConfig) -> Result<Self, RaftError> {
        let peers = Peers::new(config.credentials);
        let raft_id = config.raft_id.get();
        let sender = Sender { raft_id, address: config.address };
        let mut raft_config = RaftConfig {
            raft_id,
            begin: config.begin,
            ..RaftConfig::new(config.data_dir.join("raft"), config.key)
        };
        if let (Some(timeout), Ok(ticks)) =
            (config.election_timeout, u32::try_from(raft_config.election_ticks))
        {
            raft_config.tick = timeout / ticks;
        }
        let raft = raft::start(raft_config, transport::outbox(sender, peers.clone())).await?;
        peers.set_raft(raft.clone());
        let broker = Arc::new(LogBroker::default());
        let dispatcher = Dispatcher::new(raft.clone(), peers.clone(), Arc::clone(&broker));
        let node_ca = NodeCa::new(raft.clone(), peers.clone());
        let api = Api::new(raft.clone(), broker, config.node, config.info, node_ca.clone());
        let (sender, founded) = watch::channel(config.founding.is_none());
        let founding = config.founding.map(|founding| (founding, sender));
        let leader = tokio::spawn(leader::run(raft.clone(), dispatcher.clone(), founding));
        Ok(Self { raft, api, dispatcher, node_ca, peers, founded, leader })
    }

    /// The API of the cluster, to be served to people.
    #[must_use]
    pub fn control_service(&self) -> ControlGate {
        ControlGate::new(self.api(), self.raft.clone(), self.peers.clone())
    }

    fn api(&self) -> ControlServer<Api> {
        ControlServer::new(self.api.clone()).max_decoding_message_size(MAX_REQUEST)
    }

    /// What is served to nodes and to hosts that want to be nodes. Each service looks at the
    /// caller's certificate itself.
    #[must_use]
    pub fn node_routes(&self) -> Routes {
        let (raft, peers) = (self.raft.clone(), self.peers.clone());
        // Other managers pass people's requests on, to the leader alone, which knows all nodes.
        let control = InterceptedService::new(self.api(), move |request| {
            manager_identity(&raft, &peers, &request)?;
            match raft.is_leader() {
                true => Ok(request),
                false => Err(not_leader("this manager does not lead".to_owned())),
            }
        });
        let raft = RaftService::new(self.raft.clone(), self.peers.clone());
        Routes::new(DispatcherServer::new(self.dispatcher.clone()))
            .add_service(NodeCaServer::new(self.node_ca.clone()))
            .add_service(RaftServer::new(raft))
            .add_service(control)
    }

    /// The store as far as it is known here.
    #[must_use]
    pub fn store(&self) -> Store {
        self.raft.store()
    }

    /// Whether this manager leads, and the cluster is there.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.raft.is_leader() && self.raft.store().cluster().is_some()
    }

    /// Returns when what this manager was started to write first is committed, and the store has the
    /// cluster in it. False when raft has stopped before.
    pub async fn is_founded(&self) -> bool {
        let mut founded = self.founded.clone();
        founded.wait_for(|founded| *founded).await.is_ok()
            && self.raft.store_until(|store| store.cluster().is_some()).await
    }

    /// Returns when raft has stopped.
    pub async fn stopped(&self) {
        self.raft.leadership_until(|_| false).await;
    }

    /// A certificate for a manager's own node, from the root in its store: for one whose own has run
    /// out, so that no manager would talk to it.
    #[must_use]
    pub fn issue(&self, node: NodeId) -> Option<NodeCertificate> {
        let store = self.raft.store();
        let role = store.node(node)?.present_role();
        let ca = ClusterCa::of(&store.cluster()?.state).ok()?;
        let validity = Settings::of(&store).certificate_validity;
        ca.issue(node, role, validity, SystemTime::now()).ok()
    }

    /// Returns when the unlock key that the cluster wants is another than that; false when raft has
    /// stopped.
    pub async fn unlock_key_differs(&self, known: Option<&UnlockKey>) -> bool {
        self.raft
            .store_until(|store| {
                let cluster = store.cluster();
                cluster.is_some_and(|cluster| UnlockKey::of(&cluster.state).as_ref() != known)
            })
            .await
    }

    /// Stops. When it leads and others can, one of them does first, so that nobody has to wait for
    /// an election.
    pub async fn shutdown(&self) {
        leader::hand_over(&self.raft).await;
        self.leader.abort();
        self.raft.shutdown().await;
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.leader.abort();
    }
}
