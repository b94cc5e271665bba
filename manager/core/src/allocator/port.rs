//! Published ports: a port, protocol and host address belong to one service in the cluster.

use std::ops::RangeInclusive;

use shoal_proto::v1::{PortSpec, PublishMode};

use crate::store::{Service, Store};

/// Where ports come from that are published without a number.
const DYNAMIC: RangeInclusive<u32> = 30_000..=32_767;

/// A published port that another service has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("port {port}/{protocol} is already published by service {owner}")]
pub struct PortClash {
    /// The published port.
    pub port: u32,
    /// Its protocol.
    pub protocol: shoal_proto::v1::PortProtocol,
    /// The service that has it.
    pub owner: String,
}

/// The first port of the list that a service other than `name` has, or the first of a range that
/// others have all of.
#[must_use]
pub fn clash(store: &Store, name: &str, ports: &[PortSpec]) -> Option<PortClash> {
    ports.iter().filter(|port| *candidates(port).start() != *DYNAMIC.start()).find_map(|port| {
        let mut taken = candidates(port).map(|number| {
            let candidate = PortSpec { published_port: number, ..port.clone() };
            owner(store, name, &candidate)
        });
        let owner = taken.next().flatten()?;
        if taken.any(|owner| owner.is_none()) {
            return None;
        }
        let (port, protocol) = (*candidates(port).start(), port.protocol());
        Some(PortClash { port, protocol, owner: owner.to_owned() })
    })
}

/// The numbers that it may have.
fn candidates(port: &PortSpec) -> RangeInclusive<u32> {
    match (port.published_port, port.published_from) {
        (0, 0) => DYNAMIC,
        (0, from) => from..=port.published_to,
        (number, _) => number..=number,
    }
}

/// The service's ports with a number for each that is published without one. Ports in host mode
/// keep 0: the node of each task picks.
pub(super) fn publish(store: &Store, service: &Service) -> Vec<PortSpec> {
    let mut ports: Vec<PortSpec> = Vec::with_capacity(service.spec.ports.len());
    for (index, wanted) in service.spec.ports.iter().enumerate() {
        let mut port = wanted.clone();
        if port.published_port == 0 && port.mode() == PublishMode::Ingress {
            let kept = service.ports.get(index).filter(|old| {
                old.published_port != 0
                    && candidates(&port).contains(&old.published_port)
                    && old.protocol == port.protocol
                    && old.target_port == port.target_port
            });
            port.published_port = match kept {
                Some(old) => old.published_port,
                None => dynamic(store, service, &ports, &port),
            };
        }
        ports.push(port);
    }
    ports
}

/// A free number, or 0 when the whole range is taken.
fn dynamic(store: &Store, service: &Service, own: &[PortSpec], port: &PortSpec) -> u32 {
    let free = |number: &u32| {
        let candidate = PortSpec { published_port: *number, ..port.clone() };
        !own.iter().any(|other| same(other, &candidate))
            && owner(store, &service.spec.name, &candidate).is_none()
    };
    candidates(port).find(free).unwrap_or(0)
}

fn owner<'a>(store: &'a Store, name: &str, port: &PortSpec) -> Option<&'a str> {
    let others = store.services().filter(|other| other.spec.name != name);
    others
        .filter(|other| {
            let published = if other.ports.is_empty() { &other.spec.ports } else { &other.ports };
            published.iter().any(|taken| same(taken, port))
        })
        .map(|other| other.spec.name.as_str())
        .next()
}

/// Two host-mode ports of different services may share a number on different nodes; the scheduler
/// sees to that.
pub(crate) fn same(a: &PortSpec, b: &PortSpec) -> bool {
    let both_host = a.mode() == PublishMode::Host && b.mode() == PublishMode::Host;
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    let addresses_meet = a.host_ip == b.host_ip || any(&a.host_ip) || any(&b.host_ip);
    !both_host && a.published_port == b.published_port && a.protocol == b.protocol && addresses_meet
}
