//! A manager on a host: raft as it is, and around it what the real one's tasks do, one step at a
//! time. What is here follows `shoal_manager`'s leader, dispatcher and membership.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use shoal_core::assignment::Assignments;
use shoal_core::context::Context;
use shoal_core::control::Control;
use shoal_core::liveness::{Liveness, Turn};
use shoal_core::managers::{self, Group, Step};
use shoal_core::node::{self, Arrival};
use shoal_core::settings::Settings;
use shoal_core::store::{Change, Changes, Cluster, Event as Put, Meta, Node, Object, Store};
use shoal_manager::raft::{
    Begin, Command, Commit, DataKey, Leadership, Member, MemberChange, Members, Outgoing,
    ProposeError, Published, RaftConfig,
};
use shoal_proto::NodeId;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::manager_message::Message;
use shoal_proto::v1::{
    AgentMessage, Assignments as AssignmentsMessage, ClusterState, HeartbeatAck, Hello,
    ManagerMessage, NodeRole, NodeSpec, NodeState, Redirect, Standing, Welcome, agent_message,
};
use tokio::sync::{broadcast, oneshot};

use super::check::Checks;
use super::client::Client;
use super::thread::MemberThread;
use super::{Event, HostId, Rng, World, node_id};

/// Entries between two snapshots: few, so that there are many.
const SNAPSHOT_EVERY: u64 = 60;

type Answer<T> = oneshot::Receiver<Result<T, ProposeError>>;

/// What a proposal was made for.
enum Purpose {
    Control,
    Reports,
    Nodes,
    Founding,
    Register(u64),
    Client(u64),
}

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
}

struct Running {
    member: MemberThread,
    published: Published,
    commits: broadcast::Receiver<Commit>,
    outbox: Arc<Mutex<Vec<Outgoing>>>,
    waiting: Vec<(Purpose, Answer<Commit>)>,
    changing: Option<Answer<Members>>,
    lead: Option<Lead>,
}

/// What a leader has in memory.
struct Lead {
    control: Control,
    is_deciding: bool,
    /// Something has changed since the loops last ran.
    is_dirty: bool,
    wake_at: Option<SystemTime>,
    liveness: Liveness,
    sessions: BTreeMap<u64, Held>,
    /// Sessions that are not let in yet.
    knocking: BTreeSet<u64>,
    /// Nodes whose part of the cluster may have changed; none: all.
    touched: Option<BTreeSet<NodeId>>,
    reports: Vec<Change>,
    is_reporting: bool,
    is_noting: bool,
}

/// A session with an agent.
struct Held {
    node: NodeId,
    turn: Turn,
    hello: Option<Hello>,
    known: Option<Assignments>,
    sequence: u64,
}

