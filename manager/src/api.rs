//! The control API: checks what it is asked, commits it as one change, and tells what there is.

mod cluster;
mod logs;
mod networks;
mod nodes;
mod payloads;
mod services;
mod view;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use shoal_core::context::Context;
use shoal_core::deploy::{self, DeployError};
use shoal_core::lookup::{self, LookupError};
use shoal_core::network;
use shoal_core::orchestrator::counts;
use shoal_core::store::{Changes, Store, Task};
use shoal_proto::NodeId;
use shoal_proto::v1::control_server::Control;
use shoal_proto::v1::{
    BackupPart, BackupRequest, CreateNetworkRequest, CreateNetworkResponse, CreatePayloadRequest,
    CreatePayloadResponse, CreateServiceRequest, CreateServiceResponse, DeployStackRequest,
    DeployStackResponse, GetClusterRequest, GetClusterResponse, GetInfoRequest, GetInfoResponse,
    GetJoinTokenRequest, GetJoinTokenResponse, GetNetworkRequest, GetNetworkResponse,
    GetNodeRequest, GetNodeResponse, GetPayloadRequest, GetPayloadResponse, GetServiceRequest,
    GetServiceResponse, GetUnlockKeyRequest, GetUnlockKeyResponse, ListNetworksRequest,
    ListNetworksResponse, ListNodesRequest, ListNodesResponse, ListPayloadsRequest,
    ListPayloadsResponse, ListServicesRequest, ListServicesResponse, ListStacksRequest,
    ListStacksResponse, ListTasksRequest, ListTasksResponse, LogEntry, LogsRequest,
    NodeDescription, NodeRole, PruneNetworksRequest, PruneNetworksResponse, RemoveNetworkRequest,
    RemoveNetworkResponse, RemoveNodeRequest, RemoveNodeResponse, RemovePayloadRequest,
    RemovePayloadResponse, RemoveServiceRequest, RemoveServiceResponse, RemoveStackRequest,
    RemoveStackResponse, RollbackServiceRequest, RollbackServiceResponse, RotateCaRequest,
    RotateCaResponse, ScaleServiceRequest, ScaleServiceResponse, TaskState, UpdateClusterRequest,
    UpdateClusterResponse, UpdateNodeRequest, UpdateNodeResponse, UpdatePayloadRequest,
    UpdatePayloadResponse, UpdateServiceRequest, UpdateServiceResponse, WatchEvent, WatchRequest,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::change;
use crate::join::NodeCa;
use crate::logs::LogBroker;
use crate::raft::Raft;
use crate::read;

/// A request's metadata may say how fresh an answer has to be.
const READ: &str = "shoal-read";
/// As old as what this manager knows, even when it is cut off from the others.
const STALE: &str = "stale";

/// What the node that answers tells of itself.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// The agent's version.
    pub version: String,
    /// The node's name.
    pub name: String,
    /// Its host.
    pub description: NodeDescription,
    /// Its data folder.
    pub data_dir: String,
    /// Where it listens for other nodes.
    pub listen_address: String,
    /// Where other nodes find it.
    pub advertise_address: String,
    /// "v2", "v1" or "hybrid".
    pub cgroups: String,
    /// The firewall's driver.
    pub firewall: String,
}

/// The service; clones share it.
#[derive(Clone)]
pub(crate) struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    raft: Raft,
    broker: Arc<LogBroker>,
    node: NodeId,
    info: NodeInfo,
    join: NodeCa,
}

impl Api {
    pub(crate) fn new(
        raft: Raft,
        broker: Arc<LogBroker>,
        node: NodeId,
        info: NodeInfo,
        join: NodeCa,
    ) -> Self {
        Self { shared: Arc::new(Shared { raft, broker, node, info, join }) }
    }

    /// The state with everything committed before the request.
    async fn store(&self) -> Result<Store, Status> {
        read::barrier(&self.shared.raft).await
    }

    /// The same, or what is known here when the request says that this will do.
    async fn store_for<T>(&self, request: &Request<T>) -> Result<Store, Status> {
        match request.metadata().get(READ) {
            None => self.store().await,
            Some(value) if value == STALE => Ok(self.shared.raft.store()),
            Some(value) => Err(Status::invalid_argument(format!(
                "{READ} is {value:?}; it can be {STALE:?}, or left out"
            ))),
        }
    }

