//! Where a set of services is on its way to what was asked for: a pure model, fed with the events
//! of a watch.

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::watch_event::Event;
use shoal_proto::v1::{JobStatus, RestartCondition, Service, Task, TaskState, UpdateState};

/// Failures in a row in a slot before a service counts as broken.
const MAX_FAILURES: u32 = 3;

/// The services that are waited for.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// None: all that come.
    only: Option<BTreeSet<String>>,
    services: BTreeMap<String, Service>,
    tasks: BTreeMap<String, Task>,
    synced: bool,
    /// Over before the watch began: no news of what is being waited for.
    stale: BTreeSet<String>,
    /// Services that were seen in the middle of an update or of a job's run: how that ends is news.
    under_way: BTreeSet<String>,
    /// Services whose update was paused before, which a change has left so: their tasks tell how they
    /// are, of whichever spec.
    halted: BTreeSet<String>,
    stack_gone: bool,
}

/// What to tell the user now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not there yet.
    Waiting,
    /// All services are as wanted.
    Done,
    /// Some won't be; why.
    Failed(Vec<String>),
}

/// How far a service is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Tasks that are as wanted, and tasks wanted.
    pub(crate) up: u64,
    pub(crate) wanted: u64,
    /// As what they are wanted.
    pub(crate) state: TaskState,
    /// What the slowest one does.
    pub(crate) doing: String,
}

impl Progress {
    pub(crate) fn of_all() -> Self {
        Self::default()
    }

    /// By service ids.
    pub(crate) fn of(services: BTreeSet<String>) -> Self {
        Self { only: Some(services), ..Self::default() }
    }

