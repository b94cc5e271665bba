//! Each file under `golden/` is the whole script for the state that its test builds, and can be
//! given to `nft -c -f` as it is.

use super::*;
use crate::desired::{Attachment, Container, Endpoint, Network, PortMode, Protocol};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;

fn rules(desired: &Desired) -> String {
    super::rules(&Names::new(""), desired, &Marks::default(), 5453).script()
}

#[track_caller]
fn assert_rules(desired: &Desired, expected: &str) {
    let actual = rules(desired);
    if actual != expected {
        let same = actual.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
        panic!("differs from line {} on; the script is\n{actual}", same + 1);
    }
}

/// An address of a network that [`network`] makes.
fn address(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, network, 0, host)
}

fn network(number: u8) -> Network {
    Network {
        id: format!("net{number}"),
        name: format!("shop_{number}"),
        subnet: Ipv4Net::new_assert(address(number, 0), 24),
        gateway: address(number, 1),
        internal: false,
    }
}

fn container(id: &str, places: &[(u8, u8)]) -> Container {
    let attachments = places.iter().map(|&(network, host)| Attachment {
        aliases: Vec::new(),
        network: format!("net{network}"),
        address: address(network, host),
    });
    Container { id: id.to_owned(), names: Vec::new(), attachments: attachments.collect() }
}

fn endpoint(slot: u64, local: bool, places: &[(u8, u8)]) -> Endpoint {
    let addresses =
        places.iter().map(|&(network, host)| (format!("net{network}"), address(network, host)));
    Endpoint {
        task: format!("task{slot}"),
        slot,
        local,
        addresses: addresses.collect(),
        way_out: None,
    }
}

fn service(id: &str, endpoints: Vec<Endpoint>) -> Service {
    Service {
        id: id.to_owned(),
        name: format!("shop_{id}"),
        short_name: id.to_owned(),
        endpoints,
        ..Service::default()
    }
}

fn port(protocol: Protocol, published: u16, target: u16) -> PublishedPort {
    PublishedPort { protocol, target, published, host_ip: None, mode: PortMode::Ingress }
}

/// A network with one published service, and the service's ports to fill in.
fn publishing(ports: Vec<PublishedPort>) -> Desired {
    let endpoints = vec![endpoint(1, true, &[(1, 11)]), endpoint(2, false, &[(1, 12)])];
    Desired {
        overlay: None,
        networks: vec![network(1)],
        services: vec![Service { ports, ..service("web", endpoints) }],
        containers: vec![container("task1", &[(1, 11)])],
        elsewhere: Vec::new(),
    }
}

/// The elements of a map of the script; none when it is empty.
fn elements<'a>(script: &'a str, map: &str) -> Option<&'a str> {
    let head = format!("  map {map} {{\n");
    let (_, body) = script.split_once(&head)?;
    let (body, _) = body.split_once("\n  }\n")?;
    body.lines().find_map(|line| line.trim().strip_prefix("elements = "))
}

#[test]
fn without_networks_there_is_nothing_in_the_sets() {
    assert_rules(&Desired::default(), include_str!("golden/no_networks.nft"));
}

#[test]
fn a_network_has_its_subnet_gateway_resolver_and_containers() {
    let endpoints = vec![endpoint(1, true, &[(1, 11)]), endpoint(2, true, &[(1, 12)])];
    let desired = Desired {
        networks: vec![network(1)],
        services: vec![service("web", endpoints)],
        containers: vec![container("task1", &[(1, 11)]), container("task2", &[(1, 12)])],
        overlay: None,
        elsewhere: Vec::new(),
    };
    assert_rules(&desired, include_str!("golden/one_network.nft"));
}

#[test]
fn two_networks_only_pass_packets_inside_each() {
    let desired = Desired {
        overlay: None,
        networks: vec![network(1), Network { internal: true, ..network(2) }],
        services: Vec::new(),
        containers: vec![container("task1", &[(1, 11)]), container("task2", &[(1, 13), (2, 13)])],
        elsewhere: Vec::new(),
    };
    assert_rules(&desired, include_str!("golden/two_networks.nft"));
}

