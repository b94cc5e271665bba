//! A manager on a host: raft as it is, and around it what the real one's tasks do, one step at a
//! time. What is here follows `shoal_manager`'s leader, dispatcher and membership.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use shoal_core::context::Context;
use shoal_core::store::{Change, Changes, Cluster, Meta, Node};
use shoal_manager::raft::{
    Begin, Command, DataKey, Leadership, Member, Outgoing, Published, RaftConfig,
};
use shoal_proto::v1::manager_message::Message;
use shoal_proto::v1::{
    AgentMessage, ClusterState, HeartbeatAck, ManagerMessage, NodeRole, NodeSpec, NodeState,
    Redirect, agent_message,
};

use super::check::Checks;
use super::client::Client;
use super::leader::{Held, Purpose, Running};
use super::thread::MemberThread;
use super::{Event, HostId, Rng, World, node_id};

pub(super) struct Manager {
    pub(super) host: HostId,
    /// None before it has joined.
    pub(super) raft_id: Option<u64>,
    dir: tempfile::TempDir,
    running: Option<Running>,
    founds: bool,
    /// It crashes in the middle of what it does next.
    crashes: bool,
    seed: u64,
    snapshot_every: u64,
}

impl Manager {
    pub(super) fn new(host: HostId, snapshot_every: u64) -> Self {
        let shm = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        builder.prefix("shoal-sim-");
        let dir = if shm.is_dir() { builder.tempdir_in(shm) } else { builder.tempdir() };
        Self {
            host,
            raft_id: None,
            dir: dir.unwrap(),
            running: None,
            founds: false,
            crashes: false,
            seed: host,
            snapshot_every,
        }
    }

    /// The first of the cluster.
    pub(super) fn found(&mut self, rng: &mut Rng) {
        self.raft_id = Some(1);
        self.founds = true;
        self.open(rng, Begin::Found);
    }

    pub(super) fn join(&mut self, world: &mut World, raft_id: u64) {
        self.raft_id = Some(raft_id);
        self.start(world);
    }

