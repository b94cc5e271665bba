//! The whole control plane in one process on a clock and a network of its own: the store, raft with
//! its log on disk, the control loops, the scheduler, the sessions' rules, and agents that run
//! nothing. Everything that happens follows from a seed, so that a failure can be had again.
//!
//! Messages are delayed, lost, doubled and overtake each other; hosts are cut off, crash in the
//! middle of a write and come back; clocks are off and jump. After each step [`check`] looks whether
//! what must always hold does, and when everything has healed, whether all comes to rest.

mod agent;
mod check;
mod client;
mod leader;
mod manager;
mod network;
pub mod scale;
mod thread;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU64;
use std::time::{Duration, Instant, SystemTime};

use agent::Agent;
use check::Checks;
use client::Client;
use manager::Manager;
use network::Network;
use shoal_core::context::Context;
use shoal_core::deploy;
use shoal_core::store::{Changes, Store};
use shoal_proto::NodeId;
use shoal_proto::v1::{AgentMessage, ManagerMessage, StackSpec, agent_message};

/// Virtual time since the beginning.
pub type Time = Duration;
/// A host's number, from 1. The first ones have managers.
pub type HostId = u64;

/// How long everything goes wrong.
const TROUBLE: Time = Duration::from_secs(40);
/// How long it may take then until all is at rest.
const HEALING: Time = Duration::from_secs(120);
/// Entries between two snapshots: few, so that there are many.
const SNAPSHOT_EVERY: u64 = 60;
const TICK: Time = Duration::from_millis(50);
const AGENT_TICK: Time = Duration::from_millis(100);

/// The same numbers for the same seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn millis(&mut self, from: u64, to: u64) -> Time {
        Duration::from_millis(from + self.below(to - from))
    }

    fn bits(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// What happens at a time.
#[derive(Debug)]
enum Event {
    /// Raft's clock on a host.
    Tick(HostId),
    /// A raft message arrives.
    Raft { to: HostId, bytes: Vec<u8>, snapshot_of: Option<(HostId, u64)> },
    /// A message of a session arrives at its manager.
    Up { session: u64, message: Box<AgentMessage> },
    /// A message of a session arrives at its agent.
    Down { session: u64, message: ManagerMessage },
    /// An agent looks at its tasks and its session.
    Agent(HostId),
    /// Something goes wrong, or stops to.
    Fault,
    /// The client does something.
    Client,
}

/// A stream between an agent and a manager: in order, until one end gives it up.
#[derive(Debug)]
struct Session {
    agent: HostId,
    manager: HostId,
    /// Nothing may arrive before what was sent before it.
    last_up: Time,
    last_down: Time,
}

/// Everything that can be.
struct World {
    rng: Rng,
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, Event>,
    number: u64,
    network: Network,
    sessions: BTreeMap<u64, Session>,
    /// How far each host's clock is off.
    skew: BTreeMap<HostId, i64>,
    /// Where each member of the raft group is.
    hosts_of_members: BTreeMap<u64, HostId>,
}

impl World {
    fn at(&mut self, time: Time, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((time, self.number)));
        self.events.insert(self.number, event);
    }

    fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    /// What a host's clock shows.
    fn clock(&self, host: HostId) -> SystemTime {
        let skew = self.skew.get(&host).copied().unwrap_or(0);
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.now;
        match u64::try_from(skew) {
            Ok(ahead) => base + Duration::from_millis(ahead),
            Err(_) => base - Duration::from_millis(skew.unsigned_abs()),
        }
    }

    fn send_up(&mut self, id: u64, message: AgentMessage) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (from, to, last) = (session.agent, session.manager, session.last_up);
        let Some(delay) = self.network.stream(&mut self.rng, from, to) else {
            // What is lost of a stream breaks it.
            self.sessions.remove(&id);
            return;
        };
        let time = (self.now + delay).max(last);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.last_up = time;
        }
        self.at(time, Event::Up { session: id, message: Box::new(message) });
    }

    fn send_down(&mut self, id: u64, message: ManagerMessage) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (from, to, last) = (session.manager, session.agent, session.last_down);
        let Some(delay) = self.network.stream(&mut self.rng, from, to) else {
            // What is lost of a stream breaks it.
            self.sessions.remove(&id);
            return;
        };
        let time = (self.now + delay).max(last);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.last_down = time;
        }
        self.at(time, Event::Down { session: id, message });
    }
}

