//! Certificates for hosts that join and for nodes that renew theirs.

use std::sync::Arc;
use std::time::SystemTime;

use shoal_core::context::Context;
use shoal_core::store::{Changes, Cluster, Node, Store};
use shoal_proto::NodeId;
use shoal_proto::time::system_time;
use shoal_proto::v1::node_ca_server;
use shoal_proto::v1::{
    GetRootRequest, GetRootResponse, IssueCertificateRequest, IssueCertificateResponse, NodeRole,
    NodeSpec, NodeState, NodeStatus,
};
use tonic::{Request, Response, Status};

use crate::ca::{CLOCK_SKEW, ClusterCa, JoinToken, NODE_VALIDITY, is_same_secret, peer_identity};
use crate::raft::{ProposeError, Raft};
use crate::random;

/// The service; clones share it.
#[derive(Clone)]
pub struct NodeCa {
    raft: Raft,
    ca: Arc<ClusterCa>,
}

impl NodeCa {
    pub(crate) fn new(raft: Raft, ca: Arc<ClusterCa>) -> Self {
        Self { raft, ca }
    }

    /// The token that workers join with; a new one when there is none or it is to be rotated.
    pub(crate) async fn worker_token(&self, rotate: bool) -> Result<JoinToken, Status> {
        loop {
            let store = self.raft.read_barrier().await.map_err(unavailable)?;
            let old = store.cluster();
            if let Some(cluster) = old.filter(|_| !rotate) {
                return self.token(&cluster.worker_secret);
            }
            // The form of ids: letters and digits.
            let secret = NodeId::from_bits(random::bits()).to_string();
            let mut random = random::bits;
            let context = Context { now: SystemTime::now(), random: &mut random };
            let mut changes = Changes::default();
            match old {
                Some(old) => changes
                    .update(&context, Cluster { worker_secret: secret.clone(), ..(**old).clone() }),
                None => changes.create(
                    &context,
                    Cluster { meta: Default::default(), worker_secret: secret.clone() },
                ),
            }
            match self.raft.propose(changes.into_vec()).await {
                Ok(_) => return self.token(&secret),
                Err(ProposeError::Conflict(_)) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
    }

    fn token(&self, secret: &str) -> Result<JoinToken, Status> {
        JoinToken::new(self.ca.root_pem(), secret)
            .map_err(|error| Status::internal(error.to_string()))
    }

    /// A node of that name, known to the store from here on.
    async fn admit(&self, token: &str, name: &str) -> Result<NodeId, Status> {
        let token: JoinToken =
            token.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        loop {
            let store = self.raft.read_barrier().await.map_err(unavailable)?;
            let known = store.cluster().map(|cluster| cluster.worker_secret.clone());
            if !known.is_some_and(|secret| is_same_secret(&secret, token.secret())) {
                return Err(Status::permission_denied(
                    "the join token is not, or no longer, this cluster's; get the present one with \
                     \"ctl cluster join-token\" on a manager",
                ));
            }
            check_name(&store, name)?;
            let id = NodeId::from_bits(random::bits());
            let mut random = random::bits;
            let context = Context { now: SystemTime::now(), random: &mut random };
            let mut changes = Changes::default();
            changes.create(
                &context,
                Node {
                    id,
                    meta: Default::default(),
                    spec: NodeSpec { name: name.to_owned(), ..NodeSpec::default() },
                    description: Default::default(),
                    status: NodeStatus {
                        state: NodeState::Down.into(),
                        message: "it has joined and not been heard of since".to_owned(),
                        ..NodeStatus::default()
                    },
                },
            );
            match self.raft.propose(changes.into_vec()).await {
                Ok(_) => return Ok(id),
                Err(ProposeError::Conflict(_)) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
    }
}

fn check_name(store: &Store, name: &str) -> Result<(), Status> {
    if name.is_empty() || name.len() > 128 {
        return Err(Status::invalid_argument("a node's name has 1 to 128 bytes"));
    }
    match store.nodes().find(|node| node.spec.name == name) {
        Some(other) => Err(Status::already_exists(format!(
            "a node of the name {name:?} is in the cluster ({}); start the agent with another \
             --name, or take the old one out with \"ctl node rm {name}\"",
            other.status.state()
        ))),
        None => Ok(()),
    }
}

fn unavailable(error: ProposeError) -> Status {
    Status::unavailable(error.to_string())
}

/// A certificate is good from an hour ago on: a clock that is further off would not take it, or
/// take it for too long.
fn check_clock(request: &IssueCertificateRequest) -> Result<(), Status> {
    let Some(theirs) = request.now.as_ref().map(system_time) else { return Ok(()) };
    let ours = SystemTime::now();
    let off = ours.duration_since(theirs).or_else(|_| theirs.duration_since(ours));
    let off = off.unwrap_or_default();
    if off <= CLOCK_SKEW {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "the clocks of this host and the manager are {} s apart, more than the {} s that \
         certificates allow; set them right, for instance with NTP",
        off.as_secs(),
        CLOCK_SKEW.as_secs()
    )))
}

#[tonic::async_trait]
impl node_ca_server::NodeCa for NodeCa {
    async fn get_root(
        &self,
        _request: Request<GetRootRequest>,
    ) -> Result<Response<GetRootResponse>, Status> {
        Ok(Response::new(GetRootResponse { root_pem: self.ca.root_pem().to_owned() }))
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let peer = request.peer_certs().and_then(|certificates| certificates.first().cloned());
        let request = request.into_inner();
        check_clock(&request)?;
        let (node, role) = match (request.token.as_str(), peer) {
            ("", Some(own)) => {
                let identity = peer_identity(&own)
                    .map_err(|error| Status::unauthenticated(error.to_string()))?;
                let store = self.raft.read_barrier().await.map_err(unavailable)?;
                let node = store.node(identity.node).ok_or_else(|| removed(identity.node))?;
                (node.id, node.spec.role())
            }
            ("", None) => {
                return Err(Status::unauthenticated("a node that renews shows its certificate"));
            }
            (token, _) => (self.admit(token, &request.node_name).await?, NodeRole::Worker),
        };
        let certificate = self
            .ca
            .sign(&request.csr_pem, node, role, NODE_VALIDITY, SystemTime::now())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        tracing::info!(node.id = %node, "certificate issued");
        Ok(Response::new(IssueCertificateResponse {
            certificate_pem: certificate,
            root_pem: self.ca.root_pem().to_owned(),
            node_id: node.to_string(),
            cluster_id: self.ca.cluster().to_owned(),
        }))
    }
}

/// What a node is told that the cluster does not have any more.
pub(crate) fn removed(node: NodeId) -> Status {
    Status::permission_denied(format!(
        "node {node} was taken out of the cluster; to join again, start the agent with an empty \
         --data-dir, --join and --token"
    ))
}
