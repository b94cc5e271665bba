//! A single container's places on networks: the node's own, which gives addresses here while it runs,
//! and those of the cluster, whose managers give one for as long as the container is there.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use shoal_network as net;
use shoal_proto::v1::{
    ContainerConfig, ContainerNetwork, ContainerRecord, NetworkAttachment, NetworkAttachmentSpec,
    PlaceContainerRequest,
};
use tonic::Code;

use super::{Single, SingleError, Singles, lock, network};

/// From when the managers have given an address until they have told this node of the network.
const PATIENCE: Duration = Duration::from_secs(5);
/// The names of the node's own network.
const OWN: [&str; 2] = ["bridge", "default"];

/// A place as the container has it while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) network: net::Network,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) aliases: Vec<String>,
}

pub(super) fn is_own(network: &ContainerNetwork) -> bool {
    OWN.contains(&network.network.as_str())
}

/// The networks that it is on.
pub(super) fn networks(config: &ContainerConfig) -> Vec<ContainerNetwork> {
    match config.network_mode.as_str() {
        "" | "private" if !config.networks.is_empty() => config.networks.clone(),
        "" | "private" | "default" | "bridge" => {
            vec![ContainerNetwork { network: OWN[0].to_owned(), ..ContainerNetwork::default() }]
        }
        _ => Vec::new(),
    }
}

pub(super) fn of_cluster(config: &ContainerConfig) -> Vec<ContainerNetwork> {
    networks(config).into_iter().filter(|network| !is_own(network)).collect()
}

/// A hardware address of one interface: `02:42:0a:01:02:03`.
fn mac(text: &str) -> Result<Option<[u8; 6]>, SingleError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let octet = |part: &&str| match part.len() {
        2 => u8::from_str_radix(part, 16).ok(),
        _ => None,
    };
    let octets: Option<Vec<u8>> = parts.iter().map(octet).collect();
    let octets = octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok());
    match octets {
        // Those of groups are odd.
        Some(octets) if octets[0] & 1 == 0 && octets != [0; 6] => Ok(Some(octets)),
        _ => Err(SingleError::Invalid(format!(
            "{text:?} is no hardware address of one interface, such as 02:42:0a:01:02:03"
        ))),
    }
}

/// What can be said of them without the managers.
pub(super) fn check(config: &ContainerConfig) -> Result<(), SingleError> {
    let all = networks(config);
    let mut names = BTreeSet::new();
    for one in &all {
        mac(&one.mac_address)?;
        if !one.address.is_empty() && one.address.parse::<Ipv4Addr>().is_err() {
            let (address, network) = (&one.address, &one.network);
            return Err(SingleError::Invalid(format!(
                "{address:?} is no IPv4 address (network {network})"
            )));
        }
        if let Some(alias) = one.aliases.iter().find(|alias| !is_name(alias)) {
            return Err(SingleError::Invalid(format!("{alias:?} can't be a name in DNS")));
        }
        let name = if is_own(one) { OWN[0] } else { one.network.as_str() };
        if !names.insert(name) {
            return Err(SingleError::Invalid(format!("network {name} is given twice")));
        }
    }
    if all.is_empty() && !config.networks.is_empty() {
        return Err(SingleError::Invalid(format!(
            "a container with --network {} can't be on others",
            config.network_mode
        )));
    }
    Ok(())
}

/// Labels of 63 characters at the most, 253 in all (RFC 1035, section 2.3.4), and `_`.
fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(good);
    text.len() <= 253 && text.split('.').all(label)
}

/// What managers are to know of a container.
pub(super) fn request(record: &ContainerRecord, running: bool) -> PlaceContainerRequest {
    let config = record.config.clone().unwrap_or_default();
    let wanted = of_cluster(&config).into_iter().map(|one| NetworkAttachmentSpec {
        network_id: one.network,
        aliases: one.aliases,
        address: one.address,
    });
    let hostname = network::hostname(&record.id, &config);
    PlaceContainerRequest {
        container_id: record.id.clone(),
        names: names(&record.id, &config.name, hostname),
        networks: wanted.collect(),
        running,
    }
}

pub(super) fn names(id: &str, name: &str, hostname: String) -> Vec<String> {
    let short = super::create::short(id);
    let mut names = vec![name.to_owned(), short.clone()];
    names.extend((hostname != short).then_some(hostname));
    names
}

