//! Services of no stack, and what operators do to single services.

use shoal_core::{deploy, lookup};
use shoal_proto::ServiceId;
use shoal_proto::v1::{
    CreateServiceRequest, CreateServiceResponse, RollbackServiceRequest, RollbackServiceResponse,
    UpdateServiceRequest, UpdateServiceResponse,
};
use tonic::Status;

use super::{Api, not_deployed, not_found, view};

fn spec<T>(spec: Option<T>) -> Result<T, Status> {
    spec.ok_or_else(|| Status::invalid_argument("the request has no spec"))
}

impl Api {
    pub(super) async fn make_service(
        &self,
        request: CreateServiceRequest,
    ) -> Result<CreateServiceResponse, Status> {
        let spec = spec(request.spec)?;
        let (id, store): (ServiceId, _) = self
            .change(|store, context, changes| {
                deploy::create_service(store, spec.clone(), context, changes).map_err(not_deployed)
            })
            .await?;
        let service = store.service(id).map(|service| view::brief(service));
        Ok(CreateServiceResponse { service })
    }

    pub(super) async fn change_service(
        &self,
        request: UpdateServiceRequest,
    ) -> Result<UpdateServiceResponse, Status> {
        let UpdateServiceRequest { service: name, version, spec: wanted } = request;
        let wanted = spec(wanted)?;
        let (id, store) = self
            .change(|store, context, changes| {
                let service = lookup::service(store, &name).map_err(not_found)?;
                let spec = wanted.clone();
                deploy::update_service(store, service, version, spec, context, changes)
                    .map_err(not_deployed)?;
                Ok(service.id)
            })
            .await?;
        let service = store.service(id).map(|service| view::brief(service));
        Ok(UpdateServiceResponse { service })
    }

    pub(super) async fn take_service_back(
        &self,
        request: RollbackServiceRequest,
    ) -> Result<RollbackServiceResponse, Status> {
        let RollbackServiceRequest { service: name, revision } = request;
        let ((id, revision, renewed, unchanged), store) = self
            .change(|store, context, changes| {
                let service = lookup::service(store, &name).map_err(not_found)?;
                let (revision, renewed) =
                    deploy::roll_back_service(store, service, revision, context, changes)
                        .map_err(not_deployed)?;
                Ok((service.id, revision, renewed, changes.is_empty()))
            })
            .await?;
        let service = store.service(id).map(|service| view::brief(service));
        Ok(RollbackServiceResponse { service, revision, renewed, unchanged })
    }
}
