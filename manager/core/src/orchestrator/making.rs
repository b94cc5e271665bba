//! A task as it is at first.

use std::sync::Arc;

use shoal_proto::TaskId;
use shoal_proto::v1::{TaskSpec, TaskState, TaskStatus};

use crate::context::Context;
use crate::store::{Meta, Service, Slot, Task};

/// To run at once, as one of the service's newest spec.
pub(super) fn task(
    service: &Service,
    spec: &Arc<TaskSpec>,
    slot: Slot,
    context: &mut Context<'_>,
) -> Task {
    Task {
        id: TaskId::from_bits(context.bits()),
        meta: Meta::default(),
        service: service.id,
        service_name: service.spec.name.as_str().into(),
        slot,
        node: None,
        spec: Arc::clone(spec),
        spec_version: service.spec_version,
        desired: TaskState::Running,
        status: TaskStatus {
            state: TaskState::New.into(),
            since: Some(context.stamp()),
            message: "created".to_owned(),
            ..TaskStatus::default()
        },
        networks: Vec::new(),
        ports: Vec::new(),
        not_before: None,
        failures: 0,
        waiting_for: String::new(),
        generic_resources: Vec::new(),
        stop_reason: String::new(),
        only_node: None,
        job_iteration: service.job.iteration,
        moving: false,
    }
}