#[test]
fn what_comes_and_goes_with_endpoints_changes_alone() {
    let of = |endpoints: Vec<Endpoint>, networks: Vec<Network>| {
        let vips = BTreeMap::from([("net1".to_owned(), address(1, 2))]);
        let ports = vec![port(Protocol::Tcp, 8080, 80)];
        let web = Service { ports, vips, ..service("web", endpoints) };
        let desired = Desired { networks, services: vec![web], ..Desired::default() };
        super::rules(&Names::new(""), &desired, &Marks::default(), 5453)
    };
    let one = || vec![endpoint(1, true, &[(1, 11)])];
    let none = of(Vec::new(), vec![network(1)]);
    let first = of(one(), vec![network(1)]);
    let two = of([one(), vec![endpoint(2, true, &[(1, 12)])]].concat(), vec![network(1)]);
    assert_eq!(first.change_from(&first).as_deref(), Some(""));
    assert_eq!(
        first.change_from(&none).unwrap(),
        "add chain ip shoal port_web_0\n\
         add rule ip shoal port_web_0 meta l4proto tcp dnat ip to numgen inc mod 1 map { 0 : 10.1.0.11 . 80 }\n\
         add chain ip shoal vip_web_0\n\
         add rule ip shoal vip_web_0 dnat ip to numgen inc mod 1 map { 0 : 10.1.0.11 }\n\
         add element ip shoal vips { 10.1.0.2 : goto vip_web_0 }\n\
         add element ip shoal published { tcp . 8080 : goto port_web_0 }\n"
    );
    assert_eq!(
        two.change_from(&first).unwrap(),
        "flush chain ip shoal port_web_0\n\
         add rule ip shoal port_web_0 meta l4proto tcp dnat ip to numgen inc mod 2 map { 0 : 10.1.0.11 . 80, 1 : 10.1.0.12 . 80 }\n\
         flush chain ip shoal vip_web_0\n\
         add rule ip shoal vip_web_0 dnat ip to numgen inc mod 2 map { 0 : 10.1.0.11, 1 : 10.1.0.12 }\n"
    );
    assert_eq!(
        none.change_from(&first).unwrap(),
        "delete element ip shoal vips { 10.1.0.2 : goto vip_web_0 }\n\
         delete element ip shoal published { tcp . 8080 : goto port_web_0 }\n\
         flush chain ip shoal port_web_0\ndelete chain ip shoal port_web_0\n\
         flush chain ip shoal vip_web_0\ndelete chain ip shoal vip_web_0\n"
    );
    assert_eq!(of(one(), vec![network(1), network(2)]).change_from(&first), None);
}

#[test]
fn a_sticky_service_has_the_same_map_on_every_node() {
    let of = |local: bool| {
        let endpoints = vec![endpoint(1, local, &[(1, 11)]), endpoint(2, !local, &[(1, 12)])];
        let ports = vec![port(Protocol::Tcp, 8080, 80)];
        let vips = BTreeMap::from([("net1".to_owned(), address(1, 2))]);
        let web = Service { sticky: true, ports, vips, ..service("web", endpoints) };
        rules(&Desired { networks: vec![network(1)], services: vec![web], ..Desired::default() })
    };
    let script = of(true);
    assert_eq!(script, of(false), "whichever of the two is here");
    let chains = script.lines().filter(|line| line.contains("jhash ip saddr mod 128 seed 0x5a10"));
    for chain in chains.clone() {
        assert_eq!((chain.matches(" : ").count(), chain.contains("10.1.0.12")), (128, true));
    }
    assert_eq!(chains.count(), 2, "its address and its port");
}

#[test]
fn published_ports_lead_to_endpoints_here_before_others() {
    let web = vec![
        endpoint(1, true, &[(1, 11)]),
        endpoint(2, true, &[(1, 12)]),
        endpoint(3, false, &[(1, 13)]),
    ];
    let probe = vec![endpoint(4, true, &[(1, 21)]), endpoint(5, false, &[(1, 22)])];
    let web_ports = vec![port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 5353, 53)];
    let on_host = PublishedPort { mode: PortMode::Host, ..port(Protocol::Tcp, 9100, 9100) };
    let desired = Desired {
        overlay: None,
        networks: vec![network(1)],
        services: vec![
            Service { ports: web_ports, ..service("a_web", web) },
            Service { ports: vec![on_host], ..service("b_probe", probe) },
        ],
        containers: vec![container("task1", &[(1, 11)])],
        elsewhere: Vec::new(),
    };
    assert_rules(&desired, include_str!("golden/published_ports.nft"));
}