    /// Commits what `decide` makes of the newest state; again when someone was faster.
    async fn change<T>(
        &self,
        decide: impl Fn(&Store, &mut Context<'_>, &mut Changes) -> Result<T, Status>,
    ) -> Result<(T, Store), Status> {
        change::commit(&self.shared.raft, self.store().await?, decide).await
    }
}

fn not_found(error: LookupError) -> Status {
    match error {
        LookupError::Missing { .. } => Status::not_found(error.to_string()),
        LookupError::Ambiguous { .. } => Status::invalid_argument(error.to_string()),
    }
}

fn not_deployed(error: DeployError) -> Status {
    let message = error.to_string();
    match error {
        DeployError::Spec(_)
        | DeployError::NotReplicated { .. }
        | DeployError::Fixed { .. }
        | DeployError::OnlyRevision { .. } => Status::invalid_argument(message),
        DeployError::Port { .. } | DeployError::Foreign { .. } | DeployError::Taken { .. } => {
            Status::already_exists(message)
        }
        DeployError::ExternalNetwork { .. }
        | DeployError::ExternalPayload { .. }
        | DeployError::Revision { .. } => Status::not_found(message),
        DeployError::Removing { .. } | DeployError::ServiceRemoving { .. } => {
            Status::failed_precondition(message)
        }
        DeployError::Stale { .. } => Status::aborted(message),
        DeployError::Network(error) => not_found(error),
        DeployError::Addresses(error) => networks::refused(error),
        DeployError::Payload(error) => payloads::refused(error),
    }
}

#[tonic::async_trait]
impl Control for Api {
    async fn get_info(
        &self,
        request: Request<GetInfoRequest>,
    ) -> Result<Response<GetInfoResponse>, Status> {
        let store = self.store_for(&request).await?;
        let Shared { info, raft, .. } = &*self.shared;
        let managers = store.nodes().filter(|node| node.spec.role() == NodeRole::Manager);
        let running = store.tasks().filter(|task| task.state() == TaskState::Running);
        Ok(Response::new(GetInfoResponse {
            cluster_id: store.cluster().map(|one| one.state.id.clone()).unwrap_or_default(),
            version: info.version.clone(),
            node_id: self.shared.node.to_string(),
            node_name: info.name.clone(),
            leader_id: nodes::leader(&store, raft).map(|id| id.to_string()).unwrap_or_default(),
            raft_index: raft.status().applied,
            nodes: store.nodes().count() as u64,
            managers: managers.count() as u64,
            stacks: store.stacks().count() as u64,
            services: store.services().count() as u64,
            tasks_running: running.count() as u64,
            description: Some(info.description.clone()),
            data_dir: info.data_dir.clone(),
            listen_address: info.listen_address.clone(),
            advertise_address: info.advertise_address.clone(),
            cgroups: info.cgroups.clone(),
            firewall: info.firewall.clone(),
        }))
    }

    async fn list_nodes(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let store = self.store_for(&request).await?;
        let nodes = store.nodes().map(|node| nodes::shown(&store, &self.shared.raft, node));
        Ok(Response::new(ListNodesResponse { nodes: nodes.collect() }))
    }

    async fn get_node(
        &self,
        request: Request<GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        let store = self.store_for(&request).await?;
        let node = lookup::node(&store, &request.into_inner().node).map_err(not_found)?;
        Ok(Response::new(GetNodeResponse {
            node: Some(nodes::shown(&store, &self.shared.raft, node)),
        }))
    }

    async fn update_node(
        &self,
        request: Request<UpdateNodeRequest>,
    ) -> Result<Response<UpdateNodeResponse>, Status> {
        self.change_node(request.into_inner()).await
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        self.take_node_out(request.into_inner()).await
    }

    async fn get_join_token(
        &self,
        request: Request<GetJoinTokenRequest>,
    ) -> Result<Response<GetJoinTokenResponse>, Status> {
        let request = request.into_inner();
        let token = self.shared.join.token(request.role(), request.rotate).await?;
        let mut addresses = nodes::manager_addresses(&self.shared.raft.store());
        if addresses.is_empty() {
            addresses.push(self.shared.info.advertise_address.clone());
        }
        Ok(Response::new(GetJoinTokenResponse { token: token.to_string(), addresses }))
    }

    async fn deploy_stack(
        &self,
        request: Request<DeployStackRequest>,
    ) -> Result<Response<DeployStackResponse>, Status> {
        let spec = request.into_inner().spec.unwrap_or_default();
        let name = spec.name.clone();
        let (deployed, store) = self
            .change(|store, context, changes| {
                deploy::deploy_stack(store, spec.clone(), context, changes).map_err(not_deployed)
            })
            .await?;
        let stack = lookup::stack(&store, &name).map_err(not_found)?;
        let services = store.stack_services(stack.id).map(|service| view::brief(service));
        Ok(Response::new(DeployStackResponse {
            stack: Some((&**stack).into()),
            services: services.collect(),
            created: deployed.created,
            updated: deployed.updated,
            removed: deployed.removed,
            warnings: Vec::new(),
        }))
    }

