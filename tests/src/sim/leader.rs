//! What a manager does when it leads, and what it hears of its raft: one step at a time, where the
//! real one's tasks do it side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use shoal_core::assignment::Assignments;
use shoal_core::context::Context;
use shoal_core::control::Control;
use shoal_core::liveness::{Liveness, Turn};
use shoal_core::managers::{self, Group, Step};
use shoal_core::node::{self, Arrival};
use shoal_core::settings::Settings;
use shoal_core::store::{Change, Changes, Event as Put, Object, Store};
use shoal_manager::raft::{
    Command, Commit, Leadership, MemberChange, Members, Outgoing, ProposeError, Published,
};
use shoal_proto::NodeId;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::manager_message::Message;
use shoal_proto::v1::{
    Assignments as AssignmentsMessage, Hello, ManagerMessage, NodeState, Standing, Welcome,
};
use tokio::sync::{broadcast, oneshot};

use super::check::Checks;
use super::client::Client;
use super::manager::founding;
use super::thread::MemberThread;
use super::{HostId, World};

pub(super) type Answer<T> = oneshot::Receiver<Result<T, ProposeError>>;

/// What a proposal was made for.
pub(super) enum Purpose {
    Control,
    Reports,
    Nodes,
    Founding,
    Register(u64),
    Client(u64),
}

pub(super) struct Running {
    pub(super) member: MemberThread,
    pub(super) published: Published,
    pub(super) commits: broadcast::Receiver<Commit>,
    pub(super) outbox: Arc<Mutex<Vec<Outgoing>>>,
    pub(super) waiting: Vec<(Purpose, Answer<Commit>)>,
    pub(super) changing: Option<Answer<Members>>,
    pub(super) lead: Option<Lead>,
}

/// What a leader has in memory.
pub(super) struct Lead {
    pub(super) control: Control,
    pub(super) is_deciding: bool,
    /// Something has changed since the loops last ran.
    pub(super) is_dirty: bool,
    pub(super) wake_at: Option<SystemTime>,
    pub(super) liveness: Liveness,
    pub(super) sessions: BTreeMap<u64, Held>,
    /// Sessions that are not let in yet.
    pub(super) knocking: BTreeSet<u64>,
    /// Nodes whose part of the cluster may have changed; none: all.
    pub(super) touched: Option<BTreeSet<NodeId>>,
    pub(super) reports: Vec<Change>,
    pub(super) is_reporting: bool,
    pub(super) is_noting: bool,
    /// It is time to look at all nodes, as the real one does now and then.
    pub(super) is_due: bool,
}

/// A session with an agent.
pub(super) struct Held {
    pub(super) node: NodeId,
    pub(super) turn: Turn,
    pub(super) hello: Option<Hello>,
    pub(super) known: Option<Assignments>,
    pub(super) sequence: u64,
}

impl Running {
    pub(super) fn propose(&mut self, purpose: Purpose, changes: Vec<Change>) {
        let (reply, answer) = oneshot::channel();
        self.member.call(move |member| member.take(Command::Propose { changes, reply }));
        self.waiting.push((purpose, answer));
    }

    pub(super) fn take_commits(&mut self, host: HostId, checks: &mut Checks) {
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

    pub(super) fn take_answers(&mut self, world: &mut World, client: &mut Client) {
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
                if matches!(outcome, Err(ProposeError::TooLarge { .. })) {
                    lead.control.decide_less();
                }
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

    pub(super) fn follow_leadership(&mut self, world: &mut World) {
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
                    is_due: true,
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
    pub(super) fn act(&mut self, host: HostId, founds: bool, world: &mut World) -> bool {
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
                if lead.is_due && !lead.is_noting {
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
        let is_due = self.lead.as_mut().is_some_and(|lead| std::mem::take(&mut lead.is_due));
        (is_due && self.change_members(&store)) || acted
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
    pub(super) fn push_assignments(&mut self, world: &mut World) {
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
                    Object::Task(_)
                    | Object::Service(_)
                    | Object::Network(_)
                    | Object::Container(_) => {
                        self.touched = None;
                        break;
                    }
                    Object::Node(_)
                    | Object::Stack(_)
                    | Object::Cluster(_)
                    | Object::Payload(_) => {}
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
