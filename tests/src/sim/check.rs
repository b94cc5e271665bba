//! What must always hold, and what must hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

use prost::Message as _;
use shoal_core::managers;
use shoal_core::orchestrator::counts;
use shoal_core::store::{Event, Key, Object, Store, Task};
use shoal_manager::raft::{Commit, Leadership, Members};
use shoal_proto::v1::{self, NodeAvailability, NodeState, PublishMode, TaskState, UpdateState};

use super::agent::Agent;
use super::client::Kind;
use super::manager::Manager;
use super::{HostId, node_id};

#[derive(Default)]
pub(super) struct Checks {
    /// Who led each term.
    leaders: BTreeMap<u64, HostId>,
    /// What each entry did, as the first manager that applied it has it.
    entries: BTreeMap<u64, u64>,
    /// The newest entry that was looked at.
    newest: u64,
    /// Nothing is looked at.
    pub(super) off: bool,
}

impl Checks {
    /// One leader a term.
    pub(super) fn leaders(&mut self, managers: &BTreeMap<HostId, Manager>) {
        for manager in managers.values() {
            let Some(published) = manager.published() else { continue };
            if let Leadership::Leader { term } = published.leadership() {
                let leader = *self.leaders.entry(term).or_insert(manager.host);
                assert_eq!(leader, manager.host, "two leaders in term {term}");
            }
        }
    }

    /// All managers apply the same; each state holds what states must.
    pub(super) fn commit(&mut self, host: HostId, commit: &Commit) {
        if commit.whole || self.off {
            return;
        }
        let mut hasher = DefaultHasher::new();
        for event in commit.events.iter() {
            match event {
                Event::Put { new, .. } => {
                    hasher.write(&v1::Object::from(new).encode_to_vec());
                }
                Event::Deleted(old) => hasher.write(format!("-{}", old.key()).as_bytes()),
            }
        }
        let hash = hasher.finish();
        let first = *self.entries.entry(commit.index).or_insert(hash);
        assert_eq!(first, hash, "host {host} has another entry {}", commit.index);
        if commit.index > self.newest {
            self.newest = commit.index;
            for event in commit.events.iter() {
                rises(event);
            }
            slots(&commit.store);
            room(&commit.store);
            addresses(&commit.store);
        }
    }

    /// No slot of a service that is fenced has two containers, whatever anyone believes.
    pub(super) fn containers(&self, agents: &BTreeMap<HostId, Agent>) {
        let mut seen: BTreeMap<(String, u64), HostId> = BTreeMap::new();
        for agent in agents.values() {
            for running in agent.tasks.values().filter(|running| running.runs) {
                let task = &running.task;
                if !task.spec.as_ref().is_some_and(|spec| spec.fenced) {
                    continue;
                }
                let slot = (task.service_id.clone(), task.slot);
                let other = seen.insert(slot, agent.host);
                assert!(
                    other.is_none(),
                    "{}.{} is fenced and runs twice: on {other:?} and {}",
                    task.service_name,
                    task.slot,
                    agent.host
                );
            }
        }
    }
}

/// A task's state never goes down.
fn rises(event: &Event) {
    if let Event::Put { old: Some(Object::Task(old)), new: Object::Task(new) } = event {
        assert!(
            new.state() >= old.state(),
            "task {} goes from {} to {}",
            new.id,
            old.state(),
            new.state()
        );
    }
}

/// No slot has two tasks that are to run, unless one is on a node that is down or the service's tasks
/// may overlap.
fn slots(store: &Store) {
    let mut seen = BTreeMap::new();
    for task in store.tasks() {
        let wanted = task.desired == TaskState::Running && !task.state().is_terminal();
        let overlaps = Kind::of(&task.service_name) == Kind::StartFirst;
        if wanted && !overlaps && !store.is_lost(task) {
            let other = seen.insert((task.service, task.slot), task.id);
            assert!(other.is_none(), "{}.{}: two wanted tasks", task.service_name, task.slot);
        }
    }
}

/// Nobody is promised what a node does not have, nor a host's port twice. Of a slot that changes
/// hands, old and new task take turns.
fn room(store: &Store) {
    for node in store.nodes().filter(|node| node.status.state() == NodeState::Ready) {
        let Some(total) = node.description.resources else { continue };
        let holding: Vec<&std::sync::Arc<Task>> =
            store.node_tasks(node.id).filter(|task| task.holds_resources()).collect();
        let mut by_slot: BTreeMap<_, (i64, i64)> = BTreeMap::new();
        let mut ports: BTreeMap<u32, BTreeSet<_>> = BTreeMap::new();
        for task in holding {
            let slot = (task.service, task.slot);
            let reserved = task.spec.reservations.unwrap_or_default();
            let most = by_slot.entry(slot).or_default();
            most.0 = most.0.max(reserved.nano_cpus);
            most.1 = most.1.max(reserved.memory_bytes);
            for port in task.ports.iter().filter(|port| port.mode() == PublishMode::Host) {
                ports.entry(port.published_port).or_default().insert(slot);
            }
        }
        let cpus: i64 = by_slot.values().map(|(cpus, _)| cpus).sum();
        let memory: i64 = by_slot.values().map(|(_, memory)| memory).sum();
        assert!(cpus <= total.nano_cpus, "{} has {cpus} promised", node.spec.name);
        assert!(memory <= total.memory_bytes, "{} has {memory} bytes promised", node.spec.name);
        for (port, slots) in ports.iter().filter(|(port, _)| **port != 0) {
            assert!(slots.len() == 1, "{}: port {port} is given to {slots:?}", node.spec.name);
        }
    }
}

