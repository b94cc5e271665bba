//! An agent that runs nothing: it follows the sessions' rules, keeps what agents keep on disk, and
//! its tasks go from state to state in a time of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_proto::v1::assignment_change::Change;
use shoal_proto::v1::manager_message::Message;
use shoal_proto::v1::{
    AgentMessage, Heartbeat, Hello, ManagerMessage, NodeDescription, Resources, StatusUpdate, Task,
    TaskState, TaskStatus, TaskStatusUpdate, agent_message,
};

use super::{HostId, Session, Time, World, node_id};

const HEARTBEAT: Time = Duration::from_secs(1);
/// Without an acknowledgement for so long, a session is given up.
const SILENCE: Time = Duration::from_millis(2500);
const RETRY: Time = Duration::from_millis(300);

/// What runs of a task, and what its agent knows of it.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) task: Task,
    pub(super) state: TaskState,
    /// A container is there.
    pub(super) runs: bool,
    next_at: Time,
}

pub(super) struct Agent {
    pub(super) host: HostId,
    up: bool,
    pub(super) tasks: BTreeMap<String, Running>,
    session: Option<u64>,
    is_welcome: bool,
    next_try: Time,
    next_heartbeat: Time,
    number: u64,
    sent: BTreeMap<u64, Time>,
    heard: Time,
    lease: Option<Time>,
    lease_length: Time,
    /// Where it has been sent.
    redirect: Option<HostId>,
    /// Reported states that the manager of this session has not been told.
    unsent: BTreeMap<String, TaskState>,
    may_fail: bool,
}

/// Its program ends by itself.
fn is_job(task: &Task) -> bool {
    let container = task.spec.as_ref().and_then(|spec| spec.container.as_ref());
    container.is_some_and(|container| container.image.starts_with("job:"))
}

