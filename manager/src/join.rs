//! Certificates for hosts that join and for nodes that renew theirs.

use std::time::SystemTime;

use shoal_core::node::{check_room, raft_id};
use shoal_core::settings::Settings;
use shoal_core::store::{Node, Store};
use shoal_proto::time::system_time;
use shoal_proto::v1::node_ca_client::NodeCaClient;
use shoal_proto::v1::node_ca_server;
use shoal_proto::v1::{
    ClusterState, GetRootRequest, GetRootResponse, IssueCertificateRequest,
    IssueCertificateResponse, NodeRole, NodeSpec,
};
use shoal_proto::{NodeId, PROTOCOL};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::ca::{CLOCK_SKEW, ClusterCa, JoinToken, is_same_secret};
use crate::change;
use crate::founding::{joined, secret};
use crate::peers::Peers;
use crate::raft::Raft;
use crate::read::{self, no_leader};

/// On a request that another manager has passed on.
const PASSED_ON: &str = "shoal-passed-on";

/// The service; clones share it.
#[derive(Clone)]
pub(crate) struct NodeCa {
    raft: Raft,
    peers: Peers,
}

impl NodeCa {
    pub(crate) fn new(raft: Raft, peers: Peers) -> Self {
        Self { raft, peers }
    }

    /// The token that hosts join with; a new one when it is to be rotated. The leader's to answer.
    pub(crate) async fn token(&self, role: NodeRole, rotate: bool) -> Result<JoinToken, Status> {
        let store = read::barrier(&self.raft).await?;
        let decided = change::commit(&self.raft, store, |store, context, changes| {
            let mut cluster = (**store.cluster().ok_or_else(not_founded)?).clone();
            if rotate {
                *secret_of(&mut cluster.state, role) = secret(context.bits());
                changes.update(context, cluster.clone());
            }
            token(&cluster.state, role)
        });
        Ok(decided.await?.0)
    }

    /// A node of that name, known to the store from here on.
    async fn admit(&self, request: &IssueCertificateRequest) -> Result<(Node, Store), Status> {
        let IssueCertificateRequest { token, node_name: name, address, .. } = request;
        let token: JoinToken =
            token.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let role_in = |store: &Store| {
            let state = &store.cluster().ok_or_else(not_founded)?.state;
            role_of(state, &token).ok_or_else(|| {
                Status::permission_denied(
                    "the join token is not, or no longer, this cluster's; get the present one with \
                     \"ctl cluster join-token\" on a manager",
                )
            })
        };
        // Whoever has no token is to cause no work.
        role_in(&self.raft.store())?;
        let store = read::barrier(&self.raft).await?;
        change::commit(&self.raft, store, |store, context, changes| {
            let role = role_in(store)?;
            check_name(store, name)?;
            let id = NodeId::from_bits(context.bits());
            let mut spec = NodeSpec { name: name.clone(), ..NodeSpec::default() };
            spec.set_role(role);
            let number = match role {
                NodeRole::Worker => None,
                NodeRole::Manager => {
                    check_room(store)
                        .map_err(|error| Status::failed_precondition(error.to_string()))?;
                    Some(raft_id(context.bits()))
                }
            };
            let node = joined(id, spec, number, address);
            changes.create(context, node.clone());
            Ok(node)
        })
        .await
    }

    /// A host that joins changes the store, which only the leader can.
    async fn ask_leader(
        &self,
        request: IssueCertificateRequest,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let address = self.peers.leader_address().ok_or_else(|| no_leader(&self.raft))?;
        let channel = self.peers.kept(&address).await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(request);
        request.metadata_mut().insert(PASSED_ON, MetadataValue::from_static("1"));
        let answer = NodeCaClient::new(channel).issue_certificate(request).await;
        answer.inspect_err(|_| self.peers.forget(&address))
    }
}

