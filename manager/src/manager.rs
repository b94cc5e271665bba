//! A manager: raft, and what runs over it.

use std::path::PathBuf;
use std::sync::Arc;

use shoal_proto::NodeId;
use shoal_proto::v1::control_server::ControlServer;
use shoal_proto::v1::dispatcher_server::DispatcherServer;
use shoal_proto::v1::node_ca_server::NodeCaServer;
use tokio::task::JoinHandle;

use crate::api::{Api, NodeInfo};
use crate::ca::ClusterCa;
use crate::dispatcher::Dispatcher;
use crate::join::NodeCa;
use crate::logs::LogBroker;
use crate::raft::{self, Leadership, Raft, RaftConfig, RaftError};
use crate::{leader, raft::ProposeError};

/// What a manager is started with.
pub struct ManagerConfig {
    /// Its folder.
    pub data_dir: PathBuf,
    /// The cluster's id.
    pub cluster: String,
    /// The node it runs on.
    pub node: NodeId,
    /// What that node tells people of itself.
    pub info: NodeInfo,
    /// The cluster's root.
    pub ca: ClusterCa,
}

/// Why a manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Its log.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// It stopped while it started.
    #[error(transparent)]
    Stopped(#[from] ProposeError),
}

/// A running manager. Dropping it stops its loops; [`Self::shutdown`] also stops raft cleanly.
pub struct Manager {
    raft: Raft,
    api: Api,
    dispatcher: Dispatcher,
    node_ca: NodeCa,
    leader: JoinHandle<()>,
}

impl Manager {
    /// Starts raft on the folder and waits until there is a leader to work with.
    ///
    /// # Errors
    /// See [`ManagerError`].
    pub async fn start(config: ManagerConfig) -> Result<Self, ManagerError> {
        let raft = raft::start(
            RaftConfig::new(config.data_dir.join("raft")),
            // A group of one has nobody to write to.
            Box::new(drop),
        )
        .await?;
        if !raft.leadership_until(|now| matches!(now, Leadership::Leader { .. })).await {
            return Err(ProposeError::Stopped.into());
        }
        let broker = Arc::new(LogBroker::default());
        let dispatcher = Dispatcher::new(raft.clone(), Arc::clone(&broker), config.node);
        let node_ca = NodeCa::new(raft.clone(), Arc::new(config.ca));
        let join = node_ca.clone();
        let api = Api::new(raft.clone(), broker, config.cluster, config.node, config.info, join);
        let leader = tokio::spawn(leader::run(raft.clone()));
        Ok(Self { raft, api, dispatcher, node_ca, leader })
    }

    /// The API of the cluster, to be served to people.
    #[must_use]
    pub fn control_service(&self) -> ControlServer<Api> {
        ControlServer::new(self.api.clone())
    }

    /// The agents' service, to be served to nodes that have shown a certificate.
    #[must_use]
    pub fn dispatcher_service(&self) -> DispatcherServer<Dispatcher> {
        DispatcherServer::new(self.dispatcher.clone())
    }

    /// The service that makes hosts nodes, to be served to whoever asks.
    #[must_use]
    pub fn node_ca_service(&self) -> NodeCaServer<NodeCa> {
        NodeCaServer::new(self.node_ca.clone())
    }

    /// Stops.
    pub async fn shutdown(&self) {
        self.leader.abort();
        self.raft.shutdown().await;
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.leader.abort();
    }
}