impl Agent {
    pub(super) fn new(host: HostId) -> Self {
        Self {
            host,
            up: true,
            tasks: BTreeMap::new(),
            session: None,
            is_welcome: false,
            next_try: Time::ZERO,
            next_heartbeat: Time::ZERO,
            number: 0,
            sent: BTreeMap::new(),
            heard: Time::ZERO,
            lease: None,
            lease_length: Duration::from_secs(10),
            redirect: None,
            unsent: BTreeMap::new(),
            may_fail: true,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn set_up(&mut self, world: &mut World, up: bool) {
        if self.up && !up {
            self.drop_session(world);
        }
        self.up = up;
    }

    /// The host restarts: its containers are gone, what is on disk is not.
    pub(super) fn reboot(&mut self, world: &mut World) {
        self.drop_session(world);
        self.up = true;
        self.lease = None;
        for running in self.tasks.values_mut() {
            running.runs = false;
        }
    }

    pub(super) fn stop_failing(&mut self) {
        self.may_fail = false;
    }

    fn drop_session(&mut self, world: &mut World) {
        if let Some(session) = self.session.take() {
            world.sessions.remove(&session);
        }
        self.is_welcome = false;
    }

    pub(super) fn tick(&mut self, world: &mut World, managers: &[HostId]) {
        self.keep_leases(world.now);
        if !self.up {
            return;
        }
        self.advance(world);
        match self.session {
            None if world.now >= self.next_try => self.connect(world, managers),
            None => {}
            Some(_) if world.now > self.heard + SILENCE => {
                self.drop_session(world);
                self.next_try = world.now + RETRY;
            }
            Some(session) => {
                if world.now >= self.next_heartbeat {
                    self.next_heartbeat = world.now + HEARTBEAT;
                    self.number += 1;
                    self.sent.insert(self.number, world.now);
                    let beat = Heartbeat { number: self.number };
                    world.send_up(session, up(agent_message::Message::Heartbeat(beat)));
                }
                self.report(world, session);
            }
        }
    }

    /// What the shims do, with or without an agent.
    fn keep_leases(&mut self, now: Time) {
        if self.lease.is_some_and(|lease| lease > now) {
            return;
        }
        for running in self.tasks.values_mut() {
            if running.task.spec.as_ref().is_some_and(|spec| spec.fenced) {
                running.runs = false;
            }
        }
    }

    fn connect(&mut self, world: &mut World, managers: &[HostId]) {
        let any = managers[world.rng.below(managers.len() as u64) as usize];
        let manager = self.redirect.take().unwrap_or(any);
        self.next_try = world.now + RETRY;
        if !world.network.reaches(self.host, manager) {
            return;
        }
        world.number += 1;
        let id = world.number;
        let session =
            Session { agent: self.host, manager, last_up: world.now, last_down: world.now };
        world.sessions.insert(id, session);
        self.session = Some(id);
        self.is_welcome = false;
        self.heard = world.now;
        self.next_heartbeat = world.now;
        self.sent.clear();
        let resources = Resources { nano_cpus: 4_000_000_000, memory_bytes: 4 << 30, pids: 0 };
        let hello = Hello {
            node_name: format!("node-{}", self.host),
            advertise_address: format!("host-{}", self.host),
            description: Some(NodeDescription {
                resources: Some(resources),
                ..NodeDescription::default()
            }),
            protocol: shoal_proto::PROTOCOL,
        };
        world.send_up(id, up(agent_message::Message::Hello(hello)));
        self.unsent = self.tasks.iter().map(|(id, one)| (id.clone(), one.state)).collect();
    }

    pub(super) fn hear(&mut self, world: &mut World, session: u64, message: ManagerMessage) {
        if !self.up || self.session != Some(session) {
            return;
        }
        match message.message {
            Some(Message::Welcome(welcome)) => {
                self.is_welcome = true;
                self.heard = world.now;
                if let Some(lease) = welcome.standing.and_then(|standing| standing.lease) {
                    self.lease_length = shoal_proto::time::std_duration(&lease);
                }
            }
            Some(Message::Assignments(assignments)) => {
                let mut gone: Vec<String> = Vec::new();
                if assignments.full {
                    gone.extend(self.tasks.keys().cloned());
                }
                for change in assignments.changes.into_iter().filter_map(|change| change.change) {
                    match change {
                        Change::Task(task) => {
                            gone.retain(|id| *id != task.id);
                            self.assign(world, task);
                        }
                        Change::RemoveTask(id) => gone.push(id),
                        _ => {}
                    }
                }
                // Stopped at once, and forgotten.
                for id in gone {
                    self.tasks.remove(&id);
                    self.unsent.remove(&id);
                }
            }
            Some(Message::HeartbeatAck(ack)) => {
                self.heard = world.now;
                if let Some(at) = self.sent.get(&ack.number).copied() {
                    self.lease = Some(at + self.lease_length);
                    self.sent = self.sent.split_off(&(ack.number + 1));
                }
            }
            Some(Message::Redirect(redirect)) => {
                self.drop_session(world);
                self.redirect = redirect.address.strip_prefix("host-").and_then(|n| n.parse().ok());
                self.next_try = world.now + Duration::from_millis(20);
            }
            _ => {}
        }
    }

    fn assign(&mut self, world: &mut World, task: Task) {
        let next_at = world.now + world.rng.millis(10, 800);
        match self.tasks.get_mut(&task.id) {
            Some(running) => running.task = task,
            None => {
                let state = TaskState::New;
                let one = Running { task, state, runs: false, next_at };
                self.tasks.insert(one.task.id.clone(), one);
            }
        }
    }

    /// Each task takes its next step when its time has come.
    fn advance(&mut self, world: &mut World) {
        let has_lease = self.lease.is_some_and(|lease| lease > world.now);
        for (id, running) in &mut self.tasks {
            if running.state.is_terminal() || world.now < running.next_at {
                continue;
            }
            let desired = running.task.desired_state();
            let fenced = running.task.spec.as_ref().is_some_and(|spec| spec.fenced);
            let next = match running.state {
                _ if desired > TaskState::Running => TaskState::Shutdown,
                TaskState::Starting | TaskState::Running if !running.runs => TaskState::Failed,
                TaskState::Running if self.may_fail && world.rng.chance(1) => TaskState::Failed,
                TaskState::Running if is_job(&running.task) && world.rng.chance(20) => {
                    TaskState::Complete
                }
                TaskState::Running => continue,
                TaskState::Preparing if self.may_fail && world.rng.chance(3) => TaskState::Rejected,
                TaskState::Ready if desired < TaskState::Running => continue,
                TaskState::Ready if fenced && !has_lease => continue,
                TaskState::Ready => TaskState::Starting,
                TaskState::Starting => TaskState::Running,
                TaskState::Preparing => TaskState::Ready,
                TaskState::Accepted => TaskState::Preparing,
                _ => TaskState::Accepted,
            };
            running.runs = matches!(next, TaskState::Starting | TaskState::Running);
            running.state = next;
            running.next_at = world.now + world.rng.millis(10, 500);
            self.unsent.insert(id.clone(), next);
        }
    }

    fn report(&mut self, world: &mut World, session: u64) {
        if !self.is_welcome || self.unsent.is_empty() {
            return;
        }
        let updates = std::mem::take(&mut self.unsent).into_iter().map(|(task_id, state)| {
            let status = TaskStatus { state: state.into(), ..TaskStatus::default() };
            TaskStatusUpdate { task_id, status: Some(status) }
        });
        let update = StatusUpdate { updates: updates.collect() };
        world.send_up(session, up(agent_message::Message::Status(update)));
    }

    pub(super) fn describe(&self) -> String {
        let tasks: Vec<String> = self
            .tasks
            .values()
            .map(|one| {
                let Running { task, state, runs, .. } = one;
                let desired = task.desired_state();
                format!("{}.{} {state}/{desired} runs={runs}", task.service_name, task.slot)
            })
            .collect();
        let node = node_id(self.host);
        format!("agent {} ({node}) up={} session={:?} {tasks:?}", self.host, self.up, self.session)
    }
}

fn up(message: agent_message::Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}
