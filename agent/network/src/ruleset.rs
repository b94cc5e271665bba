//! From [`Desired`] to the rules of one nftables table, as the text of one transaction. Lookups
//! are by map: what a packet costs does not grow with the number of services.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use crate::desired::{Desired, Overlay, PublishedPort, Service};
use crate::name::{Names, hardware_address};
use crate::overlay::{self, Marks};
use crate::sticky;

/// A table's rules. What comes and goes with containers and endpoints is apart, so that it can change
/// alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    table: String,
    /// The table but for what follows.
    frame: String,
    /// Of one rule each: name and rule.
    chains: Vec<(String, String)>,
    /// Elements of the sets and maps of [`PARTS`], in their order.
    parts: [Vec<String>; PARTS.len()],
    /// The containers' addresses.
    pub(crate) own: BTreeSet<Ipv4Addr>,
}

/// The set of pairs of a container's address with itself: who calls its own service.
pub(crate) const OWN: &str = "own";
/// Where in the frame that set, and the chains, belong.
const OWN_PLACE: &str = "OWN_PLACE";
const CHAINS_PLACE: &str = "CHAINS_PLACE";

/// A set or map whose elements change alone.
struct Part {
    name: &'static str,
    head: &'static str,
    kind: &'static str,
    /// Where in the frame it belongs.
    place: &'static str,
}

const PARTS: [Part; 4] = [
    Part { name: "vips", head: "map vips", kind: "ipv4_addr : verdict", place: "VIPS_PLACE" },
    Part {
        name: "published",
        head: "map published",
        kind: "inet_proto . inet_service : verdict",
        place: "PUBLISHED_PLACE",
    },
    Part {
        name: "published_at",
        head: "map published_at",
        kind: "ipv4_addr . inet_proto . inet_service : verdict",
        place: "PUBLISHED_AT_PLACE",
    },
    Part {
        name: "at_home",
        head: "set at_home",
        kind: "ipv4_addr . ipv4_addr",
        place: "AT_HOME_PLACE",
    },
];

/// An element of [`OWN`].
pub(crate) fn own_key(address: Ipv4Addr) -> Vec<u8> {
    [address.octets(), address.octets()].concat()
}

impl Rules {
    /// The text of one transaction that replaces what was there.
    pub(crate) fn script(&self) -> String {
        let own: Vec<String> =
            self.own.iter().map(|address| format!("{address} . {address}")).collect();
        let mut text = self.frame.clone();
        let mut put = |place: &str, head: &str, kind: &str, elements: &[String]| {
            let mut set_text = String::new();
            set(&mut set_text, head, kind, elements);
            text = text.replace(place, &set_text);
        };
        put(OWN_PLACE, &format!("set {OWN}"), "ipv4_addr . ipv4_addr", &own);
        for (part, elements) in PARTS.iter().zip(&self.parts) {
            put(part.place, part.head, part.kind, elements);
        }
        let chain =
            |(name, rule): &(String, String)| format!("  chain {name} {{\n    {rule}\n  }}\n");
        let chains: String = self.chains.iter().map(chain).collect();
        text.replace(CHAINS_PLACE, &chains)
    }

