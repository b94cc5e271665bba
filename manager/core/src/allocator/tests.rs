//! Nothing is given twice, nothing that was given changes, and what can't be given is said.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use shoal_proto::v1::{EndpointMode, PortProtocol, PortSpec, PublishMode, TaskState};
use shoal_proto::{NetworkId, ServiceId, TaskId};

use super::{Allocator, clash};
use crate::store::{Key, Network, Service, Vip};
use crate::testing::{
    Cluster, Lcg, attached, ip, network, node, port, service, spec_of, task, task_spec_of,
};

fn allocate(allocator: &mut Allocator, cluster: &mut Cluster) {
    cluster.commit(|store, context, changes| allocator.run(store, context, changes));
}

/// Network 1 with that subnet and service 1 on it.
fn on_network(subnet: &str) -> (Cluster, Service) {
    let mut cluster = Cluster::default();
    let net = network(1, "net", subnet);
    let mut web = service(1, "web", 1);
    task_spec_of(&mut web).networks = vec![attached(&net)];
    cluster.put(net);
    cluster.put(web.clone());
    (cluster, web)
}

/// Every address that something holds, as often as it is held.
fn held(cluster: &Cluster) -> Vec<IpAddr> {
    let gateways = cluster.store.networks().filter_map(|network| network.gateway);
    let vips = cluster.store.services().flat_map(|service| &service.vips).map(|vip| vip.address);
    let tasks = cluster.store.tasks().filter(|task| task.holds_resources());
    let attachments = tasks.flat_map(|task| &task.networks).map(|held| held.address.addr());
    gateways.chain(vips).chain(attachments).collect()
}

#[test]
fn no_address_is_given_twice_and_a_full_network_says_so() {
    for seed in 0..20 {
        let mut random = Lcg(seed);
        let mut allocator = Allocator::default();
        let (mut cluster, web) = on_network("10.9.0.0/28");
        for round in 0..40 {
            for number in 0..random.below(4) {
                let number = round * 4 + number + 1;
                cluster.put(task(number.into(), &web, number));
            }
            let tasks = cluster.store.tasks().filter(|task| task.state() == TaskState::Pending);
            let ended: Vec<TaskId> =
                tasks.map(|task| task.id).filter(|_| random.below(8) == 0).collect();
            for task in ended {
                cluster.report(task, TaskState::Failed);
            }
            allocate(&mut allocator, &mut cluster);

            let held = held(&cluster);
            let different: BTreeSet<IpAddr> = held.iter().copied().collect();
            assert_eq!(different.len(), held.len(), "seed {seed}: {held:?}");
            let (first, last) = (ip("10.9.0.1"), ip("10.9.0.14"));
            assert!(held.iter().all(|one| (first..=last).contains(one)), "seed {seed}: {held:?}");
            let waiting: Vec<&str> =
                cluster.store.new_tasks().map(|task| task.status.error.as_str()).collect();
            assert!(waiting.is_empty() || held.len() == 14, "seed {seed}: {held:?}");
            let full = "network net is full: 10.9.0.0/28 has no free address";
            assert!(waiting.iter().all(|error| *error == full), "seed {seed}: {waiting:?}");
        }
    }
}

#[test]
fn an_address_just_freed_is_not_the_next_given() {
    let mut allocator = Allocator::default();
    let (mut cluster, web) = on_network("10.9.0.0/28");
    let mut given = Vec::new();
    for number in 1..=6 {
        cluster.put(task(number, &web, 1));
        allocate(&mut allocator, &mut cluster);
        given.push(cluster.task(number).networks[0].address);
        cluster.report(TaskId::from_bits(number), TaskState::Failed);
    }
    let different: BTreeSet<IpNet> = given.iter().copied().collect();
    assert_eq!(different.len(), given.len(), "{given:?}");
}