    async fn list_stacks(
        &self,
        request: Request<ListStacksRequest>,
    ) -> Result<Response<ListStacksResponse>, Status> {
        let store = self.store_for(&request).await?;
        let stacks = store.stacks().map(|stack| view::stack_summary(&store, stack)).collect();
        Ok(Response::new(ListStacksResponse { stacks }))
    }

    async fn remove_stack(
        &self,
        request: Request<RemoveStackRequest>,
    ) -> Result<Response<RemoveStackResponse>, Status> {
        let name = request.into_inner().stack;
        let (response, _) = self
            .change(|store, context, changes| {
                let stack = lookup::stack(store, &name).map_err(not_found)?;
                deploy::remove_stack(stack, context, changes);
                let services = store.stack_services(stack.id);
                let networks = store.networks().filter(|network| network.stack == Some(stack.id));
                let (secrets, configs) = payloads::of_stack(store, stack.id);
                Ok(RemoveStackResponse {
                    secrets,
                    configs,
                    services: services.map(|service| service.spec.name.clone()).collect(),
                    networks: networks.map(|network| network.spec.name.clone()).collect(),
                })
            })
            .await?;
        Ok(Response::new(response))
    }

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let store = self.store_for(&request).await?;
        let name = request.into_inner().stack;
        let stack = match name.as_str() {
            "" => None,
            name => Some(lookup::stack(&store, name).map_err(not_found)?.id),
        };
        let services = store.services().filter(|service| stack.is_none() || service.stack == stack);
        let mut services: Vec<_> =
            services.map(|service| view::service_summary(&store, service)).collect();
        services.sort_by_key(|summary| {
            summary.service.as_ref().and_then(|s| s.spec.as_ref()).map(|spec| spec.name.clone())
        });
        Ok(Response::new(ListServicesResponse { services }))
    }

    async fn get_service(
        &self,
        request: Request<GetServiceRequest>,
    ) -> Result<Response<GetServiceResponse>, Status> {
        let store = self.store_for(&request).await?;
        let service = lookup::service(&store, &request.into_inner().service).map_err(not_found)?;
        Ok(Response::new(GetServiceResponse {
            service: Some((&**service).into()),
            counts: Some(counts(&store, service)),
        }))
    }

    async fn create_service(
        &self,
        request: Request<CreateServiceRequest>,
    ) -> Result<Response<CreateServiceResponse>, Status> {
        self.make_service(request.into_inner()).await.map(Response::new)
    }

    async fn update_service(
        &self,
        request: Request<UpdateServiceRequest>,
    ) -> Result<Response<UpdateServiceResponse>, Status> {
        self.change_service(request.into_inner()).await.map(Response::new)
    }

    async fn rollback_service(
        &self,
        request: Request<RollbackServiceRequest>,
    ) -> Result<Response<RollbackServiceResponse>, Status> {
        self.take_service_back(request.into_inner()).await.map(Response::new)
    }

    async fn create_payload(
        &self,
        request: Request<CreatePayloadRequest>,
    ) -> Result<Response<CreatePayloadResponse>, Status> {
        self.make_payload(request.into_inner()).await.map(Response::new)
    }

    async fn update_payload(
        &self,
        request: Request<UpdatePayloadRequest>,
    ) -> Result<Response<UpdatePayloadResponse>, Status> {
        self.change_payload(request.into_inner()).await.map(Response::new)
    }

    async fn list_payloads(
        &self,
        request: Request<ListPayloadsRequest>,
    ) -> Result<Response<ListPayloadsResponse>, Status> {
        let store = self.store_for(&request).await?;
        let kind = request.into_inner().kind();
        Ok(Response::new(ListPayloadsResponse { payloads: payloads::list(&store, kind) }))
    }

    async fn get_payload(
        &self,
        request: Request<GetPayloadRequest>,
    ) -> Result<Response<GetPayloadResponse>, Status> {
        let store = self.store_for(&request).await?;
        payloads::get(&store, &request.into_inner()).map(Response::new)
    }

    async fn remove_payload(
        &self,
        request: Request<RemovePayloadRequest>,
    ) -> Result<Response<RemovePayloadResponse>, Status> {
        self.take_payload_away(request.into_inner()).await.map(Response::new)
    }

