//! What the control API does to stacks and services: one atomic change each, checked first.

mod check;

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_proto::v1::{ServiceMode, ServiceSpec, StackSpec, service_mode};
use shoal_proto::{NetworkId, ServiceId, StackId};

pub use check::SpecError;

use crate::allocator::{self, PortClash};
use crate::context::Context;
use crate::store::{Changes, Meta, Network, Service, Stack, Store};

/// Why a stack or service can't be made so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeployError {
    /// The spec itself is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A port is another service's.
    #[error("service {service}: {clash}; publish another port or remove that service")]
    Port {
        /// The service that asks for it.
        service: String,
        /// Who has it.
        clash: PortClash,
    },
    /// A network that should be there already is not.
    #[error("network {name} is declared external and does not exist")]
    ExternalNetwork {
        /// Its full name.
        name: String,
    },
    /// The stack's last removal is not over.
    #[error("stack {name} is being removed; deploy it again when it is gone")]
    Removing {
        /// The stack.
        name: String,
    },
    /// A service or network of that name belongs to something else.
    #[error("the {kind} name {name} is taken by one that is not of stack {stack}")]
    Foreign {
        /// "service" or "network".
        kind: &'static str,
        /// The full name.
        name: String,
        /// The stack being deployed.
        stack: String,
    },
    /// Only replicated services have a number to change.
    #[error("service {service} is not replicated, it can't be scaled")]
    NotReplicated {
        /// The service.
        service: String,
    },
}

/// What a deploy did, by full names of services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deployed {
    /// The stack.
    pub stack: Option<StackId>,
    /// New services.
    pub created: Vec<String>,
    /// Services whose spec changed.
    pub updated: Vec<String>,
    /// Services that the spec no longer has.
    pub removed: Vec<String>,
}

/// States the changes that make the stack what the spec says.
///
/// # Errors
/// A spec that is wrong in itself, or that collides with what the cluster has.
pub fn deploy_stack(
    store: &Store,
    spec: StackSpec,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Result<Deployed, DeployError> {
    check::stack(&spec)?;
    let old = store.stack_by_name(&spec.name);
    if old.is_some_and(|old| old.removing) {
        return Err(DeployError::Removing { name: spec.name });
    }
    let stack = old.map_or_else(|| StackId::from_bits(context.bits()), |old| old.id);
    let mut pass = StackPass { store, spec: &spec, stack, context, changes };
    let networks = pass.networks()?;
    let mut deployed = pass.services(&networks)?;
    deployed.stack = Some(stack);
    match old {
        None => changes.create(
            context,
            Stack {
                id: stack,
                meta: Meta::default(),
                spec: Arc::new(spec),
                revision: 1,
                removing: false,
            },
        ),
        Some(old) => changes.update(
            context,
            Stack { spec: Arc::new(spec), revision: old.revision + 1, ..(**old).clone() },
        ),
    }
    Ok(deployed)
}

struct StackPass<'a, 'c, 'r> {
    store: &'a Store,
    spec: &'a StackSpec,
    stack: StackId,
    context: &'c mut Context<'r>,
    changes: &'c mut Changes,
}

