//! Whether a slot gets a new task, how long that one waits, and what is kept of the old ones.

use std::time::{Duration, SystemTime};

use shoal_proto::time::{proto_duration, system_time};
use shoal_proto::v1::{RestartCondition, RestartPolicy, TaskState};
use shoal_proto::{ProtoDuration, TaskId};

use super::{act, newest, reconcile};
use crate::testing::{Cluster, placed, service, task_spec_of};

/// Seconds that each task of the slot is held back, until none comes, when every task ends so
/// `life` seconds after it may start.
fn waits(policy: RestartPolicy, end: TaskState, life: u64, tasks: usize) -> Vec<u64> {
    let mut cluster = Cluster::default();
    let mut web = service(1, "web", 1);
    task_spec_of(&mut web).restart = Some(policy);
    cluster.put(web);
    reconcile(&mut cluster);
    let mut waits = Vec::new();
    while waits.len() < tasks {
        let task = cluster.store.tasks().find(|task| task.is_live()).cloned();
        let Some(task) = task else { break };
        let start: SystemTime = task.not_before.as_ref().map_or(cluster.now, system_time);
        waits.push(start.duration_since(cluster.now).unwrap().as_secs());
        cluster.now = start + Duration::from_secs(life);
        cluster.put(placed((*task).clone(), 1, TaskState::Assigned));
        cluster.report(task.id, end);
        reconcile(&mut cluster);
    }
    waits
}

fn seconds(seconds: u64) -> Option<ProtoDuration> {
    Some(proto_duration(Duration::from_secs(seconds)))
}

#[test]
fn back_off_starts_at_once_and_doubles_up_to_five_minutes() {
    let waits = waits(RestartPolicy::default(), TaskState::Failed, 1, 13);
    assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
}

#[test]
fn back_off_starts_at_the_policys_delay() {
    let policy =
        RestartPolicy { delay: seconds(5), window: seconds(3600), ..RestartPolicy::default() };
    let waits = waits(policy, TaskState::Failed, 1, 9);
    assert_eq!(waits, [0, 5, 10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn a_task_that_lived_through_the_window_starts_the_count_again() {
    for (life, end, expected) in [
        (9, TaskState::Failed, [0, 0, 1]),
        (10, TaskState::Failed, [0, 0, 0]),
        // It never ran, however long it took to find that out.
        (60, TaskState::Rejected, [0, 0, 1]),
    ] {
        assert_eq!(waits(RestartPolicy::default(), end, life, 3), expected, "{life} s, {end}");
    }
}

#[test]
fn restarts_stop_after_max_attempts() {
    let policy = RestartPolicy { max_attempts: 2, ..RestartPolicy::default() };
    assert_eq!(waits(policy, TaskState::Failed, 1, 9), [0, 0, 1]);
}

#[test]
fn the_time_that_a_task_is_held_back_is_not_counted_as_its_life() {
    let policy = RestartPolicy { delay: seconds(5), max_attempts: 3, ..RestartPolicy::default() };
    assert_eq!(waits(policy, TaskState::Failed, 1, 9), [0, 5, 10, 20]);
}

#[test]
fn the_condition_says_which_ends_are_followed_by_a_new_task() {
    use RestartCondition::{Any, None as Never, OnFailure};
    use TaskState::{Complete, Failed};
    for (condition, end, tasks) in [
        (Any, Complete, 2),
        (Any, Failed, 2),
        (OnFailure, Complete, 1),
        (OnFailure, Failed, 2),
        (Never, Complete, 1),
        (Never, Failed, 1),
    ] {
        let policy = RestartPolicy { condition: condition.into(), ..RestartPolicy::default() };
        assert_eq!(waits(policy, end, 1, 2).len(), tasks, "{condition:?} after {end}");
    }
}

#[test]
fn a_slot_keeps_its_five_newest_ended_tasks() {
    let mut cluster = Cluster::default();
    cluster.put(service(1, "web", 1));
    reconcile(&mut cluster);
    let mut failed = Vec::new();
    for _ in 0..8 {
        act(&mut cluster, "place");
        failed.push(newest(&cluster, "web.1"));
        act(&mut cluster, "failed web.1");
        let ended = cluster.store.tasks().filter(|task| task.state().is_terminal());
        let ended: Vec<TaskId> = ended.map(|task| task.id).collect();
        assert_eq!(ended, failed[failed.len().saturating_sub(5)..]);
    }
}
