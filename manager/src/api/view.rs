//! What listings show of objects.

use shoal_core::lookup::{self, LookupError};
use shoal_core::orchestrator::counts;
use shoal_core::store::{Service, Stack, Store, Task};
use shoal_proto::v1::{ListTasksRequest, ServiceCounts, ServiceSummary, StackSummary};
use shoal_proto::{NodeId, ServiceId, StackId};

/// A service without its history, which most don't ask for.
pub(super) fn brief(service: &Service) -> shoal_proto::v1::Service {
    let without = Service { revisions: [].into(), ..service.clone() };
    (&without).into()
}

pub(super) fn service_summary(store: &Store, service: &Service) -> ServiceSummary {
    ServiceSummary { service: Some(brief(service)), counts: Some(counts(store, service)) }
}

pub(super) fn stack_summary(store: &Store, stack: &Stack) -> StackSummary {
    let mut tasks = ServiceCounts::default();
    let mut services = 0;
    for service in store.stack_services(stack.id) {
        let counts = counts(store, service);
        tasks.running += counts.running;
        tasks.desired += counts.desired;
        services += 1;
    }
    StackSummary { stack: Some(stack.into()), services, tasks: Some(tasks) }
}

/// Which tasks a listing is about.
pub(super) struct TaskFilter {
    stack: Option<StackId>,
    service: Option<ServiceId>,
    node: Option<NodeId>,
}

impl TaskFilter {
    pub(super) fn parse(store: &Store, request: &ListTasksRequest) -> Result<Self, LookupError> {
        let named = |name: &String| (!name.is_empty()).then(|| name.clone());
        let stack = named(&request.stack).map(|name| lookup::stack(store, &name).map(|s| s.id));
        let service =
            named(&request.service).map(|name| lookup::service(store, &name).map(|s| s.id));
        let node = named(&request.node).map(|name| lookup::node(store, &name).map(|n| n.id));
        Ok(Self {
            stack: stack.transpose()?,
            service: service.transpose()?,
            node: node.transpose()?,
        })
    }

    pub(super) fn matches(&self, store: &Store, task: &Task) -> bool {
        let stack = || store.service(task.service).and_then(|service| service.stack);
        self.service.is_none_or(|service| service == task.service)
            && self.node.is_none_or(|node| Some(node) == task.node)
            && (self.stack.is_none() || stack() == self.stack)
    }
}