impl Singles {
    /// Has the managers give it its places; nothing when it has none in the cluster.
    pub(super) async fn place(
        &self,
        record: &ContainerRecord,
    ) -> Result<Vec<NetworkAttachment>, SingleError> {
        let wanted = request(record, record.attached);
        if wanted.networks.is_empty() && record.networks.is_empty() {
            return Ok(Vec::new());
        }
        let placed = self.node().uplink.place(&wanted).await.map_err(|status| {
            let message = status.message().to_owned();
            match status.code() {
                Code::NotFound | Code::InvalidArgument => SingleError::Invalid(message),
                Code::FailedPrecondition => SingleError::Conflict(message),
                _ => SingleError::Failed(format!(
                    "the managers give no place on the network: {message}"
                )),
            }
        })?;
        Ok(placed.networks)
    }

    /// Its places, with an address on the node's own network for this run.
    pub(super) async fn places(&self, single: &Single) -> Result<Vec<Attached>, SingleError> {
        let config = single.record().config.unwrap_or_default();
        let wanted = networks(&config);
        if wanted.iter().any(|one| !is_own(one)) {
            self.ensure_placed(single).await?;
        }
        let held = single.record().networks;
        let mut held = held.into_iter();
        let mut places = Vec::with_capacity(wanted.len());
        for one in wanted {
            let (network, address) = match is_own(&one) {
                true => {
                    let address = self.take_address(single, &one.address)?;
                    (self.node().fabric.network().clone(), address)
                }
                false => {
                    let missing = || SingleError::Failed(format!("no place on {}", one.network));
                    let held = held.next().ok_or_else(missing)?;
                    let address: ipnet::Ipv4Net = held.address.parse().map_err(|_| missing())?;
                    (self.known(&held.network_id, &one.network).await?, address.addr())
                }
            };
            let mac = mac(&one.mac_address)?;
            places.push(Attached { network, address, mac, aliases: one.aliases });
        }
        Ok(places)
    }

    /// The managers may have forgotten it: they were begun anew from a backup, or a network that went
    /// with its stack is there again.
    async fn ensure_placed(&self, single: &Single) -> Result<(), SingleError> {
        let record = single.record();
        let known = {
            let told = self.node().told.borrow();
            let container = told.containers.get(&single.id);
            container.is_some_and(|told| told.networks == record.networks)
        };
        if known && !record.networks.is_empty() {
            return Ok(());
        }
        let networks = self.place(&record).await?;
        self.change(single, |record| record.networks = networks);
        Ok(())
    }

    /// A network once this node has been told of it.
    async fn known(&self, id: &str, name: &str) -> Result<net::Network, SingleError> {
        let mut told = self.node().told.subscribe();
        let known = told.wait_for(|told| told.networks.contains_key(id));
        let found = tokio::time::timeout(PATIENCE, known).await;
        let found = found.ok().and_then(Result::ok).and_then(|told| told.networks.get(id).cloned());
        found.ok_or_else(|| {
            SingleError::Failed(format!(
                "the managers have not told this node of network {name} yet"
            ))
        })
    }

    /// An address of the node's own network, the one asked for or a free one.
    fn take_address(&self, single: &Single, wanted: &str) -> Result<Ipv4Addr, SingleError> {
        // Held until the address is in the record, so that no other start takes it.
        let list = lock(&self.shared.list);
        let others = list.values().filter(|one| one.id != single.id);
        let used: BTreeSet<Ipv4Addr> =
            others.filter_map(|one| lock(&one.record).address.parse().ok()).collect();
        let own = lock(&single.record).address.parse::<Ipv4Addr>().ok();
        let fabric = &self.node().fabric;
        let subnet = fabric.network().subnet;
        let address = match wanted.parse::<Ipv4Addr>() {
            Ok(wanted) => {
                let usable = subnet.hosts().any(|host| host == wanted);
                if !usable || wanted == fabric.network().gateway {
                    return Err(SingleError::Invalid(format!(
                        "address {wanted} is not one for containers of the node's own network {subnet}"
                    )));
                }
                if used.contains(&wanted) {
                    let holds = |one: &&Arc<Single>| {
                        lock(&one.record).address.parse() == Ok(wanted) && one.id != single.id
                    };
                    let holder = list.values().find(holds).map(|one| one.name());
                    return Err(SingleError::Conflict(format!(
                        "address {wanted} is held by container {}",
                        holder.unwrap_or_default()
                    )));
                }
                wanted
            }
            Err(_) => match own {
                Some(own) => own,
                None => fabric.free_address(&used).ok_or_else(|| {
                    SingleError::Failed(format!("the node's own network {subnet} is full"))
                })?,
            },
        };
        lock(&single.record).address = address.to_string();
        Ok(address)
    }