#[test]
fn a_task_gets_all_of_its_networks_or_none() {
    let mut allocator = Allocator::default();
    let (mut cluster, mut web) = on_network("10.9.0.0/28");
    let gone = network(9, "gone", "");
    task_spec_of(&mut web).networks.push(attached(&gone));
    cluster.put(task(1, &web, 1));
    allocate(&mut allocator, &mut cluster);
    let task = cluster.task(1);
    assert_eq!((task.state(), task.networks.len()), (TaskState::New, 0));
    assert_eq!(task.status.error, format!("network {} does not exist", gone.id));

    cluster.put(network(9, "now there", ""));
    allocate(&mut allocator, &mut cluster);
    let task = cluster.task(1);
    assert_eq!((task.state(), task.networks.len()), (TaskState::Pending, 2));
    assert_eq!(task.status.error, "");
}

#[test]
fn an_address_asked_for_is_given_or_the_reason_is() {
    let net = NetworkId::from_bits(1);
    let held = format!("address 10.9.0.1 of network net is held by {}", Key::Network(net));
    for (asked, error) in [
        ("10.9.0.9", ""),
        ("10.9.1.9", "address 10.9.1.9 is not in network net (10.9.0.0/28)"),
        ("nine", "\"nine\" is not an address (network net)"),
        ("10.9.0.1", held.as_str()),
    ] {
        let mut allocator = Allocator::default();
        let (mut cluster, mut web) = on_network("10.9.0.0/28");
        task_spec_of(&mut web).networks[0].address = asked.to_owned();
        cluster.put(task(1, &web, 1));
        cluster.put(task(2, &web, 2));
        allocate(&mut allocator, &mut cluster);
        assert_eq!(cluster.task(1).status.error, error, "{asked}");
        // One of two that ask for the same gets it; nobody else can have it in the meantime.
        assert_ne!(cluster.task(2).status.error, "", "{asked}");
        let got = cluster.task(1).networks.first().map(|held| held.address.to_string());
        assert_eq!(got, error.is_empty().then(|| format!("{asked}/28")));
    }
}

#[test]
fn a_service_has_one_vip_on_each_of_its_networks() {
    let mut allocator = Allocator::default();
    let (mut cluster, web) = on_network("10.9.0.0/28");
    let vips = |cluster: &Cluster| cluster.store.service(web.id).unwrap().vips.clone();
    let respec = |cluster: &mut Cluster, change: &dyn Fn(&mut Service)| {
        let mut web = (**cluster.store.service(web.id).unwrap()).clone();
        change(&mut web);
        cluster.put(web);
    };
    allocate(&mut allocator, &mut cluster);
    let first = vips(&cluster);
    assert_eq!(first, [Vip { network: NetworkId::from_bits(1), address: ip("10.9.0.2") }]);

    let second = network(2, "second", "10.9.1.0/28");
    cluster.put(second.clone());
    respec(&mut cluster, &|web| task_spec_of(web).networks.push(attached(&second)));
    allocate(&mut allocator, &mut cluster);
    let both = vips(&cluster);
    assert_eq!((both.len(), both[0], both[1].network), (2, first[0], second.id));

    respec(&mut cluster, &|web| drop(task_spec_of(web).networks.remove(0)));
    allocate(&mut allocator, &mut cluster);
    assert_eq!(vips(&cluster), both[1..]);

    respec(&mut cluster, &|web| spec_of(web).set_endpoint_mode(EndpointMode::Dnsrr));
    allocate(&mut allocator, &mut cluster);
    assert!(vips(&cluster).is_empty());
}

