//! Where a set of services is on its way to what was asked for: a pure model, fed with the events
//! of a watch.

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::v1::watch_event::Event;
use shoal_proto::v1::{RestartCondition, Service, Task, TaskState, service_mode};

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
    stack_gone: bool,
}

/// What to tell the user now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not there yet.
    Waiting,
    /// All services run as wanted.
    Done,
    /// Some won't come up; what their tasks say.
    Failed(Vec<String>),
}

impl Progress {
    pub(crate) fn of_all() -> Self {
        Self::default()
    }

    /// By service ids.
    pub(crate) fn of(services: BTreeSet<String>) -> Self {
        Self { only: Some(services), ..Self::default() }
    }

    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Service(service) => {
                if self.only.as_ref().is_none_or(|only| only.contains(&service.id)) {
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

    /// Name, tasks running, tasks wanted, and what the slowest one does.
    pub(crate) fn lines(&self) -> Vec<(String, u64, u64, String)> {
        let lines = self.services.values().filter(|service| !service.removing).map(|service| {
            let name = service.spec.clone().unwrap_or_default().name;
            let busy = self
                .tasks_of(service)
                .filter(|task| wanted(task) && state(task) < TaskState::Running)
                .min_by_key(|task| state(task));
            (name, self.up(service), replicas(service), busy.map(describe).unwrap_or_default())
        });
        lines.collect()
    }

    /// Tasks of the newest spec that run, or are over and were meant to be.
    fn up(&self, service: &Service) -> u64 {
        let current =
            self.tasks_of(service).filter(|task| task.spec_version == service.spec_version);
        let once = service.spec.as_ref().and_then(|spec| spec.task.as_ref()).is_some_and(|task| {
            task.restart.is_some_and(|restart| restart.condition() != RestartCondition::Any)
        });
        let up = current.filter(|task| match state(task) {
            TaskState::Running => wanted(task),
            TaskState::Complete => once,
            _ => false,
        });
        up.map(|task| task.slot).collect::<BTreeSet<_>>().len() as u64
    }

    fn is_up(&self, service: &Service) -> bool {
        let leftover = self.tasks_of(service).any(|task| {
            let old = task.spec_version != service.spec_version
                || task.desired_state() > TaskState::Running;
            old && !state(task).is_terminal()
        });
        service.removing || (self.up(service) == replicas(service) && !leftover)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if !self.synced {
            return Verdict::Waiting;
        }
        let broken: Vec<String> =
            self.services.values().filter(|s| !s.removing).flat_map(|s| self.broken(s)).collect();
        if !broken.is_empty() {
            return Verdict::Failed(broken);
        }
        let awaited = self
            .only
            .as_ref()
            .is_none_or(|only| only.iter().all(|id| self.services.contains_key(id)));
        let up = self.services.values().all(|service| self.is_up(service));
        if awaited && up { Verdict::Done } else { Verdict::Waiting }
    }

    /// Why the service won't come up: a task was rejected, which another try won't change, or a
    /// slot keeps failing.
    fn broken(&self, service: &Service) -> Vec<String> {
        if self.is_up(service) {
            return Vec::new();
        }
        let current =
            || self.tasks_of(service).filter(|task| task.spec_version == service.spec_version);
        let running =
            |slot| current().any(|task| task.slot == slot && state(task) == TaskState::Running);
        let failed = current().filter(|task| {
            let hopeless = match state(task) {
                TaskState::Rejected => true,
                TaskState::Failed => task.failures + 1 >= MAX_FAILURES || !restarts(task),
                _ => false,
            };
            hopeless && !self.stale.contains(&task.id) && !running(task.slot)
        });
        let mut errors: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for task in failed {
            errors.entry(error(task)).or_default().push(task.slot);
        }
        let name = service.spec.clone().unwrap_or_default().name;
        errors.into_iter().map(|(error, slots)| explain(&name, slots, &error)).collect()
    }

    /// What those that are not up say, for when time runs out.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let late = self.services.values().filter(|service| !self.is_up(service));
        late.flat_map(|service| {
            let name = service.spec.clone().unwrap_or_default().name;
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
            lines.collect::<Vec<_>>()
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
    policy.condition() != RestartCondition::None
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

fn replicas(service: &Service) -> u64 {
    let mode = service.spec.as_ref().and_then(|spec| spec.mode.as_ref());
    match mode.and_then(|mode| mode.mode.as_ref()) {
        Some(service_mode::Mode::Replicated(replicated)) => replicated.replicas,
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_proto::v1::{ServiceSpec, TaskStatus};

    fn service(spec_version: u64) -> Event {
        let spec = ServiceSpec { name: "app_web".to_owned(), ..ServiceSpec::default() };
        Event::Service(Service {
            id: "s".to_owned(),
            spec: Some(spec),
            spec_version,
            ..Service::default()
        })
    }

    fn task(id: &str, spec_version: u64, state: TaskState, error: &str, failures: u32) -> Event {
        let mut status = TaskStatus { error: error.to_owned(), ..TaskStatus::default() };
        status.set_state(state);
        Event::Task(Task {
            id: id.to_owned(),
            service_id: "s".to_owned(),
            slot: 1,
            spec_version,
            desired_state: TaskState::Running.into(),
            status: Some(status),
            failures,
            ..Task::default()
        })
    }

    fn verdict(events: Vec<Event>) -> Verdict {
        let mut progress = Progress::of_all();
        progress.take(Event::Synced(true));
        events.into_iter().for_each(|event| progress.take(event));
        progress.verdict()
    }

    #[test]
    fn a_service_is_up_when_its_newest_task_runs_alone() {
        use TaskState::{Running, Starting};
        assert_eq!(verdict(vec![service(1)]), Verdict::Waiting);
        assert_eq!(verdict(vec![service(1), task("a", 1, Starting, "", 0)]), Verdict::Waiting);
        assert_eq!(verdict(vec![service(1), task("a", 1, Running, "", 0)]), Verdict::Done);
        assert_eq!(verdict(vec![service(2), task("a", 1, Running, "", 0)]), Verdict::Waiting);
        let both = vec![service(2), task("a", 1, Running, "", 0), task("b", 2, Running, "", 0)];
        assert_eq!(verdict(both), Verdict::Waiting);
    }

    #[test]
    fn failures_of_an_earlier_deploy_do_not_count() {
        let mut progress = Progress::of_all();
        progress.take(service(1));
        progress.take(task("a", 1, TaskState::Rejected, "no such image", 0));
        progress.take(Event::Synced(true));
        assert_eq!(progress.verdict(), Verdict::Waiting);
    }

    #[test]
    fn tasks_that_cannot_run_fail_the_deploy_with_their_own_words() {
        use TaskState::{Failed, Rejected};
        let no_image = "app_web.1: no such image".to_owned();
        let rejected = vec![service(1), task("a", 1, Rejected, "no such image", 0)];
        assert_eq!(verdict(rejected), Verdict::Failed(vec![no_image]));
        let once = vec![service(1), task("a", 1, Failed, "exit code 1", 0)];
        assert_eq!(verdict(once), Verdict::Waiting);
        let thrice = vec![service(1), task("a", 1, Failed, "exit code 1", 2)];
        assert_eq!(verdict(thrice), Verdict::Failed(vec!["app_web.1: exit code 1".to_owned()]));
        let old = vec![service(2), task("a", 1, Rejected, "old news", 0)];
        assert_eq!(verdict(old), Verdict::Waiting);
    }
}
