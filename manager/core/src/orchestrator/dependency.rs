//! `depends_on`: a service's tasks are prepared at once and started when the services they
//! depend on are far enough (compose specification, "depends_on"), on whatever node those run.

use std::sync::Arc;

use shoal_proto::v1::{Dependency, DependencyCondition, TaskState};

use crate::store::{Service, ServiceMode, Store, Task};

/// The first dependency that is not met, in words; none when the service may start.
pub(super) fn unmet(store: &Store, service: &Service) -> Option<String> {
    service.spec.depends_on.iter().find_map(|dependency| {
        let met = is_met(store, dependency);
        (!met).then(|| {
            let verb = match dependency.condition() {
                DependencyCondition::Started => "start",
                DependencyCondition::Healthy => "be healthy",
                DependencyCondition::Completed => "complete",
            };
            format!("waits for {} to {verb}", dependency.service)
        })
    })
}

fn is_met(store: &Store, dependency: &Dependency) -> bool {
    let Some(other) = store.service_by_name(&dependency.service) else {
        return !dependency.required;
    };
    if other.mode() == ServiceMode::Replicated(0) {
        return !dependency.required;
    }
    if other.is_job() && dependency.condition() == DependencyCondition::Completed {
        return super::job::has_succeeded(store, other);
    }
    let is_newest = |task: &&Arc<Task>| match other.is_job() {
        true => task.job_iteration == other.job.iteration,
        false => task.spec_version == other.spec_version,
    };
    store.service_tasks(other.id).filter(is_newest).any(|task| {
        match (dependency.condition(), task.state()) {
            (DependencyCondition::Completed, state) => state == TaskState::Complete,
            (_, TaskState::Running | TaskState::Complete) => true,
            (DependencyCondition::Started, state) => state == TaskState::Starting,
            (DependencyCondition::Healthy, _) => false,
        }
    })
}
