//! What a spec must keep to, whoever sends it. `ctl` finds most of it with line and column
//! before it asks; other clients find it here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use shoal_proto::v1::{GenericReservation, PortSpec, ServiceSpec, StackSpec, service_mode};

use crate::allocator::same_port;
use crate::scheduler::Constraint;

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

fn broken(object: &str, rule: impl Into<String>) -> SpecError {
    SpecError { object: object.to_owned(), rule: rule.into() }
}

/// A name of a stack, service or network: as Docker's.
fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=128).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inner)
}

pub(super) fn stack(spec: &StackSpec) -> Result<(), SpecError> {
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
        let service = declared.spec.clone().unwrap_or_default();
        check_service(&service)?;
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

fn check_service(spec: &ServiceSpec) -> Result<(), SpecError> {
    let object = format!("service {:?}", spec.name);
    if !is_name(&spec.name) {
        return Err(broken(&object, NAME_RULE));
    }
    let task = spec.task.clone().unwrap_or_default();
    let image = task.container.as_ref().map_or("", |container| &container.image);
    if image.is_empty() {
        return Err(broken(&object, "it names no image"));
    }
    if let Some(service_mode::Mode::Replicated(mode)) =
        spec.mode.as_ref().and_then(|mode| mode.mode.as_ref())
    {
        replicas(&spec.name, mode.replicas)?;
    }
    for constraint in task.placement.iter().flat_map(|placement| &placement.constraints) {
        constraint.parse::<Constraint>().map_err(|error| broken(&object, error.to_string()))?;
    }
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