    /// It is a manager no more: nothing is left of its log.
    pub(super) fn leave(&mut self, world: &mut World) {
        self.running = None;
        self.raft_id = None;
        self.founds = false;
        self.crashes = false;
        let host = self.host;
        world.sessions.retain(|_, session| session.manager != host);
        for folder in ["log", "snapshots"] {
            // Missing in one that had not begun.
            let _ = std::fs::remove_dir_all(self.dir.path().join(folder));
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn published(&self) -> Option<&Published> {
        self.running.as_ref().map(|running| &running.published)
    }

    pub(super) fn is_leader(&self) -> bool {
        let leadership = self.published().map(Published::leadership);
        matches!(leadership, Some(Leadership::Leader { .. }))
    }

    /// It does not crash any more.
    pub(super) fn calm(&mut self) {
        self.crashes = false;
    }

    pub(super) fn start(&mut self, world: &mut World) {
        if self.raft_id.is_some() && self.running.is_none() {
            let begin = if self.founds { Begin::Found } else { Begin::Join };
            let mut rng = world.rng.clone();
            self.open(&mut rng, begin);
            world.rng = rng;
        }
    }

    fn open(&mut self, rng: &mut Rng, begin: Begin) {
        self.seed = rng.next();
        let mut random = Rng(self.seed);
        let key = DataKey::from_bytes([7; 32]);
        let config = RaftConfig {
            raft_id: self.raft_id.unwrap(),
            snapshot_every: self.snapshot_every,
            begin,
            ..RaftConfig::new(self.dir.path().to_owned(), key)
        };
        let outbox: Arc<Mutex<Vec<Outgoing>>> = Arc::default();
        let box_end = Arc::clone(&outbox);
        let send = Box::new(move |message| box_end.lock().unwrap().push(message));
        let opened = MemberThread::open(config, send, Box::new(move || random.bits()));
        let (member, published) =
            opened.unwrap_or_else(|error| panic!("host {}: {error}", self.host));
        let (_, commits) = published.subscribe();
        self.running = Some(Running {
            member,
            published,
            commits,
            outbox,
            waiting: Vec::new(),
            changing: None,
            lead: None,
        });
    }

    /// In the middle of whatever it does next.
    pub(super) fn crash(&mut self, world: &mut World) {
        self.crashes = true;
        let host = self.host;
        world.sessions.retain(|_, session| session.manager != host);
    }

    pub(super) fn tick(&mut self, world: &mut World) {
        let now = world.now;
        let Some(running) = &mut self.running else { return };
        running.member.call(Member::tick);
        let store = running.published.store();
        if let Some(lead) = &mut running.lead {
            let ready = store.nodes().filter(|node| node.status.state() == NodeState::Ready);
            lead.liveness.adopt(ready.map(|node| node.id), now);
            let (liveness, sessions) = (&lead.liveness, &world.sessions);
            lead.sessions.retain(|id, held| {
                liveness.is_current(held.node, held.turn) && sessions.contains_key(id)
            });
            let clock = world.clock(self.host);
            lead.is_due = true;
            lead.is_dirty |= lead.wake_at.is_some_and(|at| at <= clock);
        }
    }

    /// False when nobody is there to hear it.
    pub(super) fn step(&mut self, bytes: Vec<u8>) -> bool {
        let Some(running) = &mut self.running else { return false };
        running.member.call(move |member| member.take(Command::Step { bytes }));
        true
    }

    pub(super) fn sent_snapshot(&mut self, to: u64, arrived: bool) {
        if let Some(running) = &mut self.running {
            running.member.call(move |member| member.take(Command::SentSnapshot { to, arrived }));
        }
    }

    /// Makes a change for a client; its outcome is told with that number.
    pub(super) fn propose(&mut self, number: u64, changes: Vec<Change>) {
        if let Some(running) = &mut self.running {
            running.propose(Purpose::Client(number), changes);
        }
    }

    pub(super) fn hear(
        &mut self,
        world: &mut World,
        session: u64,
        agent: HostId,
        message: AgentMessage,
    ) {
        let Some(running) = &mut self.running else { return };
        let now = world.now;
        let leader = running.published.status().leader;
        let store = running.published.store();
        let Some(lead) = &mut running.lead else {
            if matches!(message.message, Some(agent_message::Message::Hello(_))) {
                let node = store.nodes().find(|node| is_member(node, leader));
                let address = node.map(|node| node.status.address.clone()).unwrap_or_default();
                if !address.is_empty() {
                    let message = Some(Message::Redirect(Redirect { address }));
                    world.send_down(session, ManagerMessage { message });
                }
            }
            return;
        };
        match message.message {
            Some(agent_message::Message::Hello(hello)) => {
                let node = node_id(agent);
                if store.node(node).is_none() {
                    return;
                }
                let turn = lead.liveness.begin(node, now);
                let held = Held { node, turn, hello: Some(hello), known: None, sequence: 0 };
                lead.sessions.insert(session, held);
                lead.knocking.insert(session);
            }
            Some(agent_message::Message::Heartbeat(beat)) => {
                let Some(held) = lead.sessions.get(&session) else { return };
                if held.known.is_some() && lead.liveness.heard(held.node, held.turn, now) {
                    let number = beat.number;
                    let message = Some(Message::HeartbeatAck(HeartbeatAck { number }));
                    world.send_down(session, ManagerMessage { message });
                }
            }
            Some(agent_message::Message::Inventory(_)) => {}
            Some(agent_message::Message::Status(update)) => {
                let Some(held) = lead.sessions.get(&session) else { return };
                if !lead.liveness.heard(held.node, held.turn, now) {
                    return;
                }
                for update in update.updates {
                    let (Ok(task), Some(status)) = (update.task_id.parse(), update.status) else {
                        continue;
                    };
                    if store.task(task).is_some_and(|task| task.node == Some(held.node)) {
                        lead.reports.push(Change::Report { task, status });
                    }
                }
            }
            Some(agent_message::Message::Ack(_)) | None => {}
        }
    }

    /// Everything that follows, until nothing does.
    pub(super) fn settle(&mut self, world: &mut World, client: &mut Client, checks: &mut Checks) {
        if self.crashes {
            self.crashes = false;
            return self.tear(world);
        }
        let host = self.host;
        let founds = self.founds;
        let Some(running) = &mut self.running else { return };
        for _ in 0..50 {
            let settled = running.member.call(Member::settle);
            settled.unwrap_or_else(|error| panic!("host {host}: {error}"));
            running.member.call(|member| member.let_snapshot_finish());
            running.take_commits(host, checks);
            running.take_answers(world, client);
            running.follow_leadership(world);
            if !running.act(host, founds, world) {
                break;
            }
        }
        running.push_assignments(world);
        self.send(world);
    }

    fn send(&mut self, world: &mut World) {
        let Some(running) = &mut self.running else { return };
        let messages: Vec<Outgoing> = std::mem::take(&mut *running.outbox.lock().unwrap());
        for message in messages {
            let to = world.hosts_of_members.get(&message.to).copied();
            let copies = match to {
                Some(to) => world.network.datagram(&mut world.rng, self.host, to),
                None => Vec::new(),
            };
            if copies.is_empty() && message.is_snapshot {
                running.member.call(move |member| {
                    member.take(Command::SentSnapshot { to: message.to, arrived: false })
                });
            }
            let snapshot_of = message.is_snapshot.then_some((self.host, message.to));
            for delay in copies {
                let bytes = message.bytes.clone();
                let to = to.unwrap_or_default();
                world.after(delay, Event::Raft { to, bytes, snapshot_of });
            }
        }
    }

    /// The host goes down while it writes: what was sent of it is lost, and what was written of the
    /// log's last record is a part of it.
    fn tear(&mut self, world: &mut World) {
        let Some(running) = self.running.take() else { return };
        let before = files(self.dir.path());
        let settled = running.member.call(Member::settle);
        settled.unwrap_or_else(|error| panic!("host {}: {error}", self.host));
        running.member.call(|member| member.let_snapshot_finish());
        drop(running);
        let after = files(self.dir.path());
        // With a snapshot or a new file in between, the last write is not a record's alone.
        let same =
            before.len() == after.len() && before.keys().all(|path| after.contains_key(path));
        let logs = after.iter().filter(|(path, _)| path.to_string_lossy().ends_with(".raftlog"));
        let Some((path, length)) = logs.max_by_key(|(path, _)| (*path).clone()) else { return };
        let old = before.get(path).copied().unwrap_or(0);
        if same && old > 0 && *length > old {
            let left = old + world.rng.below(length - old + 1);
            std::fs::File::options().write(true).open(path).unwrap().set_len(left).unwrap();
        }
    }

    pub(super) fn describe(&self) -> String {
        let Some(running) = &self.running else {
            return format!("manager {} down", self.host);
        };
        let status = running.published.status();
        let store = running.published.store();
        let members = running.published.members();
        let tasks: Vec<String> = store
            .tasks()
            .map(|task| {
                let node = task.node.map(|node| node.bits());
                let (state, desired) = (task.state(), task.desired);
                let name = &task.service_name;
                let why = &task.status.error;
                format!(
                    "{name}.{} {state}/{desired} on {node:?} {why} {} {}",
                    task.slot, task.waiting_for, task.stop_reason
                )
            })
            .collect();
        let nodes: Vec<String> = store
            .nodes()
            .map(|node| format!("{} {}", node.spec.name, node.status.state()))
            .collect();
        let leads = running.lead.is_some();
        format!("manager {} leads={leads} {status:?} {members:?} {nodes:?} {tasks:#?}", self.host)
    }
}

fn is_member(node: &Node, raft_id: u64) -> bool {
    node.raft_id.is_some_and(|id| id.get() == raft_id)
}

/// The files of raft's folder, with their sizes.
fn files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for folder in ["log", "snapshots"] {
        for entry in std::fs::read_dir(dir.join(folder)).into_iter().flatten().flatten() {
            found.insert(entry.path(), entry.metadata().map_or(0, |metadata| metadata.len()));
        }
    }
    found
}

/// What the first leader writes first.
pub(super) fn founding(host: HostId, context: &Context<'_>) -> Vec<Change> {
    let mut changes = Changes::default();
    let state = ClusterState { id: "sim".to_owned(), ..ClusterState::default() };
    changes.create(context, Cluster { meta: Meta::default(), state });
    changes.create(context, joined(host, NonZeroU64::new(1)));
    changes.into_vec()
}

/// A node that has just joined.
pub(super) fn joined(host: HostId, raft_id: Option<NonZeroU64>) -> Node {
    let mut spec = NodeSpec { name: format!("node-{host}"), ..NodeSpec::default() };
    if raft_id.is_some() {
        spec.set_role(NodeRole::Manager);
    }
    let mut node = Node {
        id: node_id(host),
        meta: Meta::default(),
        spec,
        description: Default::default(),
        status: Default::default(),
        raft_id,
    };
    node.status.set_state(NodeState::Down);
    node.status.address = format!("host-{host}");
    node
}
