//! What `depends_on` waits for. Service web depends on db.

use shoal_proto::TaskId;
use shoal_proto::v1::{Dependency, DependencyCondition, TaskState};

use super::{WEB, reconcile};
use crate::store::Service;
use crate::testing::{Cluster, placed, service, spec_of, task};

/// Service web, which depends on db so.
fn dependent(condition: DependencyCondition, required: bool) -> Cluster {
    let mut cluster = Cluster::default();
    let mut web = service(1, "web", 1);
    let service = "db".to_owned();
    spec_of(&mut web).depends_on =
        vec![Dependency { service, condition: condition.into(), required }];
    cluster.put(web);
    cluster
}

#[track_caller]
fn assert_waits(cluster: &mut Cluster, expected: &str, case: &str) {
    reconcile(cluster);
    let task = cluster.store.service_tasks(WEB).next().expect("web has a task");
    let desired = if expected.is_empty() { TaskState::Running } else { TaskState::Ready };
    assert_eq!((task.desired, task.waiting_for.as_str()), (desired, expected), "{case}");
}

#[test]
fn depends_on_holds_a_task_ready_until_its_condition_is_met() {
    use DependencyCondition::{Completed, Healthy, Started};
    use TaskState::{Complete, Failed, Preparing, Running, Starting};
    for (condition, state, expected) in [
        (Started, Preparing, "waits for db to start"),
        (Started, Starting, ""),
        (Started, Running, ""),
        (Started, Complete, ""),
        (Healthy, Starting, "waits for db to be healthy"),
        (Healthy, Running, ""),
        (Completed, Running, "waits for db to complete"),
        (Completed, Failed, "waits for db to complete"),
        (Completed, Complete, ""),
    ] {
        let mut cluster = dependent(condition, true);
        let db = service(2, "db", 1);
        cluster.put(placed(task(1, &db, 1), 1, TaskState::Assigned));
        cluster.put(db);
        let case = format!("{condition:?}, db is {state}");
        // Held first, so that what is seen later is its release.
        assert_waits(&mut cluster, &unmet(condition), &case);
        cluster.report(TaskId::from_bits(1), state);
        assert_waits(&mut cluster, expected, &case);
    }
}

fn unmet(condition: DependencyCondition) -> String {
    let verb = match condition {
        DependencyCondition::Started => "start",
        DependencyCondition::Healthy => "be healthy",
        DependencyCondition::Completed => "complete",
    };
    format!("waits for db to {verb}")
}

#[test]
fn a_missing_service_holds_only_those_that_require_it() {
    for (required, expected) in [(true, "waits for db to start"), (false, "")] {
        let mut cluster = dependent(DependencyCondition::Started, required);
        assert_waits(&mut cluster, expected, "no such service");
        let mut cluster = dependent(DependencyCondition::Started, required);
        cluster.put(service(2, "db", 0));
        assert_waits(&mut cluster, expected, "no replicas");
    }
}

#[test]
fn a_task_of_an_older_spec_meets_no_dependency() {
    let mut cluster = dependent(DependencyCondition::Started, true);
    let db = service(2, "db", 1);
    cluster.put(placed(task(1, &db, 1), 1, TaskState::Running));
    cluster.put(Service { spec_version: 2, ..db });
    assert_waits(&mut cluster, "waits for db to start", "db is being updated");
}
