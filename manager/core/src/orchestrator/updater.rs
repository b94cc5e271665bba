//! How a service's tasks are brought from one spec to the next: how many slots may begin now, when
//! a replaced one counts as good, and what happens when too many fail.
//!
//! All is read from the tasks and from [`UpdateStatus`], but for how long a task has been running,
//! which the leader remembers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_proto::time::{std_duration, system_time};
use shoal_proto::v1::{
    RestartCondition, TaskState, UpdateConfig, UpdateFailureAction, UpdateOrder, UpdateState,
    UpdateStatus,
};

use super::earliest;
use super::memory::Memory;
use super::restart::{Decision, decide};
use super::slots::{Slots, Wanted};
use crate::context::Context;
use crate::revision;
use crate::store::{Changes, Service, Store, Task};

const MONITOR: Duration = Duration::from_secs(5);
const PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

/// What the slots of a service may do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Slots that may go over to the newest spec.
    pub(super) budget: usize,
    /// The new task runs before the old one stops.
    pub(super) start_first: bool,
    /// When this may be otherwise although nothing has happened.
    pub(super) wake_at: Option<SystemTime>,
}

/// What is asked of an update, with the defaults filled in.
struct Rules {
    parallelism: usize,
    /// A slot keeps its place for so long after its task has started to run.
    pace: Duration,
    monitor: Duration,
    deadline: Duration,
    max_failure_ratio: f64,
    action: UpdateFailureAction,
    start_first: bool,
}

impl Rules {
    fn of(config: Option<&UpdateConfig>) -> Self {
        let config = config.copied().unwrap_or_default();
        let or = |set: &Option<shoal_proto::ProtoDuration>, default| {
            set.as_ref().map_or(default, std_duration)
        };
        let monitor = or(&config.monitor, MONITOR);
        Self {
            parallelism: match config.parallelism {
                None => 1,
                Some(0) => usize::MAX,
                Some(bound) => usize::try_from(bound).unwrap_or(usize::MAX),
            },
            pace: monitor.max(or(&config.delay, Duration::ZERO)),
            monitor,
            deadline: or(&config.progress_deadline, PROGRESS_DEADLINE),
            max_failure_ratio: config.max_failure_ratio,
            action: config.failure_action(),
            start_first: config.order() == UpdateOrder::StartFirst,
        }
    }
}

/// Where a slot is on its way to the newest spec.
#[derive(Debug)]
enum Stage {
    /// It has no task at all yet.
    Empty,
    /// It has had none of the newest spec.
    Old,
    /// Its new task is on its way; look again then.
    Busy(SystemTime),
    /// Its new task runs well.
    Good,
    /// Its new task failed: in words.
    Failed(String),
    /// Its new task has not come to run in time: in words.
    Overdue(String),
}

/// What is known of all slots together.
#[derive(Debug, Default)]
struct Census {
    slots: usize,
    old: usize,
    busy: usize,
    empty: usize,
    /// Good for the monitor time, and not yet for the delay.
    pacing: usize,
    failed: Vec<String>,
    overdue: Vec<String>,
    wake_at: Option<SystemTime>,
}

struct Updater<'a> {
    store: &'a Store,
    service: &'a Service,
    rules: Rules,
    /// Tasks made before it are not of this update.
    began: Option<SystemTime>,
    now: SystemTime,
    is_going: bool,
}

