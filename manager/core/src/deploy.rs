//! What the control API does to stacks and services: one atomic change each, checked first.

mod check;

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_proto::v1::{
    NetworkAttachmentSpec, NetworkSpec, PayloadKind, ServiceMode, ServiceSpec, StackSpec,
    service_mode,
};
use shoal_proto::{NetworkId, PayloadId, ServiceId, StackId};

pub use check::SpecError;
pub(crate) use check::is_name;

use crate::allocator::{self, PortClash};
use crate::context::Context;
use crate::lookup::{self, LookupError};
use crate::network::{self, NetworkError};
use crate::payload::{self, PayloadError};
use crate::revision::{self, Back};
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
    /// A secret or config can't be as it is asked for.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A secret or config that should be there already is not.
    #[error(
        "{kind} {name} is declared external and does not exist; make it with \"ctl {kind} create {name} FILE\""
    )]
    ExternalPayload {
        /// Secret or config.
        kind: PayloadKind,
        /// Its full name.
        name: String,
    },
    /// A service of that name is there.
    #[error("the name {name} is taken by a service that exists")]
    Taken {
        /// The name.
        name: String,
    },
    /// A service is what it is.
    #[error("service {service}: {what} can't be changed; remove the service and make it anew")]
    Fixed {
        /// The service.
        service: String,
        /// "its name", "its mode".
        what: &'static str,
    },
    /// The service is on its way out.
    #[error("service {service} is being removed; make it again when it is gone")]
    ServiceRemoving {
        /// The service.
        service: String,
    },
    /// A network can't be as it is asked for.
    #[error(transparent)]
    Addresses(#[from] NetworkError),
    /// A network that is none.
    #[error(transparent)]
    Network(#[from] LookupError),
    /// Somebody else has changed the service.
    #[error(
        "service {service} was changed by somebody else since you have read it; look at it and try \
         again"
    )]
    Stale {
        /// The service.
        service: String,
    },
    /// A revision that is not kept.
    #[error("service {service} has no revision {revision}; there are {}", list(kept))]
    Revision {
        /// The service.
        service: String,
        /// As asked for.
        revision: u64,
        /// Those that are kept.
        kept: Vec<u64>,
    },
    /// There was never another.
    #[error("service {service} has no earlier revision to go back to")]
    OnlyRevision {
        /// The service.
        service: String,
    },
    /// Only replicated services have a number to change.
    #[error("service {service} is not replicated, it can't be scaled")]
    NotReplicated {
        /// The service.
        service: String,
    },
}

