//! One service of a wait: which of its slots are filled, and why the others are not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_proto::v1::{RestartCondition, RestartPolicy, Service, Task, TaskState};
use shoal_proto::v1::{ServiceMode, service_mode};

use super::task::{is_live, is_wanted, reason, state};
use super::{Failure, Line, Progress};

/// Failures in a slot before a service counts as broken.
const MAX_FAILURES: u32 = 3;
/// A program that can't start is mostly over within this time of its start.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// One that failed before has to last longer, as in Docker.
pub(super) const SETTLE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// One service with its tasks.
pub(super) struct Slots<'a> {
    pub(super) progress: &'a Progress,
    pub(super) name: &'a str,
    pub(super) service: &'a Service,
    pub(super) tasks: Vec<&'a Task>,
}

impl<'a> Slots<'a> {
    /// Tasks of the newest spec that run, or are over and were meant to be.
    fn fulfilled(&self) -> impl Iterator<Item = &'a Task> {
        let once = self.policy().condition() != RestartCondition::Any;
        self.tasks.iter().copied().filter(move |task| {
            task.spec_version == self.service.spec_version
                && is_wanted(task)
                && match state(task) {
                    TaskState::Running => true,
                    TaskState::Complete => once,
                    _ => false,
                }
        })
    }

    fn up(&self) -> BTreeSet<u64> {
        self.fulfilled().map(|task| task.slot).collect()
    }

    /// Tasks on their way out.
    fn leftovers(&self) -> impl Iterator<Item = &'a Task> {
        self.tasks.iter().copied().filter(|task| {
            let old = task.spec_version != self.service.spec_version || !is_wanted(task);
            old && is_live(task)
        })
    }

    fn wanted(&self) -> u64 {
        let mode = self.service.spec.as_ref().and_then(|spec| spec.mode.as_ref());
        match mode {
            Some(ServiceMode { mode: Some(service_mode::Mode::Replicated(mode)) }) => mode.replicas,
            _ => 1,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up().len() as u64 == self.wanted() && self.leftovers().next().is_none()
    }

    fn policy(&self) -> RestartPolicy {
        let task = self.service.spec.as_ref().and_then(|spec| spec.task.as_ref());
        task.and_then(|task| task.restart).unwrap_or_default()
    }

    /// Failures after which a slot is given up, by Shoal or by this wait.
    fn patience(&self) -> u32 {
        let policy = self.policy();
        match (policy.condition(), policy.max_attempts) {
            (RestartCondition::None, _) => 1,
            (_, 0) => MAX_FAILURES,
            (_, attempts) => attempts.saturating_add(1).min(MAX_FAILURES),
        }
    }

    fn failures(&self) -> impl Iterator<Item = &'a Failure> {
        self.progress.failures.iter().filter(|failure| {
            failure.service == self.service.id && failure.spec_version == self.service.spec_version
        })
    }

    pub(super) fn settle(&self) -> Duration {
        let ran = |task: &Task| self.progress.before.get(&task.id) == Some(&state(task));
        if self.failures().next().is_some() {
            SETTLE_AFTER_FAILURE
        } else if self.fulfilled().all(ran) {
            Duration::ZERO
        } else {
            SETTLE
        }
    }

    /// Why the service won't come up: a task was rejected, or a slot keeps failing.
    pub(super) fn broken(&self) -> Vec<String> {
        let up = self.up();
        let mut slots: BTreeMap<u64, u32> = BTreeMap::new();
        for failure in self.failures().filter(|failure| !up.contains(&failure.slot)) {
            let weight = if failure.rejected { MAX_FAILURES } else { 1 };
            *slots.entry(failure.slot).or_default() += weight;
        }
        let broken = |slot| slots.get(&slot).is_some_and(|count| *count >= self.patience());
        let reasons = self.failures().filter(|failure| broken(failure.slot));
        self.grouped(reasons.map(|failure| (failure.slot, failure.reason.clone())))
    }

    pub(super) fn late(&self) -> Vec<String> {
        let up = self.up();
        let failed = self.failures().filter(|failure| !up.contains(&failure.slot));
        let failed = failed.map(|failure| (failure.slot, failure.reason.clone()));
        let waiting = self.unready().map(|task| (task.slot, reason(task)));
        let leaving = self.leftovers().map(|task| (task.slot, "is still being stopped".to_owned()));
        self.grouped(failed.chain(waiting).chain(leaving))
    }

    fn unready(&self) -> impl Iterator<Item = &'a Task> {
        self.tasks.iter().copied().filter(|task| {
            is_wanted(task)
                && task.spec_version == self.service.spec_version
                && state(task) < TaskState::Running
        })
    }

    /// One line for each reason, with the slots that give it.
    fn grouped(&self, reasons: impl Iterator<Item = (u64, String)>) -> Vec<String> {
        let mut slots: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for (slot, reason) in reasons {
            slots.entry(reason).or_default().insert(slot);
        }
        let line = |(reason, slots): (String, BTreeSet<u64>)| {
            let first = slots.first().copied().unwrap_or_default();
            let others = match slots.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            format!("{}.{first}{others}: {reason}", self.name)
        };
        slots.into_iter().map(line).collect()
    }

    pub(super) fn line(&self) -> Line {
        let slowest = self.unready().min_by_key(|task| state(task));
        let leftovers = self.leftovers().count();
        let doing = match slowest {
            Some(task) => {
                let failed = self.failures().filter(|failure| failure.slot == task.slot).last();
                match failed {
                    Some(failure) => format!("tries again after: {}", failure.reason),
                    None => reason(task),
                }
            }
            None if leftovers > 0 => format!("{leftovers} being stopped"),
            None => String::new(),
        };
        Line { name: self.name.to_owned(), up: self.up().len() as u64, wanted: self.wanted(), doing }
    }
}