    async fn scale_service(
        &self,
        request: Request<ScaleServiceRequest>,
    ) -> Result<Response<ScaleServiceResponse>, Status> {
        let ScaleServiceRequest { service: name, replicas } = request.into_inner();
        let (id, store) = self
            .change(|store, context, changes| {
                let service = lookup::service(store, &name).map_err(not_found)?;
                deploy::scale_service(service, replicas, context, changes).map_err(not_deployed)?;
                Ok(service.id)
            })
            .await?;
        let service = store.service(id).map(|service| (&**service).into());
        Ok(Response::new(ScaleServiceResponse { service }))
    }

    async fn remove_service(
        &self,
        request: Request<RemoveServiceRequest>,
    ) -> Result<Response<RemoveServiceResponse>, Status> {
        let name = request.into_inner().service;
        let (id, _) = self
            .change(|store, context, changes| {
                let service = lookup::service(store, &name).map_err(not_found)?;
                deploy::remove_service(service, context, changes);
                Ok(service.id)
            })
            .await?;
        Ok(Response::new(RemoveServiceResponse { id: id.to_string() }))
    }

    async fn list_tasks(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let store = self.store_for(&request).await?;
        let request = request.into_inner();
        let filter = view::TaskFilter::parse(&store, &request).map_err(not_found)?;
        let mut tasks: Vec<&Task> =
            store.tasks().map(|task| &**task).filter(|task| filter.matches(&store, task)).collect();
        tasks.sort_by(|a, b| {
            let age = |task: &Task| (task.meta.created_at.seconds, task.meta.created_at.nanos);
            (&a.service_name, a.slot).cmp(&(&b.service_name, b.slot)).then(age(b).cmp(&age(a)))
        });
        let tasks = tasks.into_iter().map(Into::into).collect();
        Ok(Response::new(ListTasksResponse { tasks }))
    }

    async fn list_networks(
        &self,
        request: Request<ListNetworksRequest>,
    ) -> Result<Response<ListNetworksResponse>, Status> {
        let store = self.store_for(&request).await?;
        let networks = store.networks().map(|network| (&**network).into()).collect();
        Ok(Response::new(ListNetworksResponse { networks }))
    }

    async fn get_network(
        &self,
        request: Request<GetNetworkRequest>,
    ) -> Result<Response<GetNetworkResponse>, Status> {
        let store = self.store_for(&request).await?;
        networks::get(&store, &request.into_inner().network).map(Response::new)
    }

    async fn create_network(
        &self,
        request: Request<CreateNetworkRequest>,
    ) -> Result<Response<CreateNetworkResponse>, Status> {
        self.make_network(request.into_inner()).await.map(Response::new)
    }

    async fn remove_network(
        &self,
        request: Request<RemoveNetworkRequest>,
    ) -> Result<Response<RemoveNetworkResponse>, Status> {
        self.take_network_away(request.into_inner()).await.map(Response::new)
    }

    async fn prune_networks(
        &self,
        _request: Request<PruneNetworksRequest>,
    ) -> Result<Response<PruneNetworksResponse>, Status> {
        let pruned = self.change(|store, _, changes| Ok(network::prune(store, changes))).await;
        pruned.map(|(names, _)| Response::new(PruneNetworksResponse { names }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.store_for(&request).await?;
        let stream = watch::stream(self.shared.raft.clone(), request.into_inner());
        Ok(Response::new(stream.map_err(not_found)?))
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogEntry, Status>> + Send>>;

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let store = self.store().await?;
        let request = request.into_inner();
        let selection = logs::Selection::parse(&store, &request).map_err(not_found)?;
        let options = request.options.unwrap_or_default();
        let raft = self.shared.raft.clone();
        let broker = Arc::clone(&self.shared.broker);
        Ok(Response::new(logs::stream(raft, broker, selection, options)))
    }

    async fn get_cluster(
        &self,
        request: Request<GetClusterRequest>,
    ) -> Result<Response<GetClusterResponse>, Status> {
        let store = self.store_for(&request).await?;
        cluster::describe(&store).map(Response::new)
    }

    async fn update_cluster(
        &self,
        request: Request<UpdateClusterRequest>,
    ) -> Result<Response<UpdateClusterResponse>, Status> {
        self.change_settings(request.into_inner()).await.map(Response::new)
    }

    async fn get_unlock_key(
        &self,
        request: Request<GetUnlockKeyRequest>,
    ) -> Result<Response<GetUnlockKeyResponse>, Status> {
        self.unlock_key(request.into_inner().rotate).await.map(Response::new)
    }

    async fn rotate_ca(
        &self,
        request: Request<RotateCaRequest>,
    ) -> Result<Response<RotateCaResponse>, Status> {
        self.begin_rotation(request.into_inner()).await.map(Response::new)
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupPart, Status>> + Send>>;

    async fn backup(
        &self,
        _request: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let store = self.store().await?;
        Ok(Response::new(cluster::backup(&store)))
    }
}
