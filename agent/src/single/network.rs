//! A single container's network: on the node's own one, the host's, another container's, or none.

use std::ops::RangeInclusive;

use shoal_network as net;
use shoal_proto::v1::assignment_change::Change;
use shoal_proto::v1::{ContainerConfig, ContainerRecord, PortProtocol, PortSpec, PublishMode};
use shoal_runtime::{Namespace, Namespaces};

use super::{Single, SingleError, Singles, place};
use crate::node::Local;
use crate::task::port;

/// Where ports that the node picks are looked for, as Docker does.
const PICKED: RangeInclusive<u32> = 32_768..=60_999;

/// Whether it has an interface of its own.
pub(super) fn is_attached(config: &ContainerConfig) -> bool {
    !place::networks(config).is_empty()
}

pub(super) fn check_ports(config: &ContainerConfig) -> Result<(), SingleError> {
    let wanted = !config.ports.is_empty() || config.publish_all;
    if wanted && !is_attached(config) {
        return Err(SingleError::Invalid(format!(
            "ports can't be published with --network {}",
            config.network_mode
        )));
    }
    for spec in &config.ports {
        if !(1..=65_535).contains(&spec.target_port) || spec.published_port > 65_535 {
            return Err(SingleError::Invalid(format!(
                "port {}:{} is not between 1 and 65535",
                spec.published_port, spec.target_port
            )));
        }
        if !spec.host_ip.is_empty() && spec.host_ip.parse::<std::net::IpAddr>().is_err() {
            let ip = &spec.host_ip;
            return Err(SingleError::Invalid(format!("{ip:?} is no address to publish a port on")));
        }
    }
    Ok(())
}

impl Singles {
    /// The namespaces that a configuration asks for.
    pub(super) fn namespaces(&self, config: &ContainerConfig) -> Result<Namespaces, SingleError> {
        let one = |mode: &str, what: &str| match mode {
            "" | "private" => Ok(Namespace::Private),
            "host" => Ok(Namespace::Host),
            mode => match mode.strip_prefix("container:") {
                Some(other) => self.target_id(other).map(Namespace::Of),
                None => Err(SingleError::Invalid(format!(
                    "{what} mode {mode:?} is unknown; there are private, host and container:NAME"
                ))),
            },
        };
        let network = match config.network_mode.as_str() {
            "" | "default" | "bridge" | "none" => Namespace::Private,
            mode @ ("host" | "private") => one(mode, "network")?,
            mode if mode.starts_with("container:") => one(mode, "network")?,
            mode => {
                return Err(SingleError::Invalid(format!(
                    "network mode {mode:?} is unknown; there are bridge, host, none and \
                     container:NAME, and the networks of the cluster"
                )));
            }
        };
        let ipc = match config.ipc_mode.as_str() {
            // What Docker calls so is what every container is here.
            "shareable" => Namespace::Private,
            mode => one(mode, "ipc")?,
        };
        Ok(Namespaces {
            network,
            ipc,
            pid: one(&config.pid_mode, "pid")?,
            uts: one(&config.uts_mode, "uts")?,
            cgroup: one(&config.cgroup_mode, "cgroup namespace")?,
            user: None,
        })
    }

    /// Opens the ports that it publishes; those that are left to the node are picked.
    pub(super) async fn claim_ports(&self, single: &Single) -> Result<(), SingleError> {
        let record = single.record();
        let config = record.config.unwrap_or_default();
        let mut ports = config.ports.clone();
        if config.publish_all {
            ports.extend(exposed(&record.image_config, &ports));
        }
        let node = self.node();
        for wanted in ports.iter_mut().filter(|wanted| wanted.published_port == 0) {
            self.pick(single, wanted).await?;
        }
        for wanted in &ports {
            if let Some(owner) = self.publisher(&single.id, wanted) {
                return Err(SingleError::Failed(format!(
                    "port {}/{} is already published by {owner}; choose another",
                    wanted.published_port,
                    wanted.protocol()
                )));
            }
        }
        let wanted: Vec<net::PublishedPort> = ports.iter().filter_map(port).collect();
        node.network
            .claim_ports(&single.id, &wanted)
            .await
            .map_err(|error| SingleError::Failed(error.to_string()))?;
        self.change(single, |record| record.ports = ports);
        Ok(())
    }

    /// Opens the first port of its range that nobody has.
    async fn pick(&self, single: &Single, wanted: &mut PortSpec) -> Result<(), SingleError> {
        let range = match wanted.published_from {
            0 => PICKED,
            from => from..=wanted.published_to,
        };
        for number in range.clone() {
            wanted.published_port = number;
            if self.publisher(&single.id, wanted).is_some() {
                continue;
            }
            let one: Vec<_> = port(wanted).into_iter().collect();
            match self.node().network.claim_more(&single.id, &one).await {
                Ok(()) => return Ok(()),
                Err(net::NetworkError::PortTaken { .. }) => {}
                Err(error) => return Err(SingleError::Failed(error.to_string())),
            }
        }
        let (from, to) = (range.start(), range.end());
        Err(SingleError::Failed(format!(
            "every port from {from} to {to} is taken: port {}/{} can't be published",
            wanted.target_port,
            wanted.protocol()
        )))
    }

