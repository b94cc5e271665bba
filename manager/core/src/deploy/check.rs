//! What a spec must keep to, whoever sends it. `ctl` finds most of it with line and column
//! before it asks; other clients find it here.

mod placement;
mod update;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use std::time::SystemTime;

use shoal_proto::v1::{
    GenericReservation, PayloadKind, PortSpec, PublishMode, ServiceSpec, StackSpec, service_mode,
};

use super::DeployError;
use crate::allocator::same_port;
use crate::store::Service;

/// Replicas of one service at the most: the size of the default networks' address range times
/// what an operator may mean, and a bound against a slip of the finger.
const MAX_REPLICAS: u64 = 100_000;

/// A rule that a spec breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {rule}")]
pub struct SpecError {
    /// What it is about: `service NAME`.
    pub object: String,
    /// The field and the rule, in words.
    pub rule: String,
}

pub(super) fn broken(object: &str, rule: impl Into<String>) -> SpecError {
    SpecError { object: object.to_owned(), rule: rule.into() }
}

/// A name of a stack, service, network, secret or config: as Docker's.
pub(crate) fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=128).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inner)
}

pub(super) fn stack(spec: &StackSpec, now: SystemTime) -> Result<(), SpecError> {
    let object = format!("stack {:?}", spec.name);
    if !is_name(&spec.name) {
        return Err(broken(&object, NAME_RULE));
    }
    if spec.services.is_empty() {
        return Err(broken(&object, "it has no services"));
    }
    let keys: BTreeSet<&str> = spec.networks.iter().map(|network| network.key.as_str()).collect();
    for network in &spec.networks {
        let spec = network.spec.clone().unwrap_or_default();
        let object = format!("network {:?}", spec.name);
        if !is_name(&spec.name) {
            return Err(broken(&object, NAME_RULE));
        }
        let subnet = spec.subnet.parse::<IpNet>();
        if !spec.subnet.is_empty()
            && !matches!(subnet, Ok(IpNet::V4(subnet)) if subnet.prefix_len() <= 30)
        {
            let rule = format!("subnet {:?} is not an IPv4 range of /30 or wider", spec.subnet);
            return Err(broken(&object, rule));
        }
    }
    let mut names = BTreeSet::new();
    for declared in &spec.services {
        let spec_of_service = declared.spec.clone().unwrap_or_default();
        service(&spec_of_service, now)?;
        let service = spec_of_service;
        payload_keys(spec, &service)?;
        let object = format!("service {}", service.name);
        let attached = service.task.iter().flat_map(|task| &task.networks);
        for attachment in attached {
            if !keys.contains(attachment.network_id.as_str()) {
                let rule = format!("network {:?} is not declared", attachment.network_id);
                return Err(broken(&object, rule));
            }
        }
        if !names.insert(service.name.clone()) {
            return Err(broken(&object, "it is there twice"));
        }
    }
    ports_of_services(spec)
}

/// What a service uses of secrets and configs is declared.
fn payload_keys(stack: &StackSpec, service: &ServiceSpec) -> Result<(), SpecError> {
    let container = service.task.as_ref().and_then(|task| task.container.as_ref());
    for used in container.into_iter().flat_map(|container| &container.payloads) {
        let is_declared = stack.payloads.iter().any(|declared| {
            let kind = declared.spec.as_ref().map(|spec| spec.kind);
            declared.key == used.payload_id && kind == Some(used.kind)
        });
        if !is_declared {
            let rule = format!("{} {:?} is not declared", used.kind(), used.payload_id);
            return Err(broken(&format!("service {}", service.name), rule));
        }
    }
    Ok(())
}

/// No port is published by two services of the stack.
fn ports_of_services(spec: &StackSpec) -> Result<(), SpecError> {
    let mut published: Vec<(&str, &PortSpec)> = Vec::new();
    for service in spec.services.iter().filter_map(|declared| declared.spec.as_ref()) {
        for port in service.ports.iter().filter(|port| port.published_port != 0) {
            let other = published
                .iter()
                .find(|(owner, other)| *owner != service.name && same_port(other, port));
            if let Some((owner, _)) = other {
                let (number, protocol) = (port.published_port, port.protocol());
                let rule = format!(
                    "port {number}/{protocol} is published by service {owner} of this stack too"
                );
                return Err(broken(&format!("service {}", service.name), rule));
            }
            published.push((&service.name, port));
        }
    }
    Ok(())
}

const NAME_RULE: &str =
    "a name has up to 128 letters, digits, '_', '.' and '-', a letter or digit first";