    /// What its interfaces are to be.
    pub(super) async fn interfaces(
        &self,
        places: &[Attached],
    ) -> Result<Vec<net::AttachRequest>, SingleError> {
        let node = self.node();
        // What does not fit would have to be told so by each node on its way.
        let mtu = match node.address {
            Some(own) => Some(
                node.network
                    .overlay_mtu(own)
                    .await
                    .map_err(|error| SingleError::Failed(error.to_string()))?,
            ),
            None => None,
        };
        let own = &node.fabric.network().id;
        let interface = |place: &Attached| net::AttachRequest {
            network: place.network.clone(),
            address: place.address,
            mtu: mtu.filter(|_| place.network.id != *own),
            mac: place.mac,
        };
        Ok(places.iter().map(interface).collect())
    }

    /// What of its places is in force, from its record alone.
    pub(crate) fn shown_places(
        &self,
        record: &ContainerRecord,
    ) -> Vec<(ContainerNetwork, Option<Attached>)> {
        let config = record.config.clone().unwrap_or_default();
        let told = self.node().told.borrow();
        let mut held = record.networks.iter();
        let place = |one: &ContainerNetwork, network: net::Network, address| Attached {
            network,
            address,
            mac: mac(&one.mac_address).ok().flatten(),
            aliases: one.aliases.clone(),
        };
        let shown = networks(&config).into_iter().map(|one| {
            let found = if is_own(&one) {
                let address = record.address.parse::<Ipv4Addr>().ok();
                address.map(|address| place(&one, self.node().fabric.network().clone(), address))
            } else {
                held.next().and_then(|held| {
                    let network = told.networks.get(&held.network_id)?.clone();
                    let address: ipnet::Ipv4Net = held.address.parse().ok()?;
                    Some(place(&one, network, address.addr()))
                })
            };
            (one, found)
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(mode: &str, names: &[&str]) -> ContainerConfig {
        let network = |name: &&str| ContainerNetwork {
            network: (*name).to_owned(),
            ..ContainerNetwork::default()
        };
        ContainerConfig {
            network_mode: mode.to_owned(),
            networks: names.iter().map(network).collect(),
            ..ContainerConfig::default()
        }
    }

    #[test]
    fn it_is_on_the_nodes_own_network_unless_told_otherwise() {
        for (mode, given, expected) in [
            ("", &[][..], &["bridge"][..]),
            ("bridge", &[], &["bridge"]),
            ("", &["a", "b"], &["a", "b"]),
            ("none", &[], &[]),
            ("host", &[], &[]),
            ("container:x", &[], &[]),
        ] {
            let found = networks(&on(mode, given));
            let names: Vec<&str> = found.iter().map(|one| one.network.as_str()).collect();
            assert_eq!(names, expected, "{mode} {given:?}");
        }
    }

    #[test]
    fn what_can_not_be_is_refused() {
        assert!(check(&on("", &["a", "bridge"])).is_ok());
        for (config, words) in [
            (on("", &["a", "a"]), "network a is given twice"),
            (on("", &["bridge", "default"]), "network bridge is given twice"),
            (on("host", &["a"]), "--network host can't be on others"),
        ] {
            let said = check(&config).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
        let with = |change: fn(&mut ContainerNetwork)| {
            let mut config = on("", &["a"]);
            change(&mut config.networks[0]);
            check(&config).unwrap_err().to_string()
        };
        assert!(with(|one| one.address = "1.2.3".into()).contains("no IPv4 address"));
        assert!(with(|one| one.mac_address = "03:00:00:00:00:01".into()).contains("02:42:0a"));
        assert!(with(|one| one.mac_address = "02:42".into()).contains("no hardware address"));
        assert!(with(|one| one.aliases = vec!["a b".into()]).contains("can't be a name"));
    }
}