impl Manager {
    pub(super) fn new(host: HostId) -> Self {
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
            snapshot_every: SNAPSHOT_EVERY,
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
                    "{name}.{} {state}/{desired} on {node:?} {why} {}",
                    task.slot, task.waiting_for
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

impl Running {
    fn propose(&mut self, purpose: Purpose, changes: Vec<Change>) {
        let (reply, answer) = oneshot::channel();
        self.member.call(move |member| member.take(Command::Propose { changes, reply }));
        self.waiting.push((purpose, answer));
    }

    fn take_commits(&mut self, host: HostId, checks: &mut Checks) {
        loop {
            match self.commits.try_recv() {
                Ok(commit) => {
                    checks.commit(host, &commit);
                    if let Some(lead) = &mut self.lead {
                        lead.is_dirty = true;
                        lead.touch(&commit);
                        match commit.whole {
                            true => lead.control.resync(&commit.store),
                            false => lead.control.observe(&commit.store, &commit.events),
                        }
                    }
                }
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    if let Some(lead) = &mut self.lead {
                        lead.is_dirty = true;
                        lead.touched = None;
                        lead.control.resync(&self.published.store());
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn take_answers(&mut self, world: &mut World, client: &mut Client) {
        let mut left = Vec::new();
        for (purpose, mut answer) in std::mem::take(&mut self.waiting) {
            match answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => left.push((purpose, answer)),
                Err(oneshot::error::TryRecvError::Closed) => {}
                Ok(outcome) => self.answered(purpose, outcome, world, client),
            }
        }
        self.waiting.extend(left);
        if let Some(changing) = &mut self.changing
            && !matches!(changing.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        {
            self.changing = None;
        }
    }

    fn answered(
        &mut self,
        purpose: Purpose,
        outcome: Result<Commit, ProposeError>,
        world: &mut World,
        client: &mut Client,
    ) {
        if let Purpose::Client(number) = purpose {
            return client.answered(number, &outcome.map(|commit| commit.store));
        }
        let store = self.published.store();
        let Some(lead) = &mut self.lead else { return };
        match purpose {
            Purpose::Control => {
                lead.is_deciding = false;
                if outcome.is_err() {
                    lead.control.resync(&store);
                    lead.is_dirty = true;
                }
            }
            Purpose::Reports => lead.is_reporting = false,
            Purpose::Nodes | Purpose::Founding => lead.is_noting = false,
            Purpose::Register(session) => {
                let Some(held) = lead.sessions.get_mut(&session) else { return };
                if outcome.is_ok() {
                    lead.liveness.welcome(held.node, held.turn);
                    welcome(world, session, held, &store);
                    lead.knocking.remove(&session);
                }
                // Else the hello is still there, and is tried again.
            }
            Purpose::Client(_) => {}
        }
    }

    fn follow_leadership(&mut self, world: &mut World) {
        let leads = matches!(self.published.leadership(), Leadership::Leader { .. });
        match (&self.lead, leads) {
            (None, true) => {
                let store = self.published.store();
                let mut liveness = Liveness::default();
                let ready = store.nodes().filter(|node| node.status.state() == NodeState::Ready);
                liveness.take_over(ready.map(|node| node.id), world.now);
                self.lead = Some(Lead {
                    control: Control::new(&store),
                    is_deciding: false,
                    is_dirty: true,
                    wake_at: None,
                    liveness,
                    sessions: BTreeMap::new(),
                    knocking: BTreeSet::new(),
                    touched: Some(BTreeSet::new()),
                    reports: Vec::new(),
                    is_reporting: false,
                    is_noting: false,
                });
            }
            (Some(lead), false) => {
                for session in lead.sessions.keys() {
                    world.sessions.remove(session);
                }
                self.lead = None;
                self.changing = None;
            }
            _ => {}
        }
    }

    /// What a leader does; true when there is something to settle.
    fn act(&mut self, host: HostId, founds: bool, world: &mut World) -> bool {
        let store = self.published.store();
        let now = world.clock(host);
        let uptime = world.now;
        let mut rng = world.rng.clone();
        let mut acted = false;
        let mut proposals: Vec<(Purpose, Vec<Change>)> = Vec::new();
        if let Some(lead) = &mut self.lead {
            let mut random = || rng.bits();
            let mut context = Context { now, random: &mut random };
            if store.cluster().is_none() {
                if founds && !lead.is_noting {
                    lead.is_noting = true;
                    proposals.push((Purpose::Founding, founding(host, &context)));
                }
            } else {
                if lead.is_dirty && !lead.is_deciding {
                    lead.is_dirty = false;
                    let pass = lead.control.run(&store, uptime, &mut context);
                    lead.wake_at = pass.wake_at;
                    if !pass.changes.is_empty() {
                        lead.is_deciding = true;
                        proposals.push((Purpose::Control, pass.changes));
                    }
                }
                if !lead.reports.is_empty() && !lead.is_reporting {
                    lead.is_reporting = true;
                    proposals.push((Purpose::Reports, std::mem::take(&mut lead.reports)));
                }
                if !lead.is_noting {
                    let patience = Settings::of(&store).node_down_after;
                    let silent = lead.liveness.take_silent(patience, uptime);
                    let mut changes = Changes::default();
                    let known = silent.iter().filter_map(|id| store.node(*id));
                    for old in known.filter(|node| node.status.state() == NodeState::Ready) {
                        changes.update(&context, node::lost(old, now));
                    }
                    let down = store.nodes().filter(|node| {
                        node.status.state() == NodeState::Down && lead.liveness.is_welcome(node.id)
                    });
                    for old in down {
                        changes.update(&context, node::revived(old, now));
                    }
                    let members = self.published.members();
                    let all = members.voters.union(&members.learners).copied().collect();
                    if changes.is_empty() {
                        node::let_go(&store, &all, &context, &mut changes);
                    }
                    if !changes.is_empty() {
                        lead.is_noting = true;
                        proposals.push((Purpose::Nodes, changes.into_vec()));
                    }
                }
                for id in lead.knocking.iter().copied().collect::<Vec<_>>() {
                    let Some(held) = lead.sessions.get_mut(&id) else {
                        lead.knocking.remove(&id);
                        continue;
                    };
                    let is_registering = self
                        .waiting
                        .iter()
                        .any(|(purpose, _)| matches!(purpose, Purpose::Register(of) if *of == id));
                    let Some(hello) = held.hello.as_ref().filter(|_| !is_registering) else {
                        continue;
                    };
                    let Some(old) = store.node(held.node) else { continue };
                    let arrival = Arrival {
                        name: hello.node_name.clone(),
                        address: hello.advertise_address.clone(),
                        description: hello.description.clone().unwrap_or_default(),
                    };
                    let new = node::arrived(&store, old, &arrival, now);
                    if **old == new {
                        lead.liveness.welcome(held.node, held.turn);
                        welcome(world, id, held, &store);
                        lead.knocking.remove(&id);
                        acted = true;
                    } else {
                        let mut changes = Changes::default();
                        changes.update(&context, new);
                        proposals.push((Purpose::Register(id), changes.into_vec()));
                    }
                }
            }
        }
        // Only what was drawn here: nothing else has used it meanwhile.
        world.rng = rng;
        acted |= !proposals.is_empty();
        for (purpose, changes) in proposals {
            self.propose(purpose, changes);
        }
        self.change_members(&store) || acted
    }

    fn change_members(&mut self, store: &Store) -> bool {
        if self.lead.is_none() || self.changing.is_some() || store.cluster().is_none() {
            return false;
        }
        let wanted = managers::wanted(store);
        let members = self.published.members();
        let all_in = wanted.iter().all(|id| members.voters.contains(id));
        if all_in && members.voters.len() == wanted.len() && members.learners.is_empty() {
            return false;
        }
        let (reply, mut answer) = oneshot::channel();
        self.member.call(move |member| member.take(Command::CaughtUp { reply }));
        let Ok(Ok(caught_up)) = answer.try_recv() else { return false };
        let group = Group {
            voters: members.voters,
            learners: members.learners,
            caught_up,
            leader: self.published.status().id,
        };
        let change = match managers::next_step(&group, &wanted) {
            None => return false,
            Some(Step::Learner(id)) => MemberChange::Learner(id),
            Some(Step::Voter(id)) => MemberChange::Voter(id),
            Some(Step::Remove(id)) => MemberChange::Remove(id),
            Some(Step::HandOver(to)) => {
                self.member.call(move |member| member.take(Command::Transfer { to }));
                return false;
            }
        };
        let (reply, answer) = oneshot::channel();
        self.member.call(move |member| member.take(Command::ChangeMembers { change, reply }));
        self.changing = Some(answer);
        true
    }

    /// Increments for the sessions of nodes that may have something new.
    fn push_assignments(&mut self, world: &mut World) {
        let store = self.published.store();
        let Some(lead) = &mut self.lead else { return };
        let touched = lead.touched.replace(BTreeSet::new());
        if touched.as_ref().is_some_and(BTreeSet::is_empty) {
            return;
        }
        for (id, held) in &mut lead.sessions {
            let Some(known) = &held.known else { continue };
            if touched.as_ref().is_some_and(|touched| !touched.contains(&held.node)) {
                continue;
            }
            let next = Assignments::of(&store, held.node);
            let changes = next.since(known);
            held.known = Some(next);
            if !changes.is_empty() {
                held.sequence += 1;
                let sequence = held.sequence;
                let increment = AssignmentsMessage { full: false, sequence, changes };
                let message = Some(Message::Assignments(increment));
                world.send_down(*id, ManagerMessage { message });
            }
        }
    }
}

impl Lead {
    /// As `shoal_core::assignment::concerns` has it, for all nodes at once.
    fn touch(&mut self, commit: &Commit) {
        for event in commit.events.iter() {
            let Some(touched) = &mut self.touched else { return };
            let (old, new) = match event {
                Put::Put { old, new } => (old.as_ref(), Some(new)),
                Put::Deleted(old) => (Some(old), None),
            };
            for object in old.into_iter().chain(new) {
                match object {
                    // Where networks and services are, their endpoints change for everyone there.
                    Object::Task(task) if task.networks.is_empty() => touched.extend(task.node),
                    Object::Task(_) | Object::Service(_) | Object::Network(_) => {
                        self.touched = None;
                        break;
                    }
                    Object::Node(_) | Object::Stack(_) | Object::Cluster(_) => {}
                }
            }
        }
        if commit.whole {
            self.touched = None;
        }
    }
}

fn welcome(world: &mut World, session: u64, held: &mut Held, store: &Store) {
    let lease = Some(proto_duration(Settings::of(store).fencing_lease));
    let welcome = Welcome {
        node_id: held.node.to_string(),
        heartbeat_period: Some(proto_duration(Duration::from_secs(1))),
        standing: Some(Standing { lease, ..Standing::default() }),
    };
    let known = Assignments::of(store, held.node);
    held.hello = None;
    held.sequence = 1;
    let full = AssignmentsMessage { full: true, sequence: 1, changes: known.all() };
    held.known = Some(known);
    for message in [Message::Welcome(welcome), Message::Assignments(full)] {
        world.send_down(session, ManagerMessage { message: Some(message) });
    }
}

/// What the first leader writes first.
fn founding(host: HostId, context: &Context<'_>) -> Vec<Change> {
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
