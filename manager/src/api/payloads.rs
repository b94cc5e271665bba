//! Secrets and configs. A secret's data are taken and never shown.

use std::collections::BTreeSet;

use shoal_core::payload::{self, PayloadError, PayloadUpdate};
use shoal_core::store::{Payload, Store};
use shoal_proto::StackId;
use shoal_proto::v1::{
    CreatePayloadRequest, CreatePayloadResponse, GetPayloadRequest, GetPayloadResponse,
    PayloadKind, PayloadSummary, RemovePayloadRequest, RemovePayloadResponse, UpdatePayloadRequest,
    UpdatePayloadResponse,
};
use tonic::Status;

use super::Api;

pub(super) fn refused(error: PayloadError) -> Status {
    let message = error.to_string();
    match error {
        PayloadError::Name { .. }
        | PayloadError::Empty { .. }
        | PayloadError::TooLarge { .. }
        | PayloadError::Label { .. } => Status::invalid_argument(message),
        PayloadError::Taken { .. } => Status::already_exists(message),
        PayloadError::Missing { .. } => Status::not_found(message),
        PayloadError::InUse { .. } => Status::failed_precondition(message),
    }
}

fn without_data(payload: &Payload) -> shoal_proto::v1::Payload {
    (&Payload { data: [].into(), ..payload.clone() }).into()
}

fn summary(store: &Store, newest: &Payload) -> PayloadSummary {
    let (kind, name) = (newest.kind(), &newest.spec.name);
    PayloadSummary {
        payload: Some(without_data(newest)),
        size: newest.data.len() as u64,
        services: payload::users(store, kind, name),
        versions: store.payload_versions(kind, name).count() as u64,
    }
}

fn names(store: &Store, kind: PayloadKind, stack: Option<StackId>) -> BTreeSet<&str> {
    let payloads = store.payloads().filter(|payload| payload.kind() == kind);
    let wanted = payloads.filter(|payload| stack.is_none() || payload.stack == stack);
    wanted.map(|payload| payload.spec.name.as_str()).collect()
}

pub(super) fn list(store: &Store, kind: PayloadKind) -> Vec<PayloadSummary> {
    let names = names(store, kind, None).into_iter();
    let newest = names.filter_map(|name| store.newest_payload(kind, name));
    newest.map(|newest| summary(store, newest)).collect()
}

pub(super) fn get(
    store: &Store,
    request: &GetPayloadRequest,
) -> Result<GetPayloadResponse, Status> {
    let newest = payload::find(store, request.kind(), &request.payload).map_err(refused)?;
    let shown = match newest.kind() {
        PayloadKind::Secret => without_data(newest),
        PayloadKind::Config => (&**newest).into(),
    };
    Ok(GetPayloadResponse { payload: Some(shown), summary: Some(summary(store, newest)) })
}

/// Names of a stack's secrets and configs.
pub(super) fn of_stack(store: &Store, stack: StackId) -> (Vec<String>, Vec<String>) {
    let of = |kind| names(store, kind, Some(stack)).into_iter().map(str::to_owned).collect();
    (of(PayloadKind::Secret), of(PayloadKind::Config))
}

impl Api {
    pub(super) async fn make_payload(
        &self,
        request: CreatePayloadRequest,
    ) -> Result<CreatePayloadResponse, Status> {
        let CreatePayloadRequest { spec, data } = request;
        let spec = spec.ok_or_else(|| Status::invalid_argument("the request has no spec"))?;
        let (id, store) = self
            .change(|store, context, changes| {
                payload::create(store, spec.clone(), &data, context, changes).map_err(refused)
            })
            .await?;
        let payload = store.payload(id).map(|payload| without_data(payload));
        Ok(CreatePayloadResponse { payload })
    }

    pub(super) async fn change_payload(
        &self,
        request: UpdatePayloadRequest,
    ) -> Result<UpdatePayloadResponse, Status> {
        let (kind, name) = (request.kind(), request.payload);
        let update = PayloadUpdate {
            data: request.data,
            add_labels: request.add_labels.into_iter().collect(),
            remove_labels: request.remove_labels,
        };
        let ((id, services), store) = self
            .change(|store, context, changes| {
                payload::update(store, kind, &name, &update, context, changes).map_err(refused)
            })
            .await?;
        let payload = store.payload(id).map(|payload| without_data(payload));
        Ok(UpdatePayloadResponse { payload, services })
    }

    pub(super) async fn take_payload_away(
        &self,
        request: RemovePayloadRequest,
    ) -> Result<RemovePayloadResponse, Status> {
        let (name, _) = self
            .change(|store, _, changes| {
                payload::remove(store, request.kind(), &request.payload, changes).map_err(refused)
            })
            .await?;
        Ok(RemovePayloadResponse { name })
    }
}