    /// The text of one transaction that makes these of `before`, but for the containers' addresses;
    /// none when the whole table has to be replaced. What it costs does not grow with the table.
    pub(crate) fn change_from(&self, before: &Self) -> Option<String> {
        if self.frame != before.frame {
            return None;
        }
        let table = &self.table;
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) = (
            before.chains.iter().map(|(name, rule)| (name, rule)).collect(),
            self.chains.iter().map(|(name, rule)| (name, rule)).collect(),
        );
        let mut text = String::new();
        for (name, rule) in &new {
            match old.get(name) {
                Some(same) if same == rule => continue,
                Some(_) => text.push_str(&format!("flush chain ip {table} {name}\n")),
                None => text.push_str(&format!("add chain ip {table} {name}\n")),
            }
            text.push_str(&format!("add rule ip {table} {name} {rule}\n"));
        }
        for (part, (old, new)) in PARTS.iter().zip(before.parts.iter().zip(&self.parts)) {
            let (old, new): (BTreeSet<_>, BTreeSet<_>) =
                (old.iter().collect(), new.iter().collect());
            let mut change = |verb: &str, elements: Vec<&str>| {
                if !elements.is_empty() {
                    let (name, elements) = (part.name, elements.join(", "));
                    text.push_str(&format!("{verb} element ip {table} {name} {{ {elements} }}\n"));
                }
            };
            change("delete", old.difference(&new).map(|one| one.as_str()).collect());
            change("add", new.difference(&old).map(|one| one.as_str()).collect());
        }
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            text.push_str(&format!(
                "flush chain ip {table} {name}\ndelete chain ip {table} {name}\n"
            ));
        }
        Some(text)
    }
}

/// The rules for a state.
pub(crate) fn rules(names: &Names, desired: &Desired, marks: &Marks, dns_port: u16) -> Rules {
    let desired = &desired.sorted();
    let table = names.table();
    let anchor = names.anchor();
    let subnets: Vec<String> =
        desired.networks.iter().map(|network| network.subnet.to_string()).collect();
    let same: Vec<String> = subnets.iter().map(|subnet| format!("{subnet} . {subnet}")).collect();
    let internal: Vec<String> = desired
        .networks
        .iter()
        .filter(|network| network.internal)
        .map(|network| network.subnet.to_string())
        .collect();
    let gateways: Vec<String> =
        desired.networks.iter().map(|network| network.gateway.to_string()).collect();
    let dns: Vec<String> =
        gateways.iter().map(|gateway| format!("{gateway} : {gateway} . {dns_port}")).collect();
    let gateway_of: Vec<String> = desired
        .networks
        .iter()
        .map(|network| format!("{} : {}", network.subnet, network.gateway))
        .collect();
    let attachments = desired.containers.iter().flat_map(|container| &container.attachments);
    let own = attachments.map(|attachment| attachment.address).collect();
    let balance = Balance::of(desired);

    let mut text = format!("table ip {table} {{}}\ndelete table ip {table}\ntable ip {table} {{\n");
    set(&mut text, "set subnets", "ipv4_addr; flags interval", &subnets);
    set(&mut text, "set same_network", "ipv4_addr . ipv4_addr; flags interval", &same);
    set(&mut text, "set internal", "ipv4_addr; flags interval", &internal);
    set(&mut text, "set gateways", "ipv4_addr", &gateways);
    text.push_str(OWN_PLACE);
    set(&mut text, "map dns", "ipv4_addr : ipv4_addr . inet_service", &dns);
    set(&mut text, "map gateway_of", "ipv4_addr : ipv4_addr; flags interval", &gateway_of);
    text.push_str(CHAINS_PLACE);
    let [vips, published, published_at, at_home] = PARTS;
    [&vips, &published, &published_at].iter().for_each(|part| text.push_str(part.place));
    let mut homes = Vec::new();
    let mut chains = CHAINS.replace("ANCHOR", &anchor);
    let own_address =
        desired.overlay.as_ref().map(|overlay| overlay.own.to_string()).unwrap_or_default();
    let mut from_nodes = String::new();
    if let Some(overlay) = &desired.overlay {
        homes = others(&mut text, overlay, marks, at_home.place);
        chains.push_str(OVERLAY);
        from_nodes = FROM_NODES.replace("ANCHOR", &anchor);
    }
    let chains = chains
        .replace("    FROM_NODES\n", &from_nodes)
        .replace("OVERLAY_DEVICE", &names.overlay())
        .replace("OWN_ADDRESS", &own_address)
        .replace("OVERLAY_PORT", &overlay::PORT.to_string())
        .replace("MARKED", &format!("{:#x}", overlay::MARK))
        .replace("MASK", &format!("{:#x}", overlay::MARK_MASK));
    text.push_str(&chains);
    text.push_str("}\n");
    let Balance { chains, vips, published, published_at } = balance;
    let parts = [vips.elements, published.elements, published_at.elements, homes];
    Rules { table, frame: text, chains, parts, own }
}

