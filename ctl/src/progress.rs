//! Where a set of services is on its way to what was asked for: a pure model, fed with the events
//! of a watch.
//!
//! What failed before the wait began is history: only what happens during it can fail it. A
//! service that runs is believed after a moment, and only after a longer one when something of it
//! has failed before.

mod slots;
mod task;

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_proto::v1::watch_event::Event;
use shoal_proto::v1::{Service, Stack, Task, TaskState};

use slots::Slots;
pub(crate) use task::state;
use task::{is_live, setback};

/// The services that are waited for.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    awaited: BTreeMap<String, Awaited>,
    /// The deploy that is waited for; a later one ends the wait.
    revision: Option<u64>,
    /// States of the tasks that there were before.
    before: BTreeMap<String, TaskState>,
    stack: Option<Stack>,
    services: BTreeMap<String, Service>,
    tasks: BTreeMap<String, Task>,
    /// As they came; also of tasks that are forgotten by now.
    failures: Vec<Failure>,
    stack_gone: bool,
}

#[derive(Debug)]
struct Awaited {
    name: String,
    /// The change that is waited for takes it away.
    leaves: bool,
}

#[derive(Debug)]
struct Failure {
    task: String,
    service: String,
    slot: u64,
    spec_version: u64,
    rejected: bool,
    reason: String,
}

/// What to tell the user now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not there yet.
    Waiting,
    /// All services are as wanted; true when it is still so after this long.
    Up(Duration),
    /// Some won't come up; what their tasks say.
    Failed(Vec<String>),
    /// The stack was deployed again meanwhile, as this revision.
    Overtaken(u64),
    /// What is waited for was removed by someone.
    Removed(String),
}

/// One service as it is shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) up: u64,
    pub(crate) wanted: u64,
    /// What its slowest task does; empty when all is done.
    pub(crate) doing: String,
}

impl Progress {
    /// `name` is how a service is shown; `before` are the tasks as they were before the change.
    pub(crate) fn new(
        services: &[Service],
        name: impl Fn(&Service) -> String,
        before: &[Task],
    ) -> Self {
        let awaited = services.iter().map(|service| {
            (service.id.clone(), Awaited { name: name(service), leaves: service.removing })
        });
        let before = before.iter().map(|task| (task.id.clone(), state(task)));
        Self { awaited: awaited.collect(), before: before.collect(), ..Self::default() }
    }

    /// For a stack of this revision.
    pub(crate) fn of_revision(self, revision: u64) -> Self {
        Self { revision: Some(revision), ..self }
    }

    /// A watch begins anew: it tells all that there is once more.
    pub(crate) fn restart(&mut self) {
        self.stack = None;
        self.services.clear();
        self.tasks.clear();
    }

    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Service(service) => {
                self.services.insert(service.id.clone(), service);
            }
            Event::Task(task) => {
                self.note_failure(&task);
                self.tasks.insert(task.id.clone(), task);
            }
            Event::Stack(stack) => self.stack = Some(stack),
            Event::Removed(removed) => match removed.kind.as_str() {
                "service" => drop(self.services.remove(&removed.id)),
                "task" => drop(self.tasks.remove(&removed.id)),
                "stack" => self.stack_gone = true,
                _ => {}
            },
            Event::Node(_) | Event::Network(_) | Event::Synced(_) => {}
        }
    }

    fn note_failure(&mut self, task: &Task) {
        let known = self.before.get(&task.id).is_some_and(|before| before.is_terminal())
            || self.failures.iter().any(|failure| failure.task == task.id);
        if let Some(reason) = setback(task).filter(|_| !known) {
            self.failures.push(Failure {
                task: task.id.clone(),
                service: task.service_id.clone(),
                slot: task.slot,
                spec_version: task.spec_version,
                rejected: state(task) == TaskState::Rejected,
                reason,
            });
        }
    }

    pub(crate) fn stack_is_gone(&self) -> bool {
        self.stack_gone
    }

    /// Tasks that have not ended yet.
    pub(crate) fn live_tasks(&self) -> usize {
        self.tasks.values().filter(|task| is_live(task)).count()
    }

    /// Valid once the watch has told all that there is.
    pub(crate) fn verdict(&self) -> Verdict {
        if let Some(stack) = &self.stack {
            let name = || stack.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
            match self.revision {
                Some(_) if stack.removing => {
                    return Verdict::Removed(format!("stack {}", name()));
                }
                Some(revision) if stack.revision > revision => {
                    return Verdict::Overtaken(stack.revision);
                }
                _ => {}
            }
        }
        for (id, awaited) in self.awaited.iter().filter(|(_, awaited)| !awaited.leaves) {
            if self.services.get(id).is_none_or(|service| service.removing) {
                return Verdict::Removed(format!("service {}", awaited.name));
            }
        }
        let slots: Vec<Slots<'_>> = self.slots().collect();
        let broken: Vec<String> = slots.iter().flat_map(Slots::broken).collect();
        if !broken.is_empty() {
            return Verdict::Failed(broken);
        }
        let leaving = self
            .awaited
            .iter()
            .any(|(id, awaited)| awaited.leaves && self.services.contains_key(id));
        if leaving || !slots.iter().all(Slots::is_up) {
            return Verdict::Waiting;
        }
        let settle = slots.iter().map(Slots::settle).max();
        Verdict::Up(settle.unwrap_or_default())
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        let leaving = self.awaited.iter().filter_map(|(id, awaited)| {
            let service = self.services.get(id).filter(|_| awaited.leaves)?;
            let left = self.tasks.values().filter(|t| t.service_id == service.id && is_live(t));
            Some(Line {
                name: awaited.name.clone(),
                up: left.count() as u64,
                wanted: 0,
                doing: "being removed".to_owned(),
            })
        });
        let mut lines: Vec<Line> = self.slots().map(|slots| slots.line()).chain(leaving).collect();
        lines.sort_by(|a, b| a.name.cmp(&b.name));
        lines
    }

    /// What those that are not up say, for when time runs out.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.slots().flat_map(|slots| slots.late()).collect()
    }

    fn slots(&self) -> impl Iterator<Item = Slots<'_>> {
        self.awaited.iter().filter(|(_, awaited)| !awaited.leaves).filter_map(|(id, awaited)| {
            let service = self.services.get(id)?;
            let tasks = self.tasks.values().filter(|task| task.service_id == *id).collect();
            Some(Slots { progress: self, name: &awaited.name, service, tasks })
        })
    }
}

#[cfg(test)]
mod tests;
