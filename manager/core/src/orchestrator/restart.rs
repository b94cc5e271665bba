//! Whether and when a slot whose task ended gets a new one.

use std::time::{Duration, SystemTime};

use shoal_proto::time::{std_duration, system_time};
use shoal_proto::v1::{RestartCondition, RestartPolicy, TaskState};

use crate::store::Task;

/// A task that lived this long before it ended does not count as a failure in a row.
const DEFAULT_WINDOW: Duration = Duration::from_secs(10);
/// Back-off starts here, for the second failure in a row, when the policy names no delay.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// No restart waits longer.
const MAX_DELAY: Duration = Duration::from_secs(300);

/// What becomes of the slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The policy wants no further task.
    Leave,
    /// A new task, not started before `at`.
    Restart {
        /// Failures in a row, the last one included.
        failures: u32,
        /// None: at once.
        at: Option<SystemTime>,
    },
}

/// Decides for a slot whose last task has ended.
pub(super) fn decide(policy: &RestartPolicy, last: &Task, now: SystemTime) -> Decision {
    let failed = last.state() != TaskState::Complete;
    let wanted = match policy.condition() {
        RestartCondition::Any => true,
        RestartCondition::OnFailure => failed,
        RestartCondition::None => false,
    };
    if !wanted {
        return Decision::Leave;
    }
    let window = policy.window.as_ref().map(std_duration).filter(|window| !window.is_zero());
    let ended = last.status.since.as_ref().map_or(now, system_time);
    let created = system_time(&last.meta.created_at);
    let started = last.not_before.as_ref().map_or(created, |at| created.max(system_time(at)));
    let lived = ended.duration_since(started).unwrap_or_default();
    let stable = last.state() != TaskState::Rejected && lived >= window.unwrap_or(DEFAULT_WINDOW);
    let failures = if stable { 1 } else { last.failures.saturating_add(1) };
    if policy.max_attempts > 0 && failures > policy.max_attempts {
        return Decision::Leave;
    }
    let delay = delay(policy, failures);
    let at = ended + delay;
    Decision::Restart { failures, at: (at > now).then_some(at) }
}

fn delay(policy: &RestartPolicy, failures: u32) -> Duration {
    let doubled = |first: Duration, times: u32| {
        first.checked_mul(1u32.checked_shl(times).unwrap_or(u32::MAX)).unwrap_or(MAX_DELAY)
    };
    let delay = match (policy.delay.as_ref(), failures) {
        (Some(delay), _) => doubled(std_duration(delay), failures.saturating_sub(1)),
        (None, 0 | 1) => Duration::ZERO,
        (None, _) => doubled(FIRST_DELAY, failures - 2),
    };
    delay.min(MAX_DELAY)
}