    /// Who publishes that port on this node already: the firewall would send it to one of the two.
    fn publisher(&self, own: &str, wanted: &PortSpec) -> Option<String> {
        let overlaps = |spec: &PortSpec| {
            let all = |spec: &PortSpec| matches!(spec.host_ip.as_str(), "" | "0.0.0.0");
            (spec.published_port, spec.protocol) == (wanted.published_port, wanted.protocol)
                && (spec.host_ip == wanted.host_ip || all(spec) || all(wanted))
        };
        let others = self.all().into_iter().filter(|one| one.id != own && one.is_up());
        let mut holding = others.filter(|one| one.record().ports.iter().any(overlaps));
        if let Some(single) = holding.next() {
            return Some(format!("container {}", single.name()));
        }
        let assigned = self.node().statuses.assignments().changes.into_iter();
        let mut services = assigned.filter_map(|change| match change.change {
            Some(Change::Endpoints(service)) => Some(service),
            _ => None,
        });
        let service = services.find(|service| service.ports.iter().any(overlaps))?;
        Some(format!("service {}", service.name))
    }

    /// Puts the network of all that run in force.
    pub(super) async fn apply_network(&self) {
        let mut local = Local::default();
        for single in self.all() {
            let record = single.record();
            if !record.attached {
                continue;
            }
            let places = self.shown_places(&record).into_iter().filter_map(|(_, place)| place);
            let places: Vec<place::Attached> = places.collect();
            let config = record.config.unwrap_or_default();
            let hostname = hostname(&single.id, &config);
            let attachment = |place: &place::Attached| net::Attachment {
                network: place.network.id.clone(),
                address: place.address,
                aliases: place.aliases.clone(),
            };
            local.containers.push(net::Container {
                id: single.id.clone(),
                names: place::names(&single.id, &config.name, hostname),
                attachments: places.iter().map(attachment).collect(),
            });
            let address = |place: &place::Attached| (place.network.id.clone(), place.address);
            let way_out = places.iter().find(|place| !place.network.internal);
            local.services.push(net::Service {
                id: single.id.clone(),
                name: config.name.clone(),
                short_name: config.name.clone(),
                ports: record.ports.iter().filter_map(port).collect(),
                endpoints: vec![net::Endpoint {
                    task: single.id.clone(),
                    slot: 1,
                    local: true,
                    addresses: places.iter().map(address).collect(),
                    way_out: way_out.map(|place| place.network.id.clone()),
                }],
                ..net::Service::default()
            });
        }
        match self.node().fabric.set_local(local).await {
            Ok(report) => {
                for error in report.ports {
                    tracing::warn!(%error, "a published port");
                }
            }
            Err(error) => tracing::error!(%error, "the network is not as it should be"),
        }
    }
}

/// Whether nobody has named the host that it is to be.
pub(super) fn has_no_hostname(config: &ContainerConfig) -> bool {
    config.spec.as_ref().is_none_or(|spec| spec.hostname.is_empty())
}

/// The host name: its own, or the beginning of the id.
pub(super) fn hostname(id: &str, config: &ContainerConfig) -> String {
    match config.spec.as_ref().map(|spec| spec.hostname.as_str()) {
        Some(hostname) if !hostname.is_empty() => hostname.to_owned(),
        _ => super::create::short(id),
    }
}

/// Ports that the image exposes and that are not published yet, each to be picked by the node.
fn exposed(image_config: &str, published: &[PortSpec]) -> Vec<PortSpec> {
    let value: serde_json::Value = serde_json::from_str(image_config).unwrap_or_default();
    let Some(ports) = value["config"]["ExposedPorts"].as_object() else { return Vec::new() };
    let specs = ports.keys().filter_map(|text| {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "udp" => PortProtocol::Udp,
            "sctp" => PortProtocol::Sctp,
            _ => PortProtocol::Tcp,
        };
        Some(PortSpec {
            protocol: protocol.into(),
            target_port: number.parse().ok()?,
            mode: PublishMode::Host.into(),
            ..PortSpec::default()
        })
    });
    let of = |spec: &PortSpec| (spec.target_port, spec.protocol);
    specs.filter(|spec| published.iter().all(|own| of(own) != of(spec))).collect()
}

/// What is asked by name or id may also be a task's container.
impl Singles {
    pub(crate) fn target_id(&self, text: &str) -> Result<String, SingleError> {
        match self.find(text) {
            Ok(single) => Ok(single.id.clone()),
            Err(SingleError::Missing(_)) => super::super::task::find(self.node(), text)
                .map(|task| task.id)
                .ok_or_else(|| SingleError::Missing(text.to_owned())),
            Err(error) => Err(error),
        }
    }
}

/// The record's ports, for listings.
pub(crate) fn shown_ports(record: &ContainerRecord) -> Vec<PortSpec> {
    let config = record.config.clone().unwrap_or_default();
    let mut ports = record.ports.clone();
    ports
        .extend(exposed(&record.image_config, &ports).into_iter().filter(|_| is_attached(&config)));
    ports
}