pub(super) fn service(spec: &ServiceSpec, now: SystemTime) -> Result<(), SpecError> {
    let object = format!("service {:?}", spec.name);
    if !is_name(&spec.name) {
        return Err(broken(&object, NAME_RULE));
    }
    let task = spec.task.clone().unwrap_or_default();
    let image = task.container.as_ref().map_or("", |container| &container.image);
    if image.is_empty() {
        return Err(broken(&object, "it names no image"));
    }
    match spec.mode.as_ref().and_then(|mode| mode.mode.as_ref()) {
        Some(service_mode::Mode::Replicated(mode)) => replicas(&spec.name, mode.replicas)?,
        Some(service_mode::Mode::ReplicatedJob(mode)) => {
            replicas(&spec.name, mode.total_completions)?;
        }
        _ => {}
    }
    placement::check(&object, spec, &task)?;
    update::check(&object, spec, &task, now)?;
    payloads(&object, spec)?;
    generic_reservations(&object, &task.generic_reservations)?;
    ports(&object, &spec.ports)
}

fn generic_reservations(
    object: &str,
    reservations: &[GenericReservation],
) -> Result<(), SpecError> {
    let mut kinds = BTreeSet::new();
    for GenericReservation { kind, count } in reservations {
        if kind.is_empty() {
            return Err(broken(object, "a reservation of a generic resource has no kind"));
        }
        if *count == 0 {
            let rule = format!("0 of generic resource {kind} is no reservation; want 1 or more");
            return Err(broken(object, rule));
        }
        if !kinds.insert(kind) {
            return Err(broken(object, format!("generic resource {kind} is reserved twice")));
        }
    }
    Ok(())
}

pub(super) fn replicas(service: &str, replicas: u64) -> Result<(), SpecError> {
    if replicas <= MAX_REPLICAS {
        return Ok(());
    }
    let rule = format!("{replicas} replicas are more than the {MAX_REPLICAS} a service can have");
    Err(broken(&format!("service {service}"), rule))
}

fn ports(object: &str, ports: &[PortSpec]) -> Result<(), SpecError> {
    let mut seen = BTreeSet::new();
    for port in ports {
        if !(1..=65535).contains(&port.target_port) || port.published_port > 65535 {
            let rule = format!(
                "port {}:{} is not between 1 and 65535",
                port.published_port, port.target_port
            );
            return Err(broken(object, rule));
        }
        let (from, to) = (port.published_from, port.published_to);
        if (from, to) != (0, 0) && !(1..=65535).contains(&from) || to < from || to > 65535 {
            return Err(broken(object, format!("{from}-{to} is no range of ports")));
        }
        if port.mode() == PublishMode::Host && port.published_port == 0 {
            let rule = format!(
                "port {} is published in host mode and needs a number of its own on the node",
                port.target_port
            );
            return Err(broken(object, rule));
        }
        let host_ip = match port.host_ip.as_str() {
            "" => None,
            text => match text.parse::<IpAddr>() {
                Ok(ip) => (ip != IpAddr::from([0, 0, 0, 0])).then_some(ip),
                Err(_) => {
                    let rule = format!("{text:?} is no address to publish a port on");
                    return Err(broken(object, rule));
                }
            },
        };
        let key = (port.published_port, port.protocol, host_ip);
        if port.published_port != 0 && !seen.insert(key) {
            let rule =
                format!("port {}/{} is published twice", port.published_port, port.protocol());
            return Err(broken(object, rule));
        }
    }
    Ok(())
}

/// No two are given at the same path or in the same variable.
fn payloads(object: &str, spec: &ServiceSpec) -> Result<(), SpecError> {
    let mut seen = BTreeSet::new();
    let container = spec.task.as_ref().and_then(|task| task.container.as_ref());
    for used in container.into_iter().flat_map(|container| &container.payloads) {
        let (kind, name) = (used.kind(), &used.name);
        if kind == PayloadKind::Secret && !used.env.is_empty() {
            let rule = format!(
                "secret {name} can't be given in the variable {}: variables are seen by too many; \
                 only configs can",
                used.env
            );
            return Err(broken(object, rule));
        }
        if used.mode > 0o7777 {
            let rule = format!("{kind} {name}: mode {:o} is not one of a file", used.mode);
            return Err(broken(object, rule));
        }
        let place = match used.env.as_str() {
            "" if used.target.is_empty() => format!("{kind} {name}"),
            "" => used.target.clone(),
            variable => format!("variable {variable}"),
        };
        if !seen.insert(place.clone()) {
            return Err(broken(
                object,
                format!("{place} is given twice, the second is {kind} {name}"),
            ));
        }
    }
    Ok(())
}

/// What a service is for good.
pub(super) fn unchangeable(service: &Service, spec: &ServiceSpec) -> Result<(), DeployError> {
    let fixed = |what| DeployError::Fixed { service: service.spec.name.clone(), what };
    if spec.name != service.spec.name {
        return Err(fixed("its name"));
    }
    let kind = |spec: &ServiceSpec| {
        spec.mode.as_ref().and_then(|mode| mode.mode.as_ref()).map(std::mem::discriminant)
    };
    match kind(spec) == kind(&service.spec) {
        true => Ok(()),
        false => Err(fixed("its mode")),
    }
}