/// What every table has. Established flows keep the translation that they began with.
const CHAINS: &str = r#"
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto { tcp, udp } th dport 53 ip saddr . ip daddr @same_network dnat ip to ip daddr map @dns
    ip saddr . ip daddr @same_network ip daddr vmap @vips
    fib daddr type local ip daddr . meta l4proto . th dport vmap @published_at
    fib daddr type local meta l4proto . th dport vmap @published
  }
  chain output {
    type nat hook output priority -100; policy accept;
    ip daddr vmap @vips
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr . ip daddr @own snat ip to ip saddr map @gateway_of
    ip saddr @subnets ip daddr != @subnets masquerade
  }
  chain input {
    type filter hook input priority filter; policy accept;
    ip daddr @gateways iifname "lo" accept
    ip daddr @gateways ip saddr . ip daddr != @same_network drop
    ip saddr @internal ip daddr != @gateways drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    FROM_NODES
    oifname "ANCHOR" meta l4proto tcp reject with tcp reset
    oifname "ANCHOR" reject with icmp type host-unreachable
    ip saddr @internal ip saddr . ip daddr != @same_network drop
    ip daddr @subnets ct status dnat accept
    ip saddr . ip daddr @same_network accept
    ip daddr @subnets drop
    ip saddr @subnets accept
  }
"#;

/// Where there are other nodes. A node that asks this one for what runs there itself would take the
/// reply as its own: it sees this one as its caller. Connections from outside that came by one are marked with it, and their
/// replies go back by it; the mark must not go on to the outer packet, which would follow it too.
const OVERLAY: &str = r#"
  chain mark_connections {
    type filter hook prerouting priority mangle; policy accept;
    iifname "OVERLAY_DEVICE" ct state new ip saddr != @subnets ct mark set ether saddr map @senders
    iifname != "OVERLAY_DEVICE" ct direction reply ct mark and MASK == MARKED meta mark set ct mark
  }
  chain clear_marks {
    type filter hook postrouting priority mangle; policy accept;
    oifname "OVERLAY_DEVICE" meta mark set 0
  }
  chain by_a_detour {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "OVERLAY_DEVICE" ip saddr . ip daddr @at_home snat ip to OWN_ADDRESS
  }
  chain nodes_alone {
    type filter hook input priority filter; policy accept;
    udp dport OVERLAY_PORT ip saddr != @peers drop
  }
"#;

/// What another node has let pass.
const FROM_NODES: &str =
    "    iifname \"OVERLAY_DEVICE\" oifname != \"ANCHOR\" ip daddr @subnets accept\n";

/// The other nodes' addresses and the mark of each; returns what runs on each.
fn others(text: &mut String, overlay: &Overlay, marks: &Marks, place: &str) -> Vec<String> {
    let peers: Vec<String> = marks.iter().map(|(peer, _)| peer.to_string()).collect();
    let senders = marks.iter().map(|(peer, mark)| {
        let mac: Vec<String> =
            hardware_address(peer).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} : {mark:#x}", mac.join(":"))
    });
    let senders: Vec<String> = senders.collect();
    let at_home = overlay.routes.iter().map(|(address, node)| format!("{node} . {address}"));
    set(text, "set peers", "ipv4_addr", &peers);
    text.push_str(place);
    set(text, "map senders", "ether_addr : mark", &senders);
    at_home.collect()
}

fn set(text: &mut String, head: &str, kind: &str, elements: &[String]) {
    let _ = write!(text, "  {head} {{\n    type {kind};\n");
    if !elements.is_empty() {
        let _ = writeln!(text, "    elements = {{ {} }}", elements.join(", "));
    }
    text.push_str("  }\n");
}

