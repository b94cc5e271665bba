//! Networks of no stack, and what is shown of all.

use shoal_core::lookup;
use shoal_core::network::{self, NetworkError};
use shoal_core::store::Store;
use shoal_proto::v1::{
    CreateNetworkRequest, CreateNetworkResponse, GetNetworkResponse, HeldAddress,
    RemoveNetworkRequest, RemoveNetworkResponse,
};
use tonic::Status;

use super::{Api, not_found};

pub(super) fn refused(error: NetworkError) -> Status {
    let message = error.to_string();
    match error {
        NetworkError::Name { .. } | NetworkError::Addresses { .. } => {
            Status::invalid_argument(message)
        }
        NetworkError::Taken { .. } => Status::already_exists(message),
        NetworkError::OfStack { .. } | NetworkError::InUse { .. } => {
            Status::failed_precondition(message)
        }
    }
}

pub(super) fn get(store: &Store, name: &str) -> Result<GetNetworkResponse, Status> {
    let network = lookup::network(store, name).map_err(not_found)?;
    let vips = store.services().flat_map(|service| {
        let own = service.vips.iter().filter(|vip| vip.network == network.id);
        own.map(|vip| (vip.address, format!("service {}", service.spec.name)))
    });
    let tasks = store.tasks().filter(|task| task.holds_resources()).flat_map(|task| {
        let own = task.networks.iter().filter(|held| held.network == network.id);
        own.map(|held| (held.address.addr(), format!("task {}.{}", task.service_name, task.slot)))
    });
    let containers = store.containers().flat_map(|container| {
        let own = container.networks.iter().filter(|held| held.network == network.id);
        own.map(|held| (held.address.addr(), network::holder_of(store, container)))
    });
    let mut held: Vec<_> = vips.chain(tasks).chain(containers).collect();
    held.sort();
    let held = held
        .into_iter()
        .map(|(address, holder)| HeldAddress { address: address.to_string(), holder });
    Ok(GetNetworkResponse { network: Some((&**network).into()), held: held.collect() })
}

impl Api {
    pub(super) async fn make_network(
        &self,
        request: CreateNetworkRequest,
    ) -> Result<CreateNetworkResponse, Status> {
        let spec =
            request.spec.ok_or_else(|| Status::invalid_argument("the request has no spec"))?;
        let (id, store) = self
            .change(|store, context, changes| {
                network::create(store, spec.clone(), context, changes).map_err(refused)
            })
            .await?;
        let network = store.network(id).map(|network| (&**network).into());
        Ok(CreateNetworkResponse { network })
    }

    pub(super) async fn take_network_away(
        &self,
        request: RemoveNetworkRequest,
    ) -> Result<RemoveNetworkResponse, Status> {
        let (name, _) = self
            .change(|store, _, changes| {
                let network = lookup::network(store, &request.network).map_err(not_found)?;
                network::remove(store, network, changes).map_err(refused)?;
                Ok(network.spec.name.clone())
            })
            .await?;
        Ok(RemoveNetworkResponse { name })
    }
}