/// Decides, and states what becomes of the service. None when it is rolled back: its spec is
/// another then.
pub(super) fn plan(
    store: &Store,
    service: &Service,
    slots: &Slots<'_>,
    wanted: &Wanted,
    memory: &mut Memory,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Option<Plan> {
    let state = service.update.state();
    let is_back = matches!(state, UpdateState::RollingBack | UpdateState::RollbackPaused);
    let config = if is_back { &service.spec.rollback } else { &service.spec.update };
    let rules = Rules::of(config.as_ref());
    let began = service.update.started_at.as_ref().map(system_time);
    let is_going = matches!(state, UpdateState::Updating | UpdateState::RollingBack);
    let updater = Updater { store, service, rules, began, now: context.now, is_going };
    if !is_going {
        memory.forget(slots.values().flatten().map(|task| task.id));
    }
    let census = updater.census(slots, wanted, memory);
    match state {
        UpdateState::None | UpdateState::Completed | UpdateState::RolledBack => {
            Some(updater.at_rest(&census, context, changes))
        }
        UpdateState::Paused | UpdateState::RollbackPaused => {
            if census.is_all_good() {
                updater.end(is_back, &census, context, changes);
            }
            Some(updater.go(0, &census))
        }
        UpdateState::Updating | UpdateState::RollingBack => {
            updater.go_on(is_back, &census, context, changes)
        }
    }
}

impl Census {
    fn is_all_good(&self) -> bool {
        self.old + self.busy + self.empty + self.failures() == 0
    }

    fn failures(&self) -> usize {
        self.failed.len() + self.overdue.len()
    }

    fn exceeds(&self, ratio: f64) -> bool {
        let failed = self.failures();
        failed > 0 && failed as f64 > ratio * self.slots as f64
    }

    fn words(&self) -> String {
        let first = self.failed.iter().chain(&self.overdue).next().map_or("", String::as_str);
        match self.failures() {
            0 | 1 => first.to_owned(),
            failed => format!("{first} ({failed} of {} tasks failed)", self.slots),
        }
    }
}

impl Updater<'_> {
    fn census(&self, slots: &Slots<'_>, wanted: &Wanted, memory: &mut Memory) -> Census {
        let mut census = Census { slots: wanted.slots.len(), ..Census::default() };
        for slot in wanted.slots.keys() {
            let tasks = slots.get(slot).map(Vec::as_slice).unwrap_or_default();
            match self.stage(tasks, memory) {
                Stage::Empty => census.empty += 1,
                Stage::Old => census.old += 1,
                Stage::Busy(until) => {
                    census.busy += 1;
                    census.wake_at = earliest(census.wake_at, Some(until));
                }
                Stage::Good => {
                    if let Some(until) = self.pacing(tasks, memory) {
                        census.pacing += 1;
                        census.wake_at = earliest(census.wake_at, Some(until));
                    }
                }
                Stage::Failed(words) => census.failed.push(words),
                Stage::Overdue(words) => census.overdue.push(words),
            }
        }
        census
    }

    fn is_current(&self, task: &Task) -> bool {
        task.spec_version == self.service.spec_version
    }

    /// Made in the course of this update.
    fn is_of_update(&self, task: &Task) -> bool {
        self.began.is_none_or(|began| system_time(&task.meta.created_at) >= began)
    }

    fn current<'t>(&self, tasks: &[&'t Arc<Task>]) -> Option<&'t Arc<Task>> {
        let live = |task: &&&Arc<Task>| {
            self.is_current(task) && task.is_live() && !self.store.is_lost(task)
        };
        tasks.iter().rfind(live).copied()
    }

    fn stage(&self, tasks: &[&Arc<Task>], memory: &mut Memory) -> Stage {
        let wanted = || tasks.iter().filter(|task| task.desired < TaskState::Remove);
        let of_update = || wanted().filter(|task| self.is_current(task) && self.is_of_update(task));
        let failed = of_update()
            .rfind(|task| matches!(task.state(), TaskState::Failed | TaskState::Rejected));
        let failure = || failed.map(|task| explain(task));
        let Some(current) = self.current(tasks) else {
            if let Some(words) = failure() {
                return Stage::Failed(words);
            }
            return match wanted().next_back() {
                None => Stage::Empty,
                // It has done what it was for.
                Some(last) if self.is_current(last) && is_done(last) => Stage::Good,
                Some(last) if self.is_current(last) && self.is_given_up(last) => {
                    Stage::Failed(explain(last))
                }
                // It ended by itself, or where it was is gone: another is made.
                Some(last) if self.is_current(last) => Stage::Busy(self.now + self.rules.deadline),
                Some(_) => Stage::Old,
            };
        };
        if current.state() == TaskState::Running {
            let ran = match self.is_going && self.is_of_update(current) {
                true => memory.running_for(current),
                false => self.rules.monitor,
            };
            if ran < self.rules.monitor {
                return failure()
                    .map_or(Stage::Busy(self.now + (self.rules.monitor - ran)), |words| {
                        Stage::Failed(words)
                    });
            }
            let has_older = tasks.iter().any(|task| {
                task.id != current.id && !task.state().is_terminal() && !self.store.is_lost(task)
            });
            return match has_older {
                true => Stage::Busy(self.now + self.rules.deadline),
                false => Stage::Good,
            };
        }
        if let Some(words) = failure() {
            return Stage::Failed(words);
        }
        // One after the other that ended soon: they have had the time together.
        let mut first = current;
        for task in of_update().rev().skip_while(|task| task.id != current.id) {
            first = task;
            if task.failures <= 1 {
                break;
            }
        }
        let created = system_time(&first.meta.created_at);
        let since = self.began.map_or(created, |began| began.max(created));
        let overdue = since + self.rules.deadline;
        if overdue > self.now {
            return Stage::Busy(overdue);
        }
        let deadline = self.rules.deadline.as_secs_f64();
        Stage::Overdue(format!("{} within {deadline} s", stuck(current)))
    }

    /// It has ended, and its slot gets no other.
    fn is_given_up(&self, last: &Task) -> bool {
        let policy = last.spec.restart.unwrap_or_default();
        last.state().is_terminal()
            && last.desired < TaskState::Shutdown
            && decide(&policy, last, self.now) == Decision::Leave
    }

    /// Until when a slot that is good keeps its place.
    fn pacing(&self, tasks: &[&Arc<Task>], memory: &mut Memory) -> Option<SystemTime> {
        let current = self.current(tasks).filter(|current| self.is_of_update(current))?;
        if !self.is_going {
            return None;
        }
        let left = self.rules.pace.checked_sub(memory.running_for(current))?;
        (!left.is_zero()).then(|| self.now + left)
    }

    fn go(&self, budget: usize, census: &Census) -> Plan {
        Plan { budget, start_first: self.rules.start_first, wake_at: census.wake_at }
    }

    fn put(&self, update: UpdateStatus, context: &Context<'_>, changes: &mut Changes) {
        if update != self.service.update {
            changes.update(context, Service { update, ..self.service.clone() });
        }
    }

    /// No update goes on. A service that does not come up at all is told of; one whose tasks are of
    /// an older spec is updated.
    fn at_rest(&self, census: &Census, context: &Context<'_>, changes: &mut Changes) -> Plan {
        if census.old > 0 {
            let state = UpdateState::Updating.into();
            let started_at = Some(context.stamp());
            self.put(
                UpdateStatus { state, started_at, ..UpdateStatus::default() },
                context,
                changes,
            );
            return self.go(self.rules.parallelism, census);
        }
        let is_new = self.service.update.state() == UpdateState::None;
        if let Some(words) = census.overdue.first().filter(|_| is_new) {
            let update = UpdateStatus {
                state: UpdateState::Paused.into(),
                ended_at: Some(context.stamp()),
                message: words.clone(),
                ..UpdateStatus::default()
            };
            self.put(update, context, changes);
        }
        // Nothing hangs on it otherwise.
        let wake_at = census.wake_at.filter(|_| is_new);
        Plan { budget: usize::MAX, start_first: self.rules.start_first, wake_at }
    }

    fn go_on(
        &self,
        is_back: bool,
        census: &Census,
        context: &mut Context<'_>,
        changes: &mut Changes,
    ) -> Option<Plan> {
        if census.exceeds(self.rules.max_failure_ratio) {
            match self.rules.action {
                UpdateFailureAction::Continue => {}
                UpdateFailureAction::Rollback if !is_back => {
                    let (store, service) = (self.store, self.service);
                    let back = revision::before_update(service).map(|earlier| {
                        revision::back_to(store, service, earlier, &census.words(), context).service
                    });
                    // Without the secrets of then it may be what has failed just now.
                    if let Some(back) =
                        back.filter(|back| back.spec_version != service.spec_version)
                    {
                        changes.update(context, back);
                        return None;
                    }
                    return Some(self.pause(is_back, census, context, changes));
                }
                UpdateFailureAction::Pause | UpdateFailureAction::Rollback => {
                    return Some(self.pause(is_back, census, context, changes));
                }
            }
        }
        if census.old + census.busy + census.empty == 0 {
            self.end(is_back, census, context, changes);
        }
        let held = census.busy + census.pacing;
        Some(self.go(self.rules.parallelism.saturating_sub(held), census))
    }

    fn pause(
        &self,
        is_back: bool,
        census: &Census,
        context: &Context<'_>,
        changes: &mut Changes,
    ) -> Plan {
        let mut update = self.service.update.clone();
        update.set_state(match is_back {
            true => UpdateState::RollbackPaused,
            false => UpdateState::Paused,
        });
        update.ended_at = Some(context.stamp());
        update.message = census.words();
        self.put(update, context, changes);
        self.go(0, census)
    }

    fn end(&self, is_back: bool, census: &Census, context: &Context<'_>, changes: &mut Changes) {
        let mut update = self.service.update.clone();
        update.ended_at = Some(context.stamp());
        match is_back {
            // Why it went back stays.
            true => update.set_state(UpdateState::RolledBack),
            false => {
                update.set_state(UpdateState::Completed);
                update.message = census.words();
            }
        }
        self.put(update, context, changes);
    }
}

fn is_done(task: &Task) -> bool {
    let policy = task.spec.restart.unwrap_or_default();
    task.state() == TaskState::Complete && policy.condition() != RestartCondition::Any
}

fn explain(task: &Task) -> String {
    let words = match task.status.error.as_str() {
        "" => "ended, and is not started again",
        error => error,
    };
    format!("{}.{}: {words}", task.service_name, task.slot)
}

/// What a task that gets nowhere says.
fn stuck(task: &Task) -> String {
    let words = [&task.waiting_for, &task.status.error, &task.status.message];
    let words = words.into_iter().find(|words| !words.is_empty());
    let words = words.map_or("", String::as_str);
    format!("{}.{}: {words}: it did not come to run", task.service_name, task.slot)
}