#[test]
fn what_comes_by_other_nodes_goes_back_by_them() {
    let node = |last: u8| Ipv4Addr::new(192, 0, 2, last);
    let far = vec![endpoint(1, false, &[(1, 11)]), endpoint(2, false, &[(1, 12)])];
    let ports = vec![port(Protocol::Tcp, 8080, 80)];
    let overlay = Overlay {
        own: node(11),
        peers: [node(12), node(13)].into(),
        routes: [(Ipv4Addr::new(10, 1, 0, 11), node(12))].into(),
    };
    let mut marks = Marks::default();
    marks.follow(&overlay.peers);
    let desired = Desired {
        overlay: Some(overlay),
        networks: vec![network(1)],
        services: vec![Service { ports, ..service("web", far) }],
        containers: Vec::new(),
        elsewhere: Vec::new(),
    };
    let script = super::rules(&Names::new(""), &desired, &marks, 5453).script();
    assert_eq!(script, include_str!("golden/other_nodes.nft"));
}

#[test]
fn a_port_of_one_host_address_is_open_on_no_other() {
    let host_ip = Some(IpAddr::from([192, 0, 2, 10]));
    let desired = publishing(vec![PublishedPort { host_ip, ..port(Protocol::Tcp, 8443, 443) }]);
    assert_rules(&desired, include_str!("golden/published_at_one_address.nft"));
}

#[test]
fn a_vip_leads_to_the_endpoints_on_its_own_network() {
    let endpoints = vec![endpoint(1, true, &[(1, 11), (2, 11)]), endpoint(2, false, &[(1, 12)])];
    let vips = [("net1".to_owned(), address(1, 2)), ("net2".to_owned(), address(2, 2))];
    let desired = Desired {
        overlay: None,
        networks: vec![network(1), network(2)],
        services: vec![Service { vips: vips.into(), ..service("web", endpoints) }],
        containers: vec![container("task1", &[(1, 11), (2, 11)])],
        elsewhere: Vec::new(),
    };
    assert_rules(&desired, include_str!("golden/service_vip.nft"));
}

#[test]
fn what_has_no_endpoint_has_no_rule() {
    let ports = vec![port(Protocol::Tcp, 8080, 80)];
    let vips = [("net1".to_owned(), address(1, 2))];
    let idle = Service { ports, vips: vips.into(), ..service("idle", Vec::new()) };
    let remote = PublishedPort { mode: PortMode::Host, ..port(Protocol::Tcp, 9100, 9100) };
    let elsewhere = service("elsewhere", vec![endpoint(1, false, &[(1, 11)])]);
    let desired = Desired {
        overlay: None,
        networks: vec![network(1)],
        services: vec![idle, Service { ports: vec![remote], ..elsewhere }],
        containers: Vec::new(),
        elsewhere: Vec::new(),
    };
    let script = rules(&desired);
    assert_eq!(elements(&script, "vips"), None);
    assert_eq!(elements(&script, "published"), None);
    assert!(!script.contains("numgen"), "{script}");
}

#[test]
fn loopback_and_ipv6_ports_are_left_to_the_proxy() {
    for host_ip in ["127.0.0.1", "127.1.2.3", "::1", "::", "2001:db8::1"] {
        let host_ip: IpAddr = host_ip.parse().unwrap();
        let bound = PublishedPort { host_ip: Some(host_ip), ..port(Protocol::Tcp, 8080, 80) };
        let script = rules(&publishing(vec![bound]));
        assert_eq!(script, rules(&publishing(Vec::new())), "{host_ip}");
    }
}

#[test]
fn the_unspecified_address_is_every_address() {
    let any = Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let bound = PublishedPort { host_ip: any, ..port(Protocol::Tcp, 8080, 80) };
    let script = rules(&publishing(vec![bound]));
    assert_eq!(script, rules(&publishing(vec![port(Protocol::Tcp, 8080, 80)])));
    assert_eq!(elements(&script, "published"), Some("{ tcp . 8080 : goto port_web_0 }"));
}

#[test]
fn a_port_without_a_number_yet_is_not_open() {
    let script = rules(&publishing(vec![port(Protocol::Tcp, 0, 80)]));
    assert_eq!(elements(&script, "published"), None);
}