#[test]
fn subnets_overlap_neither_each_other_nor_a_hosts_routes() {
    for seed in 0..20 {
        let mut random = Lcg(seed);
        let mut allocator = Allocator::default();
        let mut cluster = Cluster::default();
        let mut host = node(1);
        // The default route covers everything and forbids nothing.
        let routes = ["0.0.0.0/0", "10.208.0.0/20", "no route"];
        host.description.host_routes = routes.map(str::to_owned).to_vec();
        cluster.put(host);
        let mut kept: Vec<Arc<Network>> = Vec::new();
        for number in 1..=25 {
            let third = random.below(64);
            let subnet = match random.below(4) {
                0 => format!("10.208.{third}.0/24"),
                1 => format!("10.208.{third}.0/21"),
                _ => String::new(),
            };
            cluster.put(network(number, &format!("net-{number}"), &subnet));
            allocate(&mut allocator, &mut cluster);

            let route: IpNet = routes[1].parse().unwrap();
            let networks: Vec<Arc<Network>> = cluster.store.networks().cloned().collect();
            let mut taken = vec![route];
            for network in &networks {
                assert!(network.subnet.is_some() || !network.spec.subnet.is_empty());
                let Some(subnet) = network.subnet else { continue };
                let clash = taken.iter().find(|t| t.contains(&subnet) || subnet.contains(*t));
                assert_eq!(clash, None, "seed {seed}: {subnet} of {}", network.spec.name);
                assert!(network.gateway.is_some_and(|gateway| subnet.contains(&gateway)));
                taken.push(subnet);
            }
            let given = |network: &&Arc<Network>| network.subnet.is_some();
            for old in kept.iter().filter(given) {
                assert!(networks.contains(old), "seed {seed}: {} has changed", old.spec.name);
            }
            kept = networks;
        }
    }
}

#[test]
fn a_network_without_addresses_says_why_on_its_tasks() {
    for (subnet, gateway, error) in [
        ("10.1.0.128/25", "", "network b: 10.1.0.128/25 overlaps network a (10.1.0.0/24)"),
        ("10.2.3.0/24", "", "network b: 10.2.3.0/24 overlaps the route 10.2.0.0/16 of node node-1"),
        ("10.3.0.0", "", "network b: \"10.3.0.0\" is not a subnet such as 10.1.0.0/24"),
        ("10.3.0.0/24", "10.4.0.1", "network b: gateway \"10.4.0.1\" is not in 10.3.0.0/24"),
    ] {
        let mut allocator = Allocator::default();
        let mut cluster = Cluster::default();
        let mut host = node(1);
        host.description.host_routes = vec!["10.2.0.0/16".to_owned()];
        let mut second = network(2, "b", subnet);
        Arc::make_mut(&mut second.spec).gateway = gateway.to_owned();
        let mut web = service(1, "web", 1);
        task_spec_of(&mut web).networks = vec![attached(&second)];
        cluster.put(host);
        cluster.put(network(1, "a", "10.1.0.0/24"));
        cluster.put(second);
        cluster.put(task(1, &web, 1));
        allocate(&mut allocator, &mut cluster);
        assert_eq!(cluster.task(1).status.error, error);
    }
}

fn host_port(published: u32) -> PortSpec {
    PortSpec { mode: PublishMode::Host.into(), ..port(published) }
}

fn publishing(number: u128, ports: Vec<PortSpec>) -> Service {
    let mut service = service(number, &format!("web-{number}"), 1);
    spec_of(&mut service).ports = ports;
    service
}

fn published(cluster: &Cluster, service: u128) -> Vec<u32> {
    let service = cluster.store.service(ServiceId::from_bits(service)).unwrap();
    service.ports.iter().map(|port| port.published_port).collect()
}

#[test]
fn ports_keep_their_numbers_and_those_without_get_one() {
    let mut allocator = Allocator::default();
    let mut cluster = Cluster::default();
    cluster.put(publishing(1, vec![port(8080), port(0), host_port(9090), host_port(0), port(0)]));
    allocate(&mut allocator, &mut cluster);
    let first = [8080, 30_000, 9090, 0, 30_001];
    assert_eq!(published(&cluster, 1), first);
    cluster.put(publishing(2, vec![port(30_002)]));
    allocate(&mut allocator, &mut cluster);
    cluster.put(publishing(3, vec![port(0)]));
    let web = cluster.store.service_by_name("web-1").unwrap().clone();
    cluster.put(task(1, &web, 1));
    allocate(&mut allocator, &mut cluster);
    assert_eq!(published(&cluster, 1), first, "what was given stays");
    assert_eq!(cluster.task(1).ports, web.ports);
    assert_eq!((published(&cluster, 2), published(&cluster, 3)), (vec![30_002], vec![30_003]));

    cluster.delete(Key::Service(ServiceId::from_bits(1)));
    cluster.put(publishing(4, vec![port(0)]));
    allocate(&mut allocator, &mut cluster);
    assert_eq!(published(&cluster, 4), [30_000], "what was freed is given again");
}