/// No address is given twice.
fn addresses(store: &Store) {
    let mut seen: BTreeMap<_, Key> = BTreeMap::new();
    let mut give = |network, address, holder: Key| {
        let other = seen.insert((network, address), holder);
        assert!(other.is_none(), "{address} is given to {other:?} and {holder}");
    };
    for task in store.tasks().filter(|task| task.holds_resources()) {
        for attachment in &task.networks {
            give(attachment.network, attachment.address.addr(), Key::Task(task.id));
        }
    }
    for service in store.services() {
        for vip in &service.vips {
            give(vip.network, vip.address, Key::Service(service.id));
        }
    }
}

/// What all managers have applied, when it is the same, somebody leads, and those that are to be
/// managers are.
pub(super) fn common_store(managers: &BTreeMap<HostId, Manager>) -> Option<Store> {
    let members = managers.values().filter(|manager| manager.raft_id.is_some());
    let published: Option<Vec<_>> = members.map(Manager::published).collect();
    let published = published?;
    let store = published.first()?.store();
    let applied = store.version();
    let same = published.iter().all(|one| one.store().version() == applied);
    let leads = published.iter().any(|one| matches!(one.leadership(), Leadership::Leader { .. }));
    let wanted = managers::wanted(&store);
    let group = Members { voters: wanted.clone(), learners: BTreeSet::new() };
    let whole = published.iter().all(|one| one.members() == group);
    (same && leads && whole && wanted.len() == published.len()).then_some(store)
}

/// What is not as it should be: every node is there, every service has what it can have, and agents
/// run exactly what is wanted of them.
pub(super) fn unrest(store: &Store, agents: &BTreeMap<HostId, Agent>) -> Option<String> {
    for agent in agents.values() {
        let node = store.node(node_id(agent.host))?;
        if node.status.state() != NodeState::Ready {
            return Some(format!("{} is {}", node.spec.name, node.status.state()));
        }
        let runs: BTreeSet<String> = agent
            .tasks
            .values()
            .filter(|running| running.runs)
            .map(|running| running.task.id.clone())
            .collect();
        let wanted: BTreeSet<String> = store
            .node_tasks(node.id)
            .filter(|task| task.is_live() && task.state() == TaskState::Running)
            .map(|task| task.id.to_string())
            .collect();
        if runs != wanted {
            return Some(format!("{} runs {runs:?} and not {wanted:?}", node.spec.name));
        }
    }
    if let Some(stack) = store.stacks().find(|stack| stack.removing) {
        return Some(format!("{} is not gone", stack.spec.name));
    }
    store.services().find_map(|service| {
        let name = &service.spec.name;
        if service.removing {
            return Some(format!("{name} is not gone"));
        }
        let tasks: Vec<_> = store.service_tasks(service.id).collect();
        let up =
            |task: &&&std::sync::Arc<Task>| task.is_live() && task.state() == TaskState::Running;
        // A node that is paused keeps its task of a global service, and gets no other.
        let is_kept = |task: &Task| {
            let node = task.only_node.and_then(|node| store.node(node));
            node.is_some_and(|node| node.spec.availability() == NodeAvailability::Pause)
        };
        let current = tasks
            .iter()
            .filter(up)
            .filter(|task| task.spec_version == service.spec_version || is_kept(task));
        let (up, current) = (tasks.iter().filter(up).count() as u64, current.count() as u64);
        // What finds no place says why, and keeps what runs.
        let held = tasks
            .iter()
            .any(|task| task.is_live() && task.node.is_none() && !task.status.error.is_empty());
        let counts = counts(store, service);
        match Kind::of(name) {
            // One of a run that is going on or not.
            Kind::Scheduled => return None,
            Kind::Job | Kind::GlobalJob => {
                let is_over = counts.completed >= counts.completions;
                let words = || format!("{name}: {} of {}", counts.completed, counts.completions);
                return (!is_over && !held).then(words);
            }
            Kind::Replicated | Kind::StartFirst | Kind::Global => {}
        }
        let update = service.update.state();
        let is_paused = matches!(update, UpdateState::Paused | UpdateState::RollbackPaused);
        let is_full = up == counts.desired && (current == up || is_paused);
        let goes_on = matches!(update, UpdateState::Updating | UpdateState::RollingBack);
        ((!is_full || goes_on) && !held).then(|| {
            format!("{name} has {up} of {}, {current} of them current, {update}", counts.desired)
        })
    })
}