/// The node on a host.
fn node_id(host: HostId) -> NodeId {
    NodeId::from_bits(u128::from(host))
}

/// One run.
struct Sim {
    world: World,
    managers: BTreeMap<HostId, Manager>,
    agents: BTreeMap<HostId, Agent>,
    client: Client,
    checks: Checks,
    /// Work of this process for the managers.
    manager_work: Duration,
}

/// Runs one seed. Panics when something does not hold that must.
pub fn run(seed: u64) {
    Sim::new(seed).run();
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let managers = [1, 3, 3, 5][rng.below(4) as usize];
        let workers = 2 + rng.below(3);
        let mut sim = Self::of(rng, managers, workers, SNAPSHOT_EVERY);
        sim.world.after(Duration::from_secs(3), Event::Client);
        sim.world.after(Duration::from_secs(4), Event::Fault);
        sim
    }

    fn of(mut rng: Rng, managers: HostId, workers: u64, snapshot_every: u64) -> Self {
        let network = Network::new(&mut rng);
        let world = World {
            rng,
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            number: 0,
            network,
            sessions: BTreeMap::new(),
            skew: BTreeMap::new(),
            hosts_of_members: BTreeMap::from([(1, 1)]),
        };
        let mut sim = Self {
            world,
            managers: (1..=managers)
                .map(|host| (host, Manager::new(host, snapshot_every)))
                .collect(),
            agents: (1..=managers + workers).map(|host| (host, Agent::new(host))).collect(),
            client: Client::default(),
            checks: Checks::default(),
            manager_work: Duration::ZERO,
        };
        for host in sim.agents.keys().copied().collect::<Vec<_>>() {
            let skew = sim.world.rng.below(4000) as i64 - 2000;
            sim.world.skew.insert(host, skew);
            let delay = sim.world.rng.millis(0, 100);
            sim.world.after(delay, Event::Agent(host));
        }
        for host in sim.managers.keys().copied().collect::<Vec<_>>() {
            let delay = sim.world.rng.millis(0, 50);
            sim.world.after(delay, Event::Tick(host));
        }
        let first = *sim.managers.keys().next().unwrap();
        let mut rng = sim.world.rng.clone();
        sim.managers.get_mut(&first).unwrap().found(&mut rng);
        sim.world.rng = rng;
        sim
    }

    /// So many managers and agents, and nothing goes wrong.
    fn large(managers: u64, agents: u64) -> Self {
        let mut sim = Self::of(Rng(1), managers, agents - managers, 10_000);
        sim.checks.off = true;
        sim.world.network.heal();
        for agent in sim.agents.values_mut() {
            agent.stop_failing();
        }
        let all: Vec<HostId> = sim.agents.keys().copied().collect();
        // The first is there when its cluster is.
        let hosts = &all[1..];
        while sim.leader_store().is_none_or(|store| store.cluster().is_none()) {
            sim.next();
        }
        let mut changes = Changes::default();
        let mut random = || 0;
        let context = Context { now: sim.world.clock(1), random: &mut random };
        for host in hosts {
            let raft_id = (*host <= managers).then(|| NonZeroU64::new(*host).unwrap());
            changes.create(&context, manager::joined(*host, raft_id));
        }
        sim.managers.get_mut(&1).unwrap().propose(0, changes.into_vec());
        sim
    }

    /// What the leader has; none when nobody leads.
    fn leader_store(&self) -> Option<Store> {
        let leader = self.managers.values().find(|manager| manager.is_leader())?;
        leader.published().map(|published| published.store())
    }

    fn deploy(&mut self, spec: &StackSpec) {
        let leader = self.managers.values_mut().find(|manager| manager.is_leader()).unwrap();
        let store = leader.published().unwrap().store();
        let mut changes = Changes::default();
        let mut random = || self.world.rng.bits();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut context = Context { now, random: &mut random };
        deploy::deploy_stack(&store, spec.clone(), &mut context, &mut changes).unwrap();
        leader.propose(0, changes.into_vec());
    }

    /// What comes next, without a look at what it has done.
    fn next(&mut self) {
        let Reverse((time, number)) = self.world.queue.pop().unwrap();
        self.world.now = time;
        let event = self.world.events.remove(&number).unwrap();
        self.handle(event, true);
    }

    fn run(&mut self) {
        let mut is_healing = false;
        while let Some(Reverse((time, number))) = self.world.queue.pop() {
            self.world.now = time;
            if !is_healing && time >= TROUBLE {
                is_healing = true;
                self.heal();
            }
            let event = self.world.events.remove(&number).unwrap();
            self.handle(event, is_healing);
            self.check();
            if is_healing && self.is_at_rest() {
                return;
            }
            assert!(time < TROUBLE + HEALING, "it does not come to rest: {}", self.describe());
        }
    }

    fn handle(&mut self, event: Event, is_healing: bool) {
        let is_manager = !matches!(event, Event::Agent(_) | Event::Down { .. });
        let begun = Instant::now();
        self.carry_out(event, is_healing);
        if is_manager {
            self.manager_work += begun.elapsed();
        }
    }

    fn carry_out(&mut self, event: Event, is_healing: bool) {
        match event {
            Event::Tick(host) => {
                self.world.after(TICK, Event::Tick(host));
                if let Some(manager) = self.managers.get_mut(&host) {
                    manager.tick(&mut self.world);
                }
                self.settle(host);
            }
            Event::Raft { to, bytes, snapshot_of } => {
                let arrived = match self.managers.get_mut(&to) {
                    Some(manager) => manager.step(bytes),
                    None => false,
                };
                if let Some((from, member)) = snapshot_of
                    && let Some(sender) = self.managers.get_mut(&from)
                {
                    sender.sent_snapshot(member, arrived);
                }
                self.settle(to);
            }
            Event::Up { session, message } => {
                let Some(to) = self.world.sessions.get(&session).map(|one| one.manager) else {
                    return;
                };
                let agent = self.world.sessions[&session].agent;
                let is_heartbeat =
                    matches!(message.message, Some(agent_message::Message::Heartbeat(_)));
                if let Some(manager) = self.managers.get_mut(&to) {
                    manager.hear(&mut self.world, session, agent, *message);
                }
                if !is_heartbeat {
                    self.settle(to);
                }
            }
            Event::Down { session, message } => {
                let Some(to) = self.world.sessions.get(&session).map(|one| one.agent) else {
                    return;
                };
                if let Some(agent) = self.agents.get_mut(&to) {
                    agent.hear(&mut self.world, session, message);
                }
            }
            Event::Agent(host) => {
                self.world.after(AGENT_TICK, Event::Agent(host));
                self.follow_role(host);
                let managers: Vec<HostId> = self.managers.keys().copied().collect();
                if let Some(agent) = self.agents.get_mut(&host) {
                    agent.tick(&mut self.world, &managers);
                }
            }
            Event::Fault if is_healing => {}
            Event::Fault => {
                self.fault();
                let delay = self.world.rng.millis(300, 4000);
                self.world.after(delay, Event::Fault);
            }
            Event::Client if is_healing => {}
            Event::Client => {
                self.client.act(&mut self.world, &mut self.managers);
                let delay = self.world.rng.millis(50, 600);
                self.world.after(delay, Event::Client);
            }
        }
    }

    /// What an agent does on its leader's word: becomes a manager, also when the joining was not
    /// acknowledged, or stops being one.
    fn follow_role(&mut self, host: HostId) {
        let Some(manager) = self.managers.get(&host) else { return };
        let leads = |one: &&Manager| one.is_leader() && self.world.network.reaches(one.host, host);
        let leader = self.managers.values().find(leads).and_then(Manager::published);
        let Some(node) = leader.and_then(|one| one.store().node(node_id(host)).cloned()) else {
            return;
        };
        let (own, wanted) = (manager.raft_id, node.raft_id.map(NonZeroU64::get));
        if own == wanted || !self.agents[&host].is_up() {
            return;
        }
        let Some(manager) = self.managers.get_mut(&host) else { return };
        if own.is_some() {
            manager.leave(&mut self.world);
        }
        if let Some(raft_id) = wanted {
            self.world.hosts_of_members.insert(raft_id, host);
            manager.join(&mut self.world, raft_id);
        }
    }

    /// Does what follows on a manager from what it has just heard.
    fn settle(&mut self, host: HostId) {
        let Some(manager) = self.managers.get_mut(&host) else { return };
        manager.settle(&mut self.world, &mut self.client, &mut self.checks);
    }

    fn fault(&mut self) {
        let hosts: Vec<HostId> = self.agents.keys().copied().collect();
        let any = |rng: &mut Rng| hosts[rng.below(hosts.len() as u64) as usize];
        match self.world.rng.below(10) {
            0..=2 => {
                let host = any(&mut self.world.rng);
                let cut = self.world.rng.chance(60);
                self.world.network.cut(host, cut);
            }
            3 => self.world.network.join_all(),
            4 | 5 => {
                let managers: Vec<HostId> = self.managers.keys().copied().collect();
                let host = managers[self.world.rng.below(managers.len() as u64) as usize];
                let manager = self.managers.get_mut(&host).unwrap();
                if manager.is_up() {
                    manager.crash(&mut self.world);
                } else {
                    manager.start(&mut self.world);
                }
            }
            6 => {
                let host = any(&mut self.world.rng);
                let agent = self.agents.get_mut(&host).unwrap();
                let goes_down = agent.is_up();
                agent.set_up(&mut self.world, !goes_down);
            }
            7 => {
                let host = any(&mut self.world.rng);
                let jump = self.world.rng.below(60_000) as i64 - 30_000;
                *self.world.skew.entry(host).or_default() += jump;
            }
            8 => {
                // Where a reboot ends the containers too.
                let host = any(&mut self.world.rng);
                let agent = self.agents.get_mut(&host).unwrap();
                agent.reboot(&mut self.world);
            }
            _ => {
                let loss = self.world.rng.below(20);
                self.world.network.set_loss(loss);
            }
        }
    }

    fn heal(&mut self) {
        self.world.network.heal();
        for manager in self.managers.values_mut() {
            manager.calm();
            if !manager.is_up() {
                manager.start(&mut self.world);
            }
        }
        for agent in self.agents.values_mut() {
            agent.set_up(&mut self.world, true);
            agent.stop_failing();
        }
    }

    fn check(&mut self) {
        self.checks.leaders(&self.managers);
        self.checks.containers(&self.agents);
    }

    /// All managers know the same, all that was acknowledged is there, and what runs is what is
    /// wanted.
    fn is_at_rest(&self) -> bool {
        let Some(store) = check::common_store(&self.managers) else { return false };
        if check::unrest(&store, &self.agents).is_some() {
            return false;
        }
        self.client.check_acknowledged(&store);
        true
    }

    fn describe(&self) -> String {
        let managers = self.managers.values().map(Manager::describe);
        let agents = self.agents.values().map(Agent::describe);
        let all: Vec<String> = managers.chain(agents).collect();
        let why = match check::common_store(&self.managers) {
            None => "the managers don't agree".to_owned(),
            Some(store) => check::unrest(&store, &self.agents).unwrap_or_default(),
        };
        format!("{why}\n{}", all.join("\n"))
    }
}