    /// Services as a change left them: what it began is news, though it be over before the watch
    /// begins.
    pub(crate) fn begun(mut self, services: Vec<Service>) -> Self {
        let halted = services.iter().filter(|service| is_paused(service));
        self.halted = halted.map(|service| service.id.clone()).collect();
        services.into_iter().for_each(|service| self.take(Event::Service(service)));
        self
    }

    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Service(service) => {
                if self.only.as_ref().is_none_or(|only| only.contains(&service.id)) {
                    if update_state(&service) == UpdateState::Updating || runs(&service) {
                        self.under_way.insert(service.id.clone());
                    }
                    if !is_paused(&service) {
                        self.halted.remove(&service.id);
                    }
                    self.services.insert(service.id.clone(), service);
                }
            }
            Event::Task(task) => drop(self.tasks.insert(task.id.clone(), task)),
            Event::Removed(removed) => match removed.kind.as_str() {
                "service" => drop(self.services.remove(&removed.id)),
                "task" => drop(self.tasks.remove(&removed.id)),
                "stack" => self.stack_gone = true,
                _ => {}
            },
            Event::Synced(_) => {
                self.synced = true;
                let over = self.tasks.values().filter(|task| state(task).is_terminal());
                self.stale = over.map(|task| task.id.clone()).collect();
            }
            Event::Node(_) | Event::Network(_) | Event::Stack(_) => {}
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.stack_gone
    }

    fn tasks_of(&self, service: &Service) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(move |task| task.service_id == service.id)
    }

    /// Those of the newest spec, or of a job's last run.
    fn newest(&self, service: &Service) -> impl Iterator<Item = &Task> {
        let (is_job, is_halted) = (is_job(service), self.halted.contains(&service.id));
        let (version, iteration) = (service.spec_version, job(service).iteration);
        self.tasks_of(service).filter(move |task| match is_job {
            true => task.job_iteration == iteration,
            false => task.spec_version == version || is_halted,
        })
    }

    /// None of services that nothing is waited for of.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let shown = self.services.values().filter(|service| {
            let is_empty = is_global(service) && self.wanted(service) == 0;
            !service.removing && !is_scheduled(service) && !is_empty
        });
        let lines = shown.map(|service| {
            let busy = self
                .tasks_of(service)
                .filter(|task| wanted(task) && state(task) < TaskState::Running)
                .min_by_key(|task| state(task));
            let doing = match busy {
                Some(task) => describe(task),
                None if is_going(service) => update_state(service).to_string(),
                None => String::new(),
            };
            Line {
                name: name(service),
                up: self.up(service),
                wanted: self.wanted(service),
                state: if is_job(service) { TaskState::Complete } else { TaskState::Running },
                doing,
            }
        });
        lines.collect()
    }

    /// How many tasks there shall be.
    fn wanted(&self, service: &Service) -> u64 {
        match mode(service) {
            Some(Mode::Replicated(mode)) => mode.replicas,
            Some(Mode::ReplicatedJob(mode)) => mode.total_completions,
            // Only the managers know on how many nodes it can be.
            Some(Mode::Global(_)) => {
                let is_settled = is_settled(service);
                let counts = self.tasks_of(service).filter(|task| {
                    let is_newest = task.spec_version == service.spec_version;
                    wanted(task) && (is_newest || !(is_settled || state(task).is_terminal()))
                });
                slots(counts)
            }
            Some(Mode::GlobalJob(_)) => slots(self.newest(service).filter(|task| wanted(task))),
            None => 1,
        }
    }

    /// Tasks of the newest spec that run, or are over and were meant to be.
    fn up(&self, service: &Service) -> u64 {
        let once = service.spec.as_ref().and_then(|spec| spec.task.as_ref()).is_some_and(|task| {
            task.restart.is_some_and(|restart| restart.condition() != RestartCondition::Any)
        });
        let is_job = is_job(service);
        slots(self.newest(service).filter(|task| match state(task) {
            TaskState::Running => wanted(task) && !is_job,
            TaskState::Complete => once || is_job,
            _ => false,
        }))
    }

    fn is_up(&self, service: &Service) -> bool {
        if service.removing || is_scheduled(service) {
            return true;
        }
        if is_going(service) {
            return false;
        }
        let (up, wanted) = (self.up(service), self.wanted(service));
        if is_job(service) {
            let job = job(service);
            let is_over = job.ended_at.is_some() && !self.has_failed(service);
            return job.iteration > 0 && (is_over || (up == wanted && wanted > 0));
        }
        let is_settled = is_settled(service) || self.halted.contains(&service.id);
        let leftover = self.tasks_of(service).any(|task| {
            let old = (task.spec_version != service.spec_version && !is_settled)
                || task.desired_state() > TaskState::Running;
            old && !state(task).is_terminal()
        });
        // With no node that fits, an update is over at once.
        let is_begun = wanted > 0 || !is_global(service) || is_settled;
        up == wanted && is_begun && !leftover
    }

    /// A job's run that was under way has ended, and not well.
    fn has_failed(&self, service: &Service) -> bool {
        let job = job(service);
        job.ended_at.is_some() && !job.message.is_empty() && self.under_way.contains(&service.id)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if !self.synced {
            return Verdict::Waiting;
        }
        let services = self.services.values().filter(|service| !service.removing);
        let failures: Vec<String> = services.flat_map(|service| self.failures(service)).collect();
        if !failures.is_empty() {
            return Verdict::Failed(failures);
        }
        let awaited = self
            .only
            .as_ref()
            .is_none_or(|only| only.iter().all(|id| self.services.contains_key(id)));
        let up = self.services.values().all(|service| self.is_up(service));
        if awaited && up { Verdict::Done } else { Verdict::Waiting }
    }

    /// Why the service won't be as asked for.
    fn failures(&self, service: &Service) -> Vec<String> {
        let name = name(service);
        let told = |what: &str| {
            let message = service.update.clone().unwrap_or_default().message;
            match message.as_str() {
                "" => format!("service {name} {what}"),
                message => format!("service {name} {what}: {message}"),
            }
        };
        match update_state(service) {
            _ if self.halted.contains(&service.id) => self.broken(service),
            // What a task's failure means is for the managers to say.
            UpdateState::Updating | UpdateState::RollingBack => Vec::new(),
            UpdateState::Paused => vec![
                told("is not updated any further"),
                format!(
                    "\"ctl service update {name}\" goes on with it, \"ctl service rollback {name}\" \
                     goes back"
                ),
            ],
            UpdateState::RollbackPaused => vec![
                told("is not rolled back any further"),
                format!("\"ctl service update {name}\" goes on with it"),
            ],
            UpdateState::RolledBack if self.under_way.contains(&service.id) => {
                vec![told("was rolled back")]
            }
            UpdateState::None | UpdateState::Completed | UpdateState::RolledBack => {
                match self.has_failed(service) {
                    true => vec![format!("job {name}: {}", job(service).message)],
                    false => self.broken(service),
                }
            }
        }
    }

    /// A task was rejected, which another try won't change, or a slot keeps failing. When a job has
    /// tried often enough is for the managers to say, where there is a bound.
    fn broken(&self, service: &Service) -> Vec<String> {
        let is_job = is_job(service);
        if self.is_up(service) || (is_job && is_bounded(service)) {
            return Vec::new();
        }
        let fine = |slot| {
            self.newest(service).any(|task| {
                task.slot == slot
                    && match state(task) {
                        TaskState::Running => true,
                        TaskState::Complete => is_job,
                        _ => false,
                    }
            })
        };
        let failed = self.newest(service).filter(|task| {
            let hopeless = match state(task) {
                TaskState::Rejected => true,
                TaskState::Failed => task.failures + 1 >= MAX_FAILURES || !restarts(task),
                // The managers don't either when it ended well too often.
                TaskState::Complete => !is_job && is_to_run_on(task) && is_worn_out(task),
                _ => false,
            };
            hopeless && !self.stale.contains(&task.id) && !fine(task.slot)
        });
        let mut errors: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for task in failed {
            let words = match error(task) {
                words if words.is_empty() => "ended, and is not started again".to_owned(),
                words => words,
            };
            errors.entry(words).or_default().push(task.slot);
        }
        let name = name(service);
        errors.into_iter().map(|(error, slots)| explain(&name, slots, &error)).collect()
    }

    /// What those that are not up say, for when time runs out.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let late = self.services.values().filter(|service| !self.is_up(service));
        late.flat_map(|service| {
            let name = name(service);
            let mut reasons: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for task in self.tasks_of(service).filter(|task| {
                !matches!(
                    state(task),
                    TaskState::Running | TaskState::Complete | TaskState::Shutdown
                )
            }) {
                let reason = match error(task) {
                    error if error.is_empty() => describe(task),
                    error => error,
                };
                reasons.entry(reason).or_default().push(task.slot);
            }
            let lines = reasons.into_iter().map(|(reason, slots)| explain(&name, slots, &reason));
            let mut lines: Vec<String> = lines.collect();
            if lines.is_empty() && is_global(service) && self.wanted(service) == 0 {
                lines.push(format!("{name}: no node fits"));
            } else if lines.is_empty() && is_going(service) {
                lines.push(format!(
                    "{name} ({}/{}): {}",
                    self.up(service),
                    self.wanted(service),
                    update_state(service)
                ));
            }
            lines
        })
        .collect()
    }
}

