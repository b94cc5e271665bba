//! Services and stacks on their way out: tasks stop first, then what they used goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_proto::NetworkId;
use shoal_proto::v1::TaskState;

use super::stop;
use crate::context::Context;
use crate::store::{Attachment, Changes, Object, Service, Stack, Store};

/// Stops the service's tasks; deletes each that has ended, and the service after the last.
pub(super) fn reconcile_service(
    store: &Store,
    service: &Service,
    context: &Context<'_>,
    changes: &mut Changes,
) {
    let mut left = false;
    for task in store.service_tasks(service.id) {
        // A node that comes back is told what it has, and stops all else.
        if task.state().is_terminal() || store.is_lost(task) {
            changes.delete(&Object::Task(Arc::clone(task)));
        } else {
            left |= task.node.is_some();
            let reason = || "the service is removed".to_owned();
            stop(task, TaskState::Remove, reason, context, changes);
        }
    }
    if !left {
        changes.delete(&Object::from(service.clone()));
    }
}

/// Takes a stack apart that is to be removed: its services, then its networks, then itself.
/// A network is also removed when a deploy has dropped it and nothing uses it any more.
pub fn reconcile_stack(store: &Store, stack: &Stack, context: &Context<'_>, changes: &mut Changes) {
    let mut services = 0;
    for service in store.stack_services(stack.id) {
        services += 1;
        if stack.removing && !service.removing {
            changes.update(context, Service { removing: true, ..(**service).clone() });
        }
    }
    let mut gone = BTreeSet::new();
    let networks = store.networks().filter(|network| network.stack == Some(stack.id));
    for network in networks {
        let declared = !stack.removing
            && stack.spec.networks.iter().any(|declared| {
                !declared.external
                    && declared.spec.as_ref().is_some_and(|spec| spec.name == network.spec.name)
            });
        let id = network.id.to_string();
        let used = store.services().any(|service| {
            let mut attachments = service.spec.task.iter().flat_map(|task| &task.networks);
            attachments.any(|attachment| attachment.network_id == id)
        }) || store.tasks().any(|task| {
            task.networks.iter().any(|held| held.network == network.id) && task.holds_resources()
        });
        if !declared && !used {
            gone.insert(network.id);
            changes.delete(&Object::Network(Arc::clone(network)));
        }
    }
    leave(store, &gone, context, changes);
    if stack.removing && services == 0 {
        for payload in store.payloads().filter(|payload| payload.stack == Some(stack.id)) {
            changes.delete(&Object::Payload(Arc::clone(payload)));
        }
        changes.delete(&Object::from(stack.clone()));
    }
}

/// Takes single containers off networks that go with their stack.
fn leave(store: &Store, gone: &BTreeSet<NetworkId>, context: &Context<'_>, changes: &mut Changes) {
    let is_gone = |held: &Attachment| gone.contains(&held.network);
    for container in store.containers().filter(|one| one.networks.iter().any(is_gone)) {
        let mut left = (**container).clone();
        left.networks.retain(|held| !is_gone(held));
        match left.networks.is_empty() {
            true => changes.delete(&Object::Container(Arc::clone(container))),
            false => changes.update(context, left),
        }
    }
}
