//! What operators do to the cluster as a whole: settings, keys, the root, backups.

use std::pin::Pin;
use std::time::SystemTime;

use shoal_core::settings::Settings;
use shoal_core::store::{Cluster, Store};
use shoal_proto::time::std_duration;
use shoal_proto::v1::{
    BackupPart, ClusterState, GetClusterResponse, GetUnlockKeyResponse, RootCa, RotateCaRequest,
    RotateCaResponse, UpdateClusterRequest, UpdateClusterResponse,
};
use tokio_stream::Stream;
use tonic::Status;

use super::Api;
use crate::backup;
use crate::ca::ClusterCa;
use crate::keys::UnlockKey;
use crate::rotation;

/// Bytes of a backup in one message.
const PART: usize = 1 << 20;

fn cluster(store: &Store) -> Result<&Cluster, Status> {
    let cluster = store.cluster().map(|cluster| &**cluster);
    cluster.ok_or_else(|| Status::unavailable("the cluster is being set up; try again"))
}

pub(super) fn describe(store: &Store) -> Result<GetClusterResponse, Status> {
    let Cluster { meta, state } = cluster(store)?;
    let cert = |root: &Option<RootCa>| root.clone().unwrap_or_default().cert_pem;
    Ok(GetClusterResponse {
        id: state.id.clone(),
        spec: Some(Settings::of(store).spec()),
        created_at: Some(meta.created_at),
        root_pem: cert(&state.root),
        next_root_pem: cert(&state.next_root),
        waiting_for: rotation::waiting_for(store),
    })
}

/// Everything, in the form that an agent restores from.
pub(super) fn backup(
    store: &Store,
) -> Pin<Box<dyn Stream<Item = Result<BackupPart, Status>> + Send>> {
    let bytes = backup::encode(store);
    Box::pin(async_stream::stream! {
        for part in bytes.chunks(PART) {
            yield Ok(BackupPart { data: part.to_vec() });
        }
    })
}

impl Api {
    /// Changes the cluster's own object.
    async fn change_cluster<T>(
        &self,
        decide: impl Fn(&Store, &mut ClusterState) -> Result<T, Status>,
    ) -> Result<(T, Store), Status> {
        self.change(|store, context, changes| {
            let old = cluster(store)?;
            let mut new = old.clone();
            let decided = decide(store, &mut new.state)?;
            if new != *old {
                changes.update(context, new);
            }
            Ok(decided)
        })
        .await
    }

    pub(super) async fn change_settings(
        &self,
        request: UpdateClusterRequest,
    ) -> Result<UpdateClusterResponse, Status> {
        let new_key = UnlockKey::generate();
        let (unlock_key, store) = self
            .change_cluster(|store, state| {
                let mut settings = Settings::of(store);
                let set = |to: &mut _, from: &Option<_>| {
                    if let Some(from) = from {
                        *to = std_duration(from);
                    }
                };
                set(&mut settings.node_down_after, &request.node_down_after);
                set(&mut settings.certificate_validity, &request.certificate_validity);
                set(&mut settings.fencing_lease, &request.fencing_lease);
                set(&mut settings.rebalance_interval, &request.rebalance_interval);
                settings.autolock = request.autolock.unwrap_or(settings.autolock);
                settings.rebalance = request.rebalance.unwrap_or(settings.rebalance);
                settings.check().map_err(|error| Status::invalid_argument(error.to_string()))?;
                state.spec = Some(settings.spec());
                match (settings.autolock, state.unlock_key.is_empty()) {
                    (true, true) => {
                        state.unlock_key = new_key.bytes().to_vec();
                        Ok(new_key.to_string())
                    }
                    (false, _) => {
                        state.unlock_key.clear();
                        Ok(String::new())
                    }
                    (true, false) => Ok(String::new()),
                }
            })
            .await?;
        Ok(UpdateClusterResponse { spec: Some(Settings::of(&store).spec()), unlock_key })
    }

    pub(super) async fn unlock_key(&self, rotate: bool) -> Result<GetUnlockKeyResponse, Status> {
        let new_key = UnlockKey::generate();
        let (key, _) = self
            .change_cluster(|_, state| {
                if rotate && !state.unlock_key.is_empty() {
                    state.unlock_key = new_key.bytes().to_vec();
                } else if rotate {
                    return Err(Status::failed_precondition(
                        "autolock is off; turn it on with \"ctl cluster update --autolock=true\"",
                    ));
                }
                Ok(UnlockKey::of(state).map(|key| key.to_string()).unwrap_or_default())
            })
            .await?;
        Ok(GetUnlockKeyResponse { key })
    }

    pub(super) async fn begin_rotation(
        &self,
        request: RotateCaRequest,
    ) -> Result<RotateCaResponse, Status> {
        let now = SystemTime::now();
        let invalid = |error: crate::ca::CaError| Status::invalid_argument(error.to_string());
        let given = RootCa { cert_pem: request.cert_pem, key_pem: request.key_pem };
        let given = match (given.cert_pem.is_empty(), given.key_pem.is_empty()) {
            (true, true) => None,
            (false, false) => {
                ClusterCa::check_root(&given, now).map_err(invalid)?;
                Some(given)
            }
            _ => {
                return Err(Status::invalid_argument(
                    "a root of your own needs its certificate and its key",
                ));
            }
        };
        let (root_pem, _) = self
            .change_cluster(|_, state| {
                if let Some(next) = &state.next_root {
                    return match &given {
                        Some(given) if given != next => Err(Status::failed_precondition(
                            "the root is being replaced already; wait until that is done: \
                             \"ctl cluster ca\" shows how far it is",
                        )),
                        _ => Ok(next.cert_pem.clone()),
                    };
                }
                let next = match &given {
                    Some(given) => given.clone(),
                    None => ClusterCa::make_root(&state.id, now)
                        .map_err(|error| Status::internal(error.to_string()))?,
                };
                let root_pem = next.cert_pem.clone();
                if state.root.as_ref() == Some(&next) {
                    return Err(Status::invalid_argument("that is the cluster's root already"));
                }
                state.next_root = Some(next);
                state.next_root_issues = false;
                Ok(root_pem)
            })
            .await?;
        Ok(RotateCaResponse { root_pem })
    }
}
