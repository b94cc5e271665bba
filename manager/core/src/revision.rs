//! A service's specs over time: what a new one means for its tasks, which are kept, and how an
//! earlier one is had again.
//!
//! The number of replicas is no part of a revision: going back does not undo a scaling.

use std::sync::Arc;

use shoal_proto::PayloadId;
use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{JobStatus, ServiceRevision, ServiceSpec, UpdateState, UpdateStatus};
use shoal_proto::{ServiceId, StackId};

use crate::context::Context;
use crate::store::{Meta, Service, Store};

/// Revisions kept of a service, the newest with them.
pub const KEPT: usize = 10;

/// A new service of that spec.
#[must_use]
pub fn first(
    id: ServiceId,
    spec: ServiceSpec,
    stack: Option<StackId>,
    short_name: &str,
    context: &Context<'_>,
) -> Service {
    let revision = ServiceRevision {
        number: 1,
        spec: Some(spec.clone()),
        created_at: Some(context.stamp()),
        spec_version: 1,
        origin: "created".to_owned(),
    };
    let is_scheduled = spec.schedule.is_some();
    let mut service = Service {
        id,
        meta: Meta::default(),
        spec: Arc::new(spec),
        stack,
        short_name: short_name.into(),
        spec_version: 1,
        vips: Vec::new(),
        ports: Vec::new(),
        removing: false,
        revisions: [revision].into(),
        last_spec_version: 1,
        update: UpdateStatus::default(),
        job: JobStatus::default(),
    };
    if service.is_job() && !is_scheduled {
        begin_run(&mut service, context);
    }
    service
}

/// A job runs anew.
pub fn begin_run(service: &mut Service, context: &Context<'_>) {
    service.job.iteration += 1;
    service.job.started_at = Some(context.stamp());
    service.job.ended_at = None;
    service.job.message.clear();
}

/// The service with another spec. Tasks are replaced only for what they are made of: not for a
/// label or a published port. A spec of tasks that there was before is known again, so that tasks
/// that are still of it stay.
#[must_use]
pub fn with_spec(old: &Service, spec: ServiceSpec, origin: &str, context: &Context<'_>) -> Service {
    let mut new = Service { removing: false, ..old.clone() };
    if but_for_replicas(&spec) == but_for_replicas(&old.spec) && !old.removing {
        new.spec = Arc::new(spec);
        return new;
    }
    let forced = |spec: &ServiceSpec| spec.task.as_ref().map_or(0, |task| task.force_update);
    let is_forced = forced(&spec) != forced(&old.spec);
    new.spec_version = version_of(old, &spec);
    new.last_spec_version = old.last_spec_version.max(new.spec_version);
    new.spec = Arc::new(spec);
    if new.spec_version != old.spec_version {
        if !new.is_job() {
            new.update = UpdateStatus {
                state: UpdateState::Updating.into(),
                started_at: Some(context.stamp()),
                ..UpdateStatus::default()
            };
        } else if new.spec.schedule.is_none() || is_forced {
            begin_run(&mut new, context);
        }
    }
    let number = old.revision().map_or(0, |revision| revision.number) + 1;
    let revision = ServiceRevision {
        number,
        spec: Some((*new.spec).clone()),
        created_at: Some(context.stamp()),
        spec_version: new.spec_version,
        origin: origin.to_owned(),
    };
    let kept = old.revisions.len().saturating_sub(KEPT - 1);
    new.revisions = old.revisions[kept..].iter().cloned().chain([revision]).collect();
    new
}

/// An update that was paused goes on.
#[must_use]
pub fn resumed(old: &Service, context: &Context<'_>) -> Service {
    let mut new = old.clone();
    let state = match old.update.state() {
        UpdateState::Paused => UpdateState::Updating,
        UpdateState::RollbackPaused => UpdateState::RollingBack,
        _ => return new,
    };
    new.update = UpdateStatus {
        state: state.into(),
        // What has failed so far does not count any more.
        started_at: Some(context.stamp()),
        ..UpdateStatus::default()
    };
    new
}

fn version_of(old: &Service, spec: &ServiceSpec) -> u64 {
    if spec.task == old.spec.task {
        return old.spec_version;
    }
    let same = |revision: &&ServiceRevision| {
        revision.spec.as_ref().is_some_and(|earlier| earlier.task == spec.task)
    };
    let known = old.revisions.iter().rfind(same);
    known.map_or(old.last_spec_version + 1, |revision| revision.spec_version)
}

fn but_for_replicas(spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    set_replicas(&mut spec, 0);
    spec
}

fn set_replicas(spec: &mut ServiceSpec, replicas: u64) {
    let mode = spec.mode.as_mut().and_then(|mode| mode.mode.as_mut());
    if let Some(Mode::Replicated(mode)) = mode {
        mode.replicas = replicas;
    }
}

/// A service that is what it was before.
#[derive(Debug)]
pub struct Back {
    /// The service, on its way back.
    pub service: Service,
    /// Secrets and configs whose versions of then are gone: the newest are taken.
    pub renewed: Vec<String>,
}

/// The revision before the newest.
#[must_use]
pub fn before(service: &Service) -> Option<&ServiceRevision> {
    service.revisions.iter().rev().nth(1)
}

/// The newest revision whose tasks are made of something else than those of now: changes of labels
/// and the like in the middle of an update are not what it goes back from.
#[must_use]
pub fn before_update(service: &Service) -> Option<&ServiceRevision> {
    service.revisions.iter().rev().find(|revision| revision.spec_version != service.spec_version)
}

/// Takes a service back to an earlier revision, with as many replicas as it has now. `reason` says
/// why when no operator asked for it.
#[must_use]
pub fn back_to(
    store: &Store,
    service: &Service,
    revision: &ServiceRevision,
    reason: &str,
    context: &Context<'_>,
) -> Back {
    let mut spec = revision.spec.clone().unwrap_or_default();
    if let crate::store::ServiceMode::Replicated(replicas) = service.mode() {
        set_replicas(&mut spec, replicas);
    }
    let renewed = renew(store, &mut spec);
    let origin = format!("rolled back to revision {}", revision.number);
    let mut new = with_spec(service, spec, &origin, context);
    let is_another = new.spec_version != service.spec_version;
    if is_another && new.update.state() == UpdateState::Updating {
        new.update.set_state(UpdateState::RollingBack);
        reason.clone_into(&mut new.update.message);
    }
    Back { service: new, renewed }
}

fn renew(store: &Store, spec: &mut ServiceSpec) -> Vec<String> {
    let mut renewed = Vec::new();
    let container = spec.task.as_mut().and_then(|task| task.container.as_mut());
    for used in container.into_iter().flat_map(|container| &mut container.payloads) {
        let id = used.payload_id.parse::<PayloadId>().ok();
        if id.is_some_and(|id| store.payload(id).is_some()) {
            continue;
        }
        if let Some(newest) = store.newest_payload(used.kind(), &used.name) {
            used.payload_id = newest.id.to_string();
            renewed.push(format!("{} {}", used.kind(), used.name));
        }
    }
    renewed
}