impl StackPass<'_, '_, '_> {
    /// Makes the networks that are missing; returns the id for each key of the compose file.
    fn networks(&mut self) -> Result<BTreeMap<String, NetworkId>, DeployError> {
        let mut ids = BTreeMap::new();
        for declared in &self.spec.networks {
            let spec = declared.spec.clone().unwrap_or_default();
            let existing = self.store.network_by_name(&spec.name);
            let id = match existing {
                Some(network) if declared.external => network.id,
                None if declared.external => {
                    return Err(DeployError::ExternalNetwork { name: spec.name });
                }
                Some(network) if network.stack != Some(self.stack) => {
                    let stack = self.spec.name.clone();
                    return Err(DeployError::Foreign { kind: "network", name: spec.name, stack });
                }
                Some(network) => {
                    self.update_network(network, spec);
                    network.id
                }
                None => {
                    let id = NetworkId::from_bits(self.context.bits());
                    let network = Network {
                        id,
                        meta: Meta::default(),
                        spec: Arc::new(spec),
                        stack: Some(self.stack),
                        subnet: None,
                        gateway: None,
                    };
                    self.changes.create(self.context, network);
                    id
                }
            };
            ids.insert(declared.key.clone(), id);
        }
        Ok(ids)
    }

    /// The subnet of a network in use stays as it is: tasks hold addresses of it.
    fn update_network(&mut self, network: &Network, spec: shoal_proto::v1::NetworkSpec) {
        if *network.spec != spec {
            let network = Network { spec: Arc::new(spec), ..network.clone() };
            self.changes.update(self.context, network);
        }
    }

    fn services(
        &mut self,
        networks: &BTreeMap<String, NetworkId>,
    ) -> Result<Deployed, DeployError> {
        let mut deployed = Deployed::default();
        for declared in &self.spec.services {
            let spec = resolve(declared.spec.clone().unwrap_or_default(), networks);
            let name = spec.name.clone();
            if let Some(clash) = allocator::clash(self.store, &name, &spec.ports)
                && !self.is_own(&clash.owner)
            {
                return Err(DeployError::Port { service: name, clash });
            }
            match self.store.service_by_name(&name) {
                Some(old) if old.stack != Some(self.stack) => {
                    let stack = self.spec.name.clone();
                    return Err(DeployError::Foreign { kind: "service", name, stack });
                }
                Some(old) => {
                    if let Some(new) = updated(old, spec) {
                        deployed.updated.push(name);
                        self.changes.update(self.context, new);
                    }
                }
                None => {
                    deployed.created.push(name);
                    let service = Service {
                        id: ServiceId::from_bits(self.context.bits()),
                        meta: Meta::default(),
                        spec: Arc::new(spec),
                        stack: Some(self.stack),
                        short_name: declared.name.as_str().into(),
                        spec_version: 1,
                        vips: Vec::new(),
                        ports: Vec::new(),
                        removing: false,
                    };
                    self.changes.create(self.context, service);
                }
            }
        }
        for old in self.store.stack_services(self.stack) {
            let name = &old.spec.name;
            let kept = self
                .spec
                .services
                .iter()
                .any(|declared| declared.spec.as_ref().is_some_and(|spec| spec.name == *name));
            if !kept && !old.removing {
                deployed.removed.push(name.clone());
                let service = Service { removing: true, ..(**old).clone() };
                self.changes.update(self.context, service);
            }
        }
        Ok(deployed)
    }

    /// A service of this stack that the same deploy moves off the port or takes away.
    fn is_own(&self, owner: &str) -> bool {
        self.store.service_by_name(owner).is_some_and(|owner| owner.stack == Some(self.stack))
    }
}

/// Puts network ids where the compose file's keys stand.
fn resolve(mut spec: ServiceSpec, networks: &BTreeMap<String, NetworkId>) -> ServiceSpec {
    for attached in spec.task.iter_mut().flat_map(|task| &mut task.networks) {
        if let Some(id) = networks.get(&attached.network_id) {
            attached.network_id = id.to_string();
        }
    }
    spec
}

/// The service with its new spec; none when nothing changes. Tasks are replaced only for what
/// they are made of: not for a new number of replicas, a label or a published port.
fn updated(old: &Service, spec: ServiceSpec) -> Option<Service> {
    if *old.spec == spec && !old.removing {
        return None;
    }
    let new_tasks = u64::from(old.spec.task != spec.task);
    Some(Service {
        spec_version: old.spec_version + new_tasks,
        spec: Arc::new(spec),
        removing: false,
        ..old.clone()
    })
}

/// States the changes that take a stack away.
pub fn remove_stack(stack: &Stack, context: &Context<'_>, changes: &mut Changes) {
    if !stack.removing {
        changes.update(context, Stack { removing: true, ..stack.clone() });
    }
}

/// States the changes that give a service that many replicas.
///
/// # Errors
/// The service has no number of replicas, or the number is over what a service can have.
pub fn scale_service(
    service: &Service,
    replicas: u64,
    context: &Context<'_>,
    changes: &mut Changes,
) -> Result<(), DeployError> {
    check::replicas(&service.spec.name, replicas)?;
    let mut spec = (*service.spec).clone();
    let Some(ServiceMode { mode: Some(service_mode::Mode::Replicated(mode)) }) = &mut spec.mode
    else {
        return Err(DeployError::NotReplicated { service: spec.name });
    };
    mode.replicas = replicas;
    if *service.spec != spec {
        changes.update(context, Service { spec: Arc::new(spec), ..service.clone() });
    }
    Ok(())
}

/// States the changes that take a service away.
pub fn remove_service(service: &Service, context: &Context<'_>, changes: &mut Changes) {
    if !service.removing {
        changes.update(context, Service { removing: true, ..service.clone() });
    }
}

#[cfg(test)]
mod tests;