fn list(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
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
    check::stack(&spec, context.now)?;
    let old = store.stack_by_name(&spec.name);
    if old.is_some_and(|old| old.removing) {
        return Err(DeployError::Removing { name: spec.name });
    }
    let stack = old.map_or_else(|| StackId::from_bits(context.bits()), |old| old.id);
    let mut pass = StackPass { store, spec: &spec, stack, context, changes };
    let networks = pass.networks()?;
    let payloads = pass.payloads()?;
    let mut deployed = pass.services(&networks, &payloads)?;
    deployed.stack = Some(stack);
    let mut spec = spec;
    // They are objects of their own.
    spec.payloads.iter_mut().for_each(|declared| declared.data.clear());
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
                    network::check_addresses(self.store, &spec)?;
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

    /// Makes the versions of secrets and configs that are missing; returns the id for each key of the
    /// compose file.
    fn payloads(&mut self) -> Result<Payloads, DeployError> {
        let mut ids = BTreeMap::new();
        for declared in &self.spec.payloads {
            let spec = declared.spec.clone().unwrap_or_default();
            let (kind, name) = (spec.kind(), spec.name.clone());
            let newest = self.store.newest_payload(kind, &name);
            let id = match newest {
                Some(newest) if declared.external => newest.id,
                None if declared.external => {
                    return Err(DeployError::ExternalPayload { kind, name });
                }
                Some(newest) if newest.stack != Some(self.stack) => {
                    let (kind, stack) = (payload_word(kind), self.spec.name.clone());
                    return Err(DeployError::Foreign { kind, name, stack });
                }
                Some(newest) if *newest.data == *declared.data && *newest.spec == spec => newest.id,
                _ => {
                    payload::check(&spec, &declared.data)?;
                    let (data, stack) = (&declared.data, Some(self.stack));
                    payload::add_version(self.store, spec, data, stack, self.context, self.changes)
                }
            };
            ids.insert((kind, declared.key.clone()), (id, name));
        }
        Ok(ids)
    }

    fn services(
        &mut self,
        networks: &BTreeMap<String, NetworkId>,
        payloads: &Payloads,
    ) -> Result<Deployed, DeployError> {
        let mut deployed = Deployed::default();
        for declared in &self.spec.services {
            let mut spec = resolve(declared.spec.clone().unwrap_or_default(), networks);
            for used in payload::references_mut(&mut spec) {
                if let Some((id, name)) = payloads.get(&(used.kind(), used.payload_id.clone())) {
                    used.payload_id = id.to_string();
                    used.name.clone_from(name);
                }
            }
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
                    check::unchangeable(old, &spec)?;
                    let new = revision::with_spec(old, spec, "deployed", self.context);
                    if new != **old {
                        deployed.updated.push(name);
                        self.changes.update(self.context, new);
                    }
                }
                None => {
                    deployed.created.push(name);
                    let id = ServiceId::from_bits(self.context.bits());
                    let (stack, short_name) = (Some(self.stack), declared.name.as_str());
                    let service = revision::first(id, spec, stack, short_name, self.context);
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

/// Ids of secrets and configs, and their full names, by keys of the compose file.
type Payloads = BTreeMap<(PayloadKind, String), (PayloadId, String)>;

fn payload_word(kind: PayloadKind) -> &'static str {
    match kind {
        PayloadKind::Secret => "secret",
        PayloadKind::Config => "config",
    }
}

/// Puts ids where a spec that is of no stack has names.
fn resolve_names(
    store: &Store,
    spec: &mut ServiceSpec,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Result<(), DeployError> {
    let task = spec.task.get_or_insert_default();
    for attached in &mut task.networks {
        attached.network_id = lookup::network(store, &attached.network_id)?.id.to_string();
    }
    if task.networks.is_empty() {
        let network_id = default_network(store, context, changes).to_string();
        task.networks
            .push(NetworkAttachmentSpec { network_id, ..NetworkAttachmentSpec::default() });
    }
    Ok(payload::resolve(store, spec)?)
}

/// Where services are that name no network; made for the first.
const DEFAULT_NETWORK: &str = "cluster";

fn default_network(store: &Store, context: &mut Context<'_>, changes: &mut Changes) -> NetworkId {
    if let Some(network) = store.network_by_name(DEFAULT_NETWORK) {
        return network.id;
    }
    let id = NetworkId::from_bits(context.bits());
    let name = DEFAULT_NETWORK.to_owned();
    let spec = Arc::new(NetworkSpec { name, attachable: true, ..NetworkSpec::default() });
    let meta = Meta::default();
    changes.create(context, Network { id, meta, spec, stack: None, subnet: None, gateway: None });
    id
}

fn check_ports(store: &Store, spec: &ServiceSpec) -> Result<(), DeployError> {
    match allocator::clash(store, &spec.name, &spec.ports) {
        Some(clash) => Err(DeployError::Port { service: spec.name.clone(), clash }),
        None => Ok(()),
    }
}

/// States the change that makes a service of no stack.
///
/// # Errors
/// A spec that is wrong in itself, or that collides with what the cluster has.
pub fn create_service(
    store: &Store,
    mut spec: ServiceSpec,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Result<ServiceId, DeployError> {
    check::service(&spec, context.now)?;
    if store.service_by_name(&spec.name).is_some() {
        return Err(DeployError::Taken { name: spec.name });
    }
    resolve_names(store, &mut spec, context, changes)?;
    check_ports(store, &spec)?;
    let id = ServiceId::from_bits(context.bits());
    let name = spec.name.clone();
    changes.create(context, revision::first(id, spec, None, &name, context));
    Ok(id)
}

/// States the change that gives a service another spec. One that was paused goes on.
///
/// # Errors
/// A spec that is wrong in itself, or that collides with what the cluster has; `version` is not 0 and
/// not the service's.
pub fn update_service(
    store: &Store,
    service: &Service,
    version: u64,
    mut spec: ServiceSpec,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Result<(), DeployError> {
    let name = service.spec.name.clone();
    if service.removing {
        return Err(DeployError::ServiceRemoving { service: name });
    }
    if version != 0 && version != service.meta.version {
        return Err(DeployError::Stale { service: name });
    }
    check::service(&spec, context.now)?;
    check::unchangeable(service, &spec)?;
    resolve_names(store, &mut spec, context, changes)?;
    check_ports(store, &spec)?;
    let mut new = revision::with_spec(service, spec, "updated", context);
    if new.spec_version == service.spec_version {
        new = revision::resumed(&new, context);
    }
    if new != *service {
        changes.update(context, new);
    }
    Ok(())
}

/// States the change that makes a service what it was at a revision; 0: at the one before. Returns
/// which one, and the secrets and configs of which only newer versions are left.
///
/// # Errors
/// There is no such revision.
pub fn roll_back_service(
    store: &Store,
    service: &Service,
    number: u64,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Result<(u64, Vec<String>), DeployError> {
    let name = service.spec.name.clone();
    if service.removing {
        return Err(DeployError::ServiceRemoving { service: name });
    }
    let revision = match number {
        0 => revision::before(service).ok_or(DeployError::OnlyRevision { service: name })?,
        number => {
            let kept = || service.revisions.iter().map(|revision| revision.number).collect();
            let found = service.revisions.iter().find(|revision| revision.number == number);
            found.ok_or_else(|| DeployError::Revision {
                service: name,
                revision: number,
                kept: kept(),
            })?
        }
    };
    let Back { service: new, renewed } =
        revision::back_to(store, service, revision, "asked for", context);
    check_ports(store, &new.spec)?;
    let number = revision.number;
    if new != *service {
        changes.update(context, new);
    }
    Ok((number, renewed))
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