#[test]
fn of_a_range_the_first_is_taken_that_nobody_has() {
    let range = |from, to| PortSpec { published_from: from, published_to: to, ..port(0) };
    let mut allocator = Allocator::default();
    let mut cluster = Cluster::default();
    cluster.put(publishing(1, vec![port(8000)]));
    cluster.put(publishing(2, vec![range(8000, 8002)]));
    cluster.put(publishing(3, vec![range(8000, 8002)]));
    allocate(&mut allocator, &mut cluster);
    assert_eq!((published(&cluster, 2), published(&cluster, 3)), (vec![8001], vec![8002]));
    let refused = clash(&cluster.store, "web-4", &[range(8000, 8002)]).unwrap();
    assert_eq!((refused.port, refused.owner.as_str()), (8000, "web-1"));
    assert_eq!(clash(&cluster.store, "web-4", &[range(8000, 8003)]), None);
    // What was given stays while it is in the range.
    cluster.delete(Key::Service(ServiceId::from_bits(1)));
    allocate(&mut allocator, &mut cluster);
    assert_eq!(published(&cluster, 2), [8001]);
}

#[test]
fn services_that_ask_at_the_same_time_get_different_ports() {
    let mut cluster = Cluster::default();
    for number in 1..=3 {
        cluster.put(publishing(number, vec![port(0)]));
    }
    allocate(&mut Allocator::default(), &mut cluster);
    let numbers: Vec<u32> = (1..=3).flat_map(|number| published(&cluster, number)).collect();
    assert_eq!(numbers, [30_000, 30_001, 30_002]);
}

#[test]
fn a_port_that_leaves_host_mode_gets_a_number() {
    let mut allocator = Allocator::default();
    let mut cluster = Cluster::default();
    cluster.put(publishing(1, vec![host_port(0)]));
    allocate(&mut allocator, &mut cluster);
    assert_eq!(published(&cluster, 1), [0]);
    let mut web = (**cluster.store.service(ServiceId::from_bits(1)).unwrap()).clone();
    spec_of(&mut web).ports = vec![port(0)];
    cluster.put(web);
    allocate(&mut allocator, &mut cluster);
    assert_eq!(published(&cluster, 1), [30_000]);
}

#[test]
fn a_port_belongs_to_one_service_by_number_protocol_and_address() {
    let at = |host_ip: &str, published| PortSpec { host_ip: host_ip.to_owned(), ..port(published) };
    let udp = |published| PortSpec { protocol: PortProtocol::Udp.into(), ..port(published) };
    let mut cluster = Cluster::default();
    cluster.put(publishing(1, vec![port(80), at("10.0.0.1", 81), host_port(82)]));
    for (name, wanted, taken) in [
        ("web-2", port(80), true),
        ("web-2", at("10.0.0.9", 80), true),
        ("web-2", host_port(80), true),
        ("web-2", udp(80), false),
        ("web-2", port(79), false),
        ("web-2", at("10.0.0.1", 81), true),
        ("web-2", at("0.0.0.0", 81), true),
        ("web-2", at("10.0.0.2", 81), false),
        ("web-2", port(82), true),
        ("web-2", host_port(82), false),
        ("web-2", port(0), false),
        ("web-1", port(80), false),
    ] {
        let clash = clash(&cluster.store, name, std::slice::from_ref(&wanted));
        let owner = clash.map(|clash| (clash.port, clash.owner));
        let expected = taken.then(|| (wanted.published_port, "web-1".to_owned()));
        assert_eq!(owner, expected, "{name}: {wanted:?}");
    }
}
