//! What a node is told, and that it then knows what it should.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_proto::v1::assignment_change::Change;
use shoal_proto::v1::{self, AssignmentChange, PortSpec, PublishMode, TaskState};
use shoal_proto::{ContainerId, NetworkId, NodeId, TaskId};

use super::{Assignments, concerns};
use crate::store::{self, Attachment, Container, Key, Meta, Object, Service, Task};
use crate::testing::{
    Cluster, Lcg, attached, network, placed, port, service, spec_of, task, task_spec_of,
};

const HERE: NodeId = NodeId::from_bits(1);

/// What an agent knows by what it was told. Statuses are its own affair.
#[derive(Debug, Default, PartialEq)]
struct Agent {
    tasks: BTreeMap<String, v1::Task>,
    networks: BTreeMap<String, v1::Network>,
    endpoints: BTreeMap<String, v1::ServiceEndpoints>,
    payloads: BTreeMap<String, v1::Payload>,
    peers: BTreeMap<String, v1::Peer>,
    containers: BTreeMap<String, v1::Container>,
}

impl Agent {
    fn take(&mut self, changes: Vec<AssignmentChange>) {
        for change in changes {
            match change.change.expect("no change is empty") {
                Change::Task(mut task) => {
                    task.status = None;
                    self.tasks.insert(task.id.clone(), task);
                }
                Change::Network(network) => {
                    self.networks.insert(network.id.clone(), network);
                }
                Change::Endpoints(endpoints) => {
                    self.endpoints.insert(endpoints.service_id.clone(), endpoints);
                }
                Change::Payload(payload) => {
                    self.payloads.insert(payload.id.clone(), payload);
                }
                Change::Peer(peer) => {
                    self.peers.insert(peer.node_id.clone(), peer);
                }
                Change::Container(container) => {
                    self.containers.insert(container.id.clone(), container);
                }
                Change::RemoveContainer(id) => assert!(self.containers.remove(&id).is_some()),
                Change::RemovePeer(id) => assert!(self.peers.remove(&id).is_some()),
                Change::RemovePayload(id) => assert!(self.payloads.remove(&id).is_some()),
                Change::RemoveTask(id) => assert!(self.tasks.remove(&id).is_some()),
                Change::RemoveNetwork(id) => assert!(self.networks.remove(&id).is_some()),
                Change::RemoveEndpoints(id) => assert!(self.endpoints.remove(&id).is_some()),
            }
        }
    }
}

fn place_in_order(change: &AssignmentChange) -> u8 {
    match change.change.as_ref().expect("no change is empty") {
        Change::Peer(_) => 0,
        Change::Network(_) => 1,
        Change::Endpoints(_) => 2,
        Change::Container(_) => 3,
        Change::Payload(_) => 4,
        Change::Task(_) => 5,
        Change::RemoveTask(_) => 6,
        Change::RemoveContainer(_) => 7,
        Change::RemovePayload(_) => 8,
        Change::RemoveEndpoints(_) => 9,
        Change::RemoveNetwork(_) => 10,
        Change::RemovePeer(_) => 11,
    }
}

/// Service `number` on network `net`, open on every node or not.
fn reachable(number: u128, net: u128, open: bool) -> Service {
    let mut service = service(number, &format!("service-{number}"), 1);
    task_spec_of(&mut service).networks = vec![attached(&network(net, "", ""))];
    service.ports = if open { vec![port(8000 + number as u32)] } else { Vec::new() };
    service
}

/// A task of that service with an address on its network.
fn at_work(number: u128, service: &Service, net: u128, node: u128, state: TaskState) -> Task {
    let address = format!("10.9.{net}.{number}/24").parse().unwrap();
    let network = NetworkId::from_bits(net);
    let networks = vec![Attachment { network, address, aliases: Vec::new() }];
    Task { networks, ..placed(task(number, service, number as u64), node, state) }
}

/// A single container on the network; its addresses are apart from those of tasks.
fn container(number: u128, net: u128, node: u128) -> Container {
    let address = format!("10.9.{net}.{}/24", 100 + number).parse().unwrap();
    let network = NetworkId::from_bits(net);
    Container {
        id: ContainerId::from_bits(number),
        meta: Meta::default(),
        node: NodeId::from_bits(node),
        names: vec![format!("c{number}")],
        networks: vec![Attachment { network, address, aliases: Vec::new() }],
        running: true,
    }
}

#[test]
fn a_node_is_told_of_single_containers_on_the_networks_that_it_has() {
    let mut cluster = Cluster::default();
    for (number, name) in [(1, "near"), (2, "far")] {
        cluster.put(network(number, name, ""));
    }
    cluster.put(container(1, 1, 1));
    cluster.put(container(2, 1, 2));
    cluster.put(container(3, 2, 2));
    let told = |node: u128| {
        let mut agent = Agent::default();
        agent.take(Assignments::of(&cluster.store, NodeId::from_bits(node)).all());
        let names = agent.containers.into_values().map(|one| one.names[0].clone());
        (agent.networks.len(), names.collect::<Vec<_>>())
    };
    assert_eq!(told(1), (1, vec!["c1".to_owned(), "c2".to_owned()]));
    assert_eq!(told(2), (2, ["c1", "c2", "c3"].map(str::to_owned).to_vec()));
    assert_eq!(told(3), (0, vec![]));
}