fn token(state: &ClusterState, role: NodeRole) -> Result<JoinToken, Status> {
    let ca = ClusterCa::of(state).map_err(|error| Status::internal(error.to_string()))?;
    let secret = match role {
        NodeRole::Worker => &state.worker_secret,
        NodeRole::Manager => &state.manager_secret,
    };
    JoinToken::new(ca.root_pem(), secret).map_err(|error| Status::internal(error.to_string()))
}

fn secret_of(state: &mut ClusterState, role: NodeRole) -> &mut String {
    match role {
        NodeRole::Worker => &mut state.worker_secret,
        NodeRole::Manager => &mut state.manager_secret,
    }
}

/// As what a host with that token joins; none when the token is not the cluster's.
fn role_of(state: &ClusterState, token: &JoinToken) -> Option<NodeRole> {
    let is = |secret: &str| !secret.is_empty() && is_same_secret(secret, token.secret());
    match (is(&state.worker_secret), is(&state.manager_secret)) {
        (true, _) => Some(NodeRole::Worker),
        (_, true) => Some(NodeRole::Manager),
        _ => None,
    }
}

fn not_founded() -> Status {
    Status::unavailable("the cluster is being set up; try again")
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

/// Agents and managers of other versions can work together as long as they speak the same protocol.
pub(crate) fn check_protocol(theirs: u32) -> Result<(), Status> {
    if theirs == PROTOCOL {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "this agent speaks version {theirs} of the protocol between nodes, the manager {PROTOCOL}; \
         install the same version of Shoal on both"
    )))
}

#[tonic::async_trait]
impl node_ca_server::NodeCa for NodeCa {
    async fn get_root(
        &self,
        _request: Request<GetRootRequest>,
    ) -> Result<Response<GetRootResponse>, Status> {
        let store = self.raft.store();
        let cluster = store.cluster().ok_or_else(not_founded)?;
        let ca = ClusterCa::of(&cluster.state);
        let ca = ca.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(GetRootResponse { root_pem: ca.root_pem().to_owned() }))
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        // Whoever shows no token is a node that renews.
        let renews = request.get_ref().token.is_empty();
        let caller = renews.then(|| self.peers.identify(&request)).transpose()?;
        let passed_on = request.metadata().contains_key(PASSED_ON);
        let request = request.into_inner();
        check_protocol(request.protocol)?;
        check_clock(&request)?;
        let (node, store) = match caller {
            Some(caller) => {
                let store = read::barrier(&self.raft).await?;
                let node = store.node(caller.node).ok_or_else(|| removed(caller.node))?;
                ((**node).clone(), store)
            }
            None if self.raft.is_leader() => self.admit(&request).await?,
            // Two managers that take each other for the leader must not go on asking.
            None if passed_on => return Err(no_leader(&self.raft)),
            None => return self.ask_leader(request).await,
        };
        let state = &store.cluster().ok_or_else(not_founded)?.state;
        let ca = ClusterCa::of(state).map_err(|error| Status::internal(error.to_string()))?;
        let validity = Settings::of(&store).certificate_validity;
        let certificate = ca
            .sign(&request.csr_pem, node.id, node.present_role(), validity, SystemTime::now())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        tracing::info!(node.id = %node.id, "certificate issued");
        Ok(Response::new(IssueCertificateResponse {
            certificate_pem: certificate,
            root_pem: ca.roots_pem().to_owned(),
            node_id: node.id.to_string(),
            cluster_id: ca.cluster().to_owned(),
            raft_id: node.raft_id.map_or(0, |id| id.get()),
        }))
    }
}

/// What a node is told that the cluster does not have any more.
pub(crate) fn removed(node: NodeId) -> Status {
    let mut status = Status::permission_denied(format!(
        "node {node} was taken out of the cluster; to join again, start the agent with an empty \
         --data-dir, --join and --token"
    ));
    status.metadata_mut().insert("shoal-removed", MetadataValue::from_static("1"));
    status
}
