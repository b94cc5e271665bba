//! What the store finds objects by besides their ids. Derived from the objects alone.

use std::net::IpAddr;

use imbl::{OrdMap, OrdSet};
use shoal_proto::v1::TaskState;
use shoal_proto::{NetworkId, NodeId, PayloadId, ServiceId, StackId, TaskId};

use super::change::Conflict;
use super::object::{Key, Object, Payload};

#[derive(Debug, Clone, Default)]
pub(super) struct Indexes {
    pub(super) service_names: OrdMap<String, ServiceId>,
    pub(super) network_names: OrdMap<String, NetworkId>,
    pub(super) stack_names: OrdMap<String, StackId>,
    pub(super) tasks_by_service: OrdMap<ServiceId, OrdSet<TaskId>>,
    pub(super) tasks_by_node: OrdMap<NodeId, OrdSet<TaskId>>,
    pub(super) new_tasks: OrdSet<TaskId>,
    pub(super) pending_tasks: OrdSet<TaskId>,
    /// Versions by kind and name.
    pub(super) payload_names: OrdMap<(i32, String), OrdMap<u64, PayloadId>>,
    pub(super) addresses: OrdMap<(NetworkId, IpAddr), Key>,
}

impl Indexes {
    /// Whether the object may stand beside those that are there. Its own older version must have
    /// been removed before.
    pub(super) fn check(&self, object: &Object) -> Result<(), Conflict> {
        let taken = match object {
            Object::Service(new) => {
                self.service_names.get(&new.spec.name).map(|id| (&new.spec.name, Key::Service(*id)))
            }
            Object::Network(new) => {
                self.network_names.get(&new.spec.name).map(|id| (&new.spec.name, Key::Network(*id)))
            }
            Object::Stack(new) => {
                self.stack_names.get(&new.spec.name).map(|id| (&new.spec.name, Key::Stack(*id)))
            }
            Object::Payload(new) => {
                let versions = self.payload_names.get(&payload_name(new));
                let holder = versions.and_then(|versions| versions.get(&new.number));
                holder.map(|id| (&new.spec.name, Key::Payload(*id)))
            }
            Object::Node(_) | Object::Task(_) | Object::Cluster(_) | Object::Container(_) => None,
        };
        if let Some((name, holder)) = taken {
            return Err(Conflict::NameTaken { name: name.clone(), holder });
        }
        for (network, address) in addresses(object) {
            if let Some(holder) = self.addresses.get(&(network, address)) {
                return Err(Conflict::AddressTaken { address, network, holder: *holder });
            }
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, object: &Object) {
        for held in addresses(object) {
            self.addresses.insert(held, object.key());
        }
        match object {
            Object::Node(_) | Object::Cluster(_) | Object::Container(_) => {}
            Object::Service(new) => drop(self.service_names.insert(new.spec.name.clone(), new.id)),
            Object::Network(new) => drop(self.network_names.insert(new.spec.name.clone(), new.id)),
            Object::Stack(new) => drop(self.stack_names.insert(new.spec.name.clone(), new.id)),
            Object::Payload(new) => {
                let versions = self.payload_names.entry(payload_name(new)).or_default();
                versions.insert(new.number, new.id);
            }
            Object::Task(new) => {
                self.tasks_by_service.entry(new.service).or_default().insert(new.id);
                if let Some(node) = new.node {
                    self.tasks_by_node.entry(node).or_default().insert(new.id);
                }
                if new.is_live() && new.node.is_none() {
                    match new.state() {
                        TaskState::New => self.new_tasks.insert(new.id),
                        _ => self.pending_tasks.insert(new.id),
                    };
                }
            }
        }
    }

    pub(super) fn remove(&mut self, object: &Object) {
        for held in addresses(object) {
            self.addresses.remove(&held);
        }
        match object {
            Object::Node(_) | Object::Cluster(_) | Object::Container(_) => {}
            Object::Service(old) => drop(self.service_names.remove(&old.spec.name)),
            Object::Network(old) => drop(self.network_names.remove(&old.spec.name)),
            Object::Stack(old) => drop(self.stack_names.remove(&old.spec.name)),
            Object::Payload(old) => {
                let name = payload_name(old);
                if let Some(versions) = self.payload_names.get_mut(&name) {
                    versions.remove(&old.number);
                    if versions.is_empty() {
                        self.payload_names.remove(&name);
                    }
                }
            }
            Object::Task(old) => {
                remove_from(&mut self.tasks_by_service, old.service, old.id);
                if let Some(node) = old.node {
                    remove_from(&mut self.tasks_by_node, node, old.id);
                }
                self.new_tasks.remove(&old.id);
                self.pending_tasks.remove(&old.id);
            }
        }
    }
}

fn payload_name(payload: &Payload) -> (i32, String) {
    (payload.spec.kind, payload.spec.name.clone())
}

fn remove_from<K: Ord + Copy>(index: &mut OrdMap<K, OrdSet<TaskId>>, key: K, task: TaskId) {
    if let Some(ids) = index.get_mut(&key) {
        ids.remove(&task);
        if ids.is_empty() {
            index.remove(&key);
        }
    }
}

/// The addresses that nobody else may have while the object has them.
fn addresses(object: &Object) -> Vec<(NetworkId, IpAddr)> {
    match object {
        Object::Service(service) => {
            service.vips.iter().map(|vip| (vip.network, vip.address)).collect()
        }
        Object::Task(task) if task.holds_resources() => task
            .networks
            .iter()
            .map(|attachment| (attachment.network, attachment.address.addr()))
            .collect(),
        Object::Container(container) => {
            let held = container.networks.iter();
            held.map(|held| (held.network, held.address.addr())).collect()
        }
        Object::Network(network) => {
            network.gateway.into_iter().map(|gateway| (network.id, gateway)).collect()
        }
        Object::Task(_)
        | Object::Node(_)
        | Object::Stack(_)
        | Object::Cluster(_)
        | Object::Payload(_) => Vec::new(),
    }
}