/// Names of the networks and services that the node is told of, and the number of its tasks.
fn told(cluster: &Cluster, node: u128) -> (Vec<String>, Vec<String>, usize) {
    let mut agent = Agent::default();
    agent.take(Assignments::of(&cluster.store, NodeId::from_bits(node)).all());
    let networks = agent.networks.into_values().map(|network| network.spec.unwrap().name);
    let endpoints = agent.endpoints.into_values().map(|endpoints| endpoints.name);
    (networks.collect(), endpoints.collect(), agent.tasks.len())
}

#[test]
fn a_node_is_told_of_what_its_tasks_can_reach_and_of_open_ports() {
    let mut cluster = Cluster::default();
    for (number, name) in [(1, "near"), (2, "far"), (3, "front")] {
        cluster.put(network(number, name, ""));
    }
    let near = reachable(1, 1, false);
    let beside = reachable(2, 1, false);
    let far = reachable(3, 2, false);
    let open = reachable(4, 3, true);
    cluster.put(at_work(1, &near, 1, 1, TaskState::Preparing));
    cluster.put(at_work(2, &beside, 1, 2, TaskState::Running));
    cluster.put(at_work(3, &far, 2, 2, TaskState::Running));
    for service in [near, beside, far, open] {
        cluster.put(service);
    }
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let services = |numbers: &[u8]| {
        numbers.iter().map(|number| format!("service-{number}")).collect::<Vec<_>>()
    };
    assert_eq!(told(&cluster, 1), (names(&["near", "front"]), services(&[1, 2, 4]), 1));
    assert_eq!(told(&cluster, 2), (names(&["near", "far", "front"]), services(&[1, 2, 3, 4]), 2));
    assert_eq!(told(&cluster, 3), (names(&["front"]), services(&[4]), 0));

    // What has ended needs no network, but the node must still know of it.
    cluster.report(TaskId::from_bits(1), TaskState::Failed);
    assert_eq!(told(&cluster, 1), (names(&["front"]), services(&[4]), 1));
}

#[test]
fn a_port_open_on_one_node_is_no_other_nodes_affair() {
    let mut cluster = Cluster::default();
    let mut web = reachable(1, 1, true);
    web.ports = vec![PortSpec { mode: PublishMode::Host.into(), ..port(8080) }];
    cluster.put(network(1, "net", ""));
    cluster.put(web);
    assert_eq!(told(&cluster, 1), (vec![], vec![], 0));
}

#[test]
fn an_endpoint_is_a_running_task_that_nobody_has_asked_to_stop() {
    use TaskState::{Complete, Failed, Remove, Running, Shutdown, Starting};
    for (state, desired, endpoints) in [
        (Starting, Running, 0),
        (Running, Running, 1),
        (Running, Shutdown, 0),
        (Running, Remove, 0),
        (Complete, Running, 0),
        (Failed, Running, 0),
    ] {
        let mut cluster = Cluster::default();
        let web = reachable(1, 1, true);
        cluster.put(Task { desired, ..at_work(1, &web, 1, 2, state) });
        cluster.put(web);
        let mut agent = Agent::default();
        agent.take(Assignments::of(&cluster.store, HERE).all());
        let count: usize = agent.endpoints.values().map(|service| service.endpoints.len()).sum();
        assert_eq!(count, endpoints, "{state}, wanted {desired}");
    }
}

#[test]
fn a_node_hears_of_what_is_wanted_and_no_echo_of_its_own_reports() {
    let mut cluster = Cluster::default();
    let web = reachable(1, 1, false);
    cluster.put(network(1, "net", ""));
    cluster.put(at_work(1, &web, 1, 1, TaskState::Assigned));
    let known = Assignments::of(&cluster.store, HERE);
    let events = cluster.report(TaskId::from_bits(1), TaskState::Preparing);
    assert!(!events.iter().any(|event| concerns(event, HERE)));
    assert!(Assignments::of(&cluster.store, HERE).since(&known).is_empty());

    let events = cluster.put(Task { desired: TaskState::Shutdown, ..cluster.task(1).clone() });
    assert!(events.iter().any(|event| concerns(event, HERE)));
    let told = Assignments::of(&cluster.store, HERE).since(&known);
    let desired = told.iter().map(|change| match &change.change {
        Some(Change::Task(task)) => task.desired_state(),
        _ => TaskState::New,
    });
    assert_eq!(desired.collect::<Vec<_>>(), [TaskState::Shutdown]);
}