fn explain(service: &str, mut slots: Vec<u64>, reason: &str) -> String {
    slots.sort_unstable();
    slots.dedup();
    match slots[..] {
        [slot] => format!("{service}.{slot}: {reason}"),
        _ => format!("{service} ({} tasks): {reason}", slots.len()),
    }
}

pub(crate) fn state(task: &Task) -> TaskState {
    task.status.as_ref().map_or(TaskState::New, |status| status.state())
}

fn wanted(task: &Task) -> bool {
    task.desired_state() <= TaskState::Running
}

fn restarts(task: &Task) -> bool {
    let policy = task.spec.as_ref().and_then(|spec| spec.restart).unwrap_or_default();
    policy.condition() != RestartCondition::None && !is_worn_out(task)
}

/// That it ends is not what it is for.
fn is_to_run_on(task: &Task) -> bool {
    let policy = task.spec.as_ref().and_then(|spec| spec.restart).unwrap_or_default();
    policy.condition() == RestartCondition::Any
}

/// It had as many tries as it may have.
fn is_worn_out(task: &Task) -> bool {
    let policy = task.spec.as_ref().and_then(|spec| spec.restart).unwrap_or_default();
    policy.max_attempts > 0 && task.failures >= policy.max_attempts
}

/// Its tasks are tried only so often.
fn is_bounded(service: &Service) -> bool {
    let policy = service.spec.as_ref().and_then(|spec| spec.task.as_ref()?.restart);
    let policy = policy.unwrap_or_default();
    policy.condition() == RestartCondition::None || policy.max_attempts > 0
}

fn error(task: &Task) -> String {
    task.status.clone().unwrap_or_default().error
}

fn describe(task: &Task) -> String {
    let status = task.status.clone().unwrap_or_default();
    if !task.waiting_for.is_empty() {
        return task.waiting_for.clone();
    }
    if !status.error.is_empty() {
        return status.error;
    }
    status.message
}

fn name(service: &Service) -> String {
    service.spec.clone().unwrap_or_default().name
}

fn mode(service: &Service) -> Option<&Mode> {
    service.spec.as_ref()?.mode.as_ref()?.mode.as_ref()
}

fn is_global(service: &Service) -> bool {
    matches!(mode(service), Some(Mode::Global(_)))
}

fn is_job(service: &Service) -> bool {
    matches!(mode(service), Some(Mode::ReplicatedJob(_) | Mode::GlobalJob(_)))
}

/// It runs when it is due, whatever that is now.
fn is_scheduled(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.schedule.is_some())
}

fn job(service: &Service) -> JobStatus {
    service.job.clone().unwrap_or_default()
}

/// A job that is not scheduled has a run that is not over.
fn runs(service: &Service) -> bool {
    let job = job(service);
    is_job(service) && !is_scheduled(service) && job.iteration > 0 && job.ended_at.is_none()
}

fn update_state(service: &Service) -> UpdateState {
    service.update.as_ref().map_or(UpdateState::None, |update| update.state())
}

fn is_paused(service: &Service) -> bool {
    matches!(update_state(service), UpdateState::Paused | UpdateState::RollbackPaused)
}

/// Its tasks are being replaced.
fn is_going(service: &Service) -> bool {
    matches!(update_state(service), UpdateState::Updating | UpdateState::RollingBack)
}

/// The managers have found all tasks replaced: those of an older spec are out of their reach.
fn is_settled(service: &Service) -> bool {
    matches!(update_state(service), UpdateState::Completed | UpdateState::RolledBack)
}

fn slots<'a>(tasks: impl Iterator<Item = &'a Task>) -> u64 {
    tasks.map(|task| task.slot).collect::<BTreeSet<_>>().len() as u64
}

#[cfg(test)]
mod tests;