#[test]
fn the_script_replaces_the_engines_own_table_and_touches_no_other() {
    for (instance, table, anchor) in
        [("", "shoal", "shoal-00".to_owned()), ("b", "shoal_b", Names::new("b").anchor())]
    {
        let desired = publishing(vec![port(Protocol::Tcp, 8080, 80)]);
        let script =
            super::rules(&Names::new(instance), &desired, &Marks::default(), 5453).script();
        // An empty table first: there may be none to delete.
        let head = format!("table ip {table} {{}}\ndelete table ip {table}\ntable ip {table} {{\n");
        let body = script.strip_prefix(&head).unwrap_or_else(|| panic!("begins wrong: {script}"));
        let body = body.strip_suffix("\n}\n").unwrap_or_else(|| panic!("ends wrong: {script}"));
        // All the rest is inside that one block.
        let outside = body.lines().find(|line| !line.is_empty() && !line.starts_with("  "));
        assert_eq!(outside, None, "{script}");
        for command in ["flush", "delete", "destroy", "table ", "include"] {
            assert!(!body.contains(command), "{command}: {script}");
        }
        assert!(body.contains(&format!("oifname \"{anchor}\"")), "{script}");
        assert!(!body.contains("ANCHOR"), "{script}");
    }
}

#[test]
fn every_chain_that_a_map_leads_to_stands_before_it() {
    let vips = [("net1".to_owned(), address(1, 2)), ("net2".to_owned(), address(2, 2))];
    let ports = vec![port(Protocol::Tcp, 8080, 80), port(Protocol::Sctp, 8080, 80)];
    let endpoints = vec![endpoint(1, true, &[(1, 11), (2, 11)])];
    let desired = Desired {
        overlay: None,
        networks: vec![network(1), network(2)],
        services: vec![
            Service { ports, vips: vips.into(), ..service("a", endpoints.clone()) },
            Service { ports: vec![port(Protocol::Tcp, 81, 80)], ..service("b", endpoints) },
        ],
        containers: Vec::new(),
        elsewhere: Vec::new(),
    };
    let script = rules(&desired);
    let mut targets = Vec::new();
    for (at, _) in script.match_indices("goto ") {
        let name = script[at + "goto ".len()..].split([',', ' ']).next().unwrap();
        let chain = script.find(&format!("  chain {name} {{\n"));
        assert!(chain.is_some_and(|chain| chain < at), "{name}: {script}");
        targets.push(name);
    }
    let all = targets.len();
    targets.sort_unstable();
    targets.dedup();
    assert_eq!((all, targets.len()), (5, 5), "each entry has a chain of its own");
}

/// `Desired` says that order means nothing. Rules that change with it would be put in force
/// again, and begin the turns of `numgen` anew, for a state that is the same.
#[test]
fn order_means_nothing() {
    let web = vec![
        endpoint(1, true, &[(1, 11), (2, 11)]),
        endpoint(2, false, &[(1, 12)]),
        endpoint(3, false, &[(1, 13)]),
    ];
    let host_ip = Some(IpAddr::from([192, 0, 2, 10]));
    let web_ports = vec![
        port(Protocol::Tcp, 80, 8080),
        PublishedPort { host_ip, ..port(Protocol::Tcp, 443, 8443) },
        port(Protocol::Udp, 443, 8443),
    ];
    let vips = [("net1".to_owned(), address(1, 2)), ("net2".to_owned(), address(2, 2))];
    let db_ports = vec![port(Protocol::Tcp, 5432, 5432)];
    let first = Desired {
        overlay: None,
        networks: vec![network(1), Network { internal: true, ..network(2) }, network(3)],
        services: vec![
            Service { ports: web_ports, vips: vips.into(), ..service("web", web) },
            Service { ports: db_ports, ..service("db", vec![endpoint(4, true, &[(3, 11)])]) },
        ],
        containers: vec![
            container("task1", &[(1, 11), (2, 11)]),
            container("task4", &[(3, 11)]),
            container("task9", &[(1, 19), (3, 19)]),
        ],
        elsewhere: Vec::new(),
    };
    let mut second = first.clone();
    second.networks.reverse();
    second.services.reverse();
    second.containers.reverse();
    for service in &mut second.services {
        service.ports.reverse();
        service.endpoints.reverse();
    }
    for container in &mut second.containers {
        container.attachments.reverse();
    }
    let (first, second) = (rules(&first), rules(&second));
    let different = first.lines().zip(second.lines()).find(|(one, other)| one != other);
    assert_eq!(different, None);
    assert_eq!(first, second);
}