/// A map's elements. Two for one key would make the kernel refuse the whole table: the first wins.
#[derive(Default)]
struct Verdicts {
    keys: BTreeSet<String>,
    elements: Vec<String>,
}

impl Verdicts {
    /// Whether it was added.
    fn add(&mut self, key: String, chain: &str) -> bool {
        let element = format!("{key} : goto {chain}");
        let new = self.keys.insert(key);
        if new {
            self.elements.push(element);
        }
        new
    }
}

/// Chains that spread new connections evenly over endpoints, and the maps that lead to them.
#[derive(Default)]
struct Balance {
    /// Name and rule.
    chains: Vec<(String, String)>,
    vips: Verdicts,
    published: Verdicts,
    published_at: Verdicts,
}

impl Balance {
    fn of(desired: &Desired) -> Self {
        let mut balance = Self::default();
        // Chains are called by ids: what comes and goes leaves the others as they are.
        for service in &desired.services {
            balance.add_vips(service);
            for (index, port) in service.ports.iter().enumerate() {
                balance.add_port(&format!("port_{}_{index}", service.id), service, port);
            }
        }
        balance
    }

    fn add_vips(&mut self, service: &Service) {
        for (index, (network, vip)) in service.vips.iter().enumerate() {
            let endpoints = service.endpoints.iter();
            let targets: Vec<String> = endpoints
                .filter_map(|endpoint| endpoint.addresses.get(network))
                .map(Ipv4Addr::to_string)
                .collect();
            if targets.is_empty() {
                continue;
            }
            let chain = format!("vip_{}_{index}", service.id);
            let rule = format!("dnat ip to {}", spread(&targets, service.sticky));
            self.vips.add(vip.to_string(), &chain);
            self.chains.push((chain, rule));
        }
    }

    fn add_port(&mut self, chain: &str, service: &Service, port: &PublishedPort) {
        let addresses = service.targets(port);
        if addresses.is_empty() || port.published == 0 {
            return;
        }
        let targets: Vec<String> =
            addresses.iter().map(|address| format!("{address} . {}", port.target)).collect();
        let protocol = port.protocol;
        let rule =
            format!("meta l4proto {protocol} dnat ip to {}", spread(&targets, service.sticky));
        let key = format!("{protocol} . {}", port.published);
        let (map, key) = match port.host_ip {
            None => (&mut self.published, key),
            Some(IpAddr::V4(ip)) if ip.is_unspecified() => (&mut self.published, key),
            Some(IpAddr::V4(ip)) if ip.is_loopback() => return,
            Some(IpAddr::V4(ip)) => (&mut self.published_at, format!("{ip} . {key}")),
            // This table is for IPv4; the proxy serves the rest.
            Some(IpAddr::V6(_)) => return,
        };
        if !map.add(key, chain) {
            return;
        }
        self.chains.push((chain.to_owned(), rule));
    }
}

/// Buckets of clients at the least: the more, the more even.
const BUCKETS: usize = 128;
/// The same on all nodes.
const SEED: &str = "0x5a10";

/// Each new connection goes to the next target; or to the one that its client's address has.
fn spread(targets: &[String], sticky: bool) -> String {
    let (how, entries): (String, Vec<String>) = if sticky {
        let buckets = BUCKETS.max((4 * targets.len()).next_power_of_two());
        let bucket = |number| {
            let target = &targets[sticky::choose(number, targets)?];
            Some(format!("{number} : {target}"))
        };
        let how = format!("jhash ip saddr mod {buckets} seed {SEED}");
        (how, (0..buckets).filter_map(bucket).collect())
    } else {
        let numbered = targets.iter().enumerate();
        let entries = numbered.map(|(number, target)| format!("{number} : {target}"));
        (format!("numgen inc mod {}", targets.len()), entries.collect())
    };
    format!("{how} map {{ {} }}", entries.join(", "))
}

#[cfg(test)]
mod tests;