#[test]
fn a_task_that_leaves_is_held_back_until_it_may_stop() {
    let mut cluster = Cluster::default();
    let web = reachable(1, 1, false);
    cluster.put(network(1, "net", ""));
    cluster.put(at_work(1, &web, 1, 1, TaskState::Running));
    cluster.put(at_work(2, &web, 1, 1, TaskState::Starting));
    cluster.put(web);
    let known = Assignments::of(&cluster.store, HERE);
    for number in [1, 2] {
        cluster.put(Task { desired: TaskState::Shutdown, ..cluster.task(number).clone() });
    }
    let mut now = Assignments::of(&cluster.store, HERE);
    let leaving: Vec<TaskId> = now.leaving(&known).into_iter().collect();
    assert_eq!(leaving, [TaskId::from_bits(1)], "the other took no connections");
    now.hold_back(&known, &leaving);
    let told = |now: &Assignments, known: &Assignments| {
        let mut agent = Agent::default();
        agent.take(known.all());
        agent.take(now.since(known));
        let endpoints = agent.endpoints.values().map(|one| one.endpoints.len()).sum::<usize>();
        let wanted = agent.tasks.values().map(v1::Task::desired_state);
        (endpoints, wanted.collect::<Vec<_>>())
    };
    assert_eq!(told(&now, &known), (0, vec![TaskState::Running, TaskState::Shutdown]));
    // Then it is told.
    let next = Assignments::of(&cluster.store, HERE);
    assert_eq!(next.leaving(&now).len(), 1);
    assert_eq!(told(&next, &now), (0, vec![TaskState::Shutdown, TaskState::Shutdown]));
}

/// Changes one thing of a small cluster; some changes are refused.
fn any_change(cluster: &Cluster, random: &mut Lcg) -> store::Change {
    use TaskState::{Complete, Failed, Ready, Running, Shutdown, Starting};
    let number = u128::from(random.below(12)) + 1;
    let net = number % 2 + 1;
    let web = reachable(number % 3 + 1, net, random.below(3) == 0);
    let key = Key::Task(TaskId::from_bits(number));
    let known = cluster.store.task(TaskId::from_bits(number));
    let object: Object = match (random.below(14), known) {
        (12, _) => container(number, net, u128::from(random.below(2)) + 1).into(),
        (13, _) => {
            let key = Key::Container(ContainerId::from_bits(number));
            return store::Change::Delete { expected: cluster.version_of(key), key };
        }
        (0, _) => {
            let mut network = network(net, &format!("net-{net}"), "");
            Arc::make_mut(&mut network.spec).internal = random.below(2) == 0;
            network.into()
        }
        (1, _) => web.into(),
        (2, _) => {
            let key = Key::Service(web.id);
            return store::Change::Delete { expected: cluster.version_of(key), key };
        }
        (3, Some(_)) => return store::Change::Delete { expected: cluster.version_of(key), key },
        (4, Some(task)) => Task { desired: Shutdown, ..(**task).clone() }.into(),
        (_, Some(task)) => {
            let state = [Starting, Running, Running, Complete, Failed][random.below(5) as usize];
            let status = v1::TaskStatus { state: state.into(), ..v1::TaskStatus::default() };
            return store::Change::Report { task: task.id, status };
        }
        (_, None) => {
            let state = [Ready, Running][random.below(2) as usize];
            at_work(number, &web, net, u128::from(random.below(2)) + 1, state).into()
        }
    };
    store::Change::Put { expected: cluster.version_of(object.key()), object }
}

#[test]
fn increments_make_of_the_old_set_the_full_one() {
    let mut told = 0;
    for seed in 0..30 {
        let mut random = Lcg(seed);
        let mut cluster = Cluster::default();
        let mut known = Assignments::default();
        let mut agent = Agent::default();
        for step in 0..120 {
            let change = any_change(&cluster, &mut random);
            let index = cluster.store.version() + 1;
            let Ok(events) = cluster.store.apply(index, vec![change]) else { continue };
            let now = Assignments::of(&cluster.store, HERE);
            let increment = now.since(&known);
            let case = format!("seed {seed}, step {step}: {events:?} made {increment:?}");
            let concerned = events.iter().any(|event| concerns(event, HERE));
            assert!(concerned || increment.is_empty(), "{case}");
            assert!(increment.is_sorted_by_key(place_in_order), "{case}");
            told += increment.len();
            agent.take(increment);
            let mut fresh = Agent::default();
            fresh.take(now.all());
            assert_eq!(agent, fresh, "{case}");
            known = now;
        }
    }
    assert!(told > 300, "the changes hardly ever reach the node: {told}");
}

#[test]
fn a_services_aliases_and_names_go_with_its_endpoints() {
    let mut cluster = Cluster::default();
    let mut web = reachable(1, 1, true);
    web.short_name = "web".into();
    task_spec_of(&mut web).networks[0].aliases = vec!["www".to_owned()];
    spec_of(&mut web).name = "app_web".to_owned();
    cluster.put(web);
    let mut agent = Agent::default();
    agent.take(Assignments::of(&cluster.store, HERE).all());
    let told = agent.endpoints.into_values().next().expect("its port is open here");
    assert_eq!((told.name.as_str(), told.short_name.as_str()), ("app_web", "web"));
    assert_eq!(told.networks[0].aliases, ["www"]);
}
