//! What is waited for, and what is not.

use super::*;
use shoal_proto::Timestamp;
use shoal_proto::v1::{
    GlobalMode, ReplicatedJobMode, RestartPolicy, Schedule, ServiceMode, ServiceSpec, TaskSpec,
    TaskStatus, UpdateStatus,
};

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

/// The service with an update in that state.
fn updated(state: UpdateState, message: &str) -> Service {
    let mut update = UpdateStatus { message: message.to_owned(), ..UpdateStatus::default() };
    update.set_state(state);
    let Event::Service(service) = service(2) else { unreachable!() };
    Service { update: Some(update), ..service }
}

#[test]
fn while_an_update_goes_on_a_failure_is_the_managers_to_judge() {
    let failed = || task("a", 2, TaskState::Rejected, "no such image", 0);
    let going = Event::Service(updated(UpdateState::Updating, ""));
    assert_eq!(verdict(vec![going, failed()]), Verdict::Waiting);
    let paused = Event::Service(updated(UpdateState::Paused, "app_web.1: no such image"));
    let Verdict::Failed(reasons) = verdict(vec![paused, failed()]) else { panic!("it waits") };
    assert_eq!(reasons[0], "service app_web is not updated any further: app_web.1: no such image");
    assert!(reasons[1].contains("ctl service rollback app_web"), "{}", reasons[1]);
}

#[test]
fn an_update_that_goes_on_is_not_done_though_all_run() {
    let runs = || task("b", 2, TaskState::Running, "", 0);
    let going = Event::Service(updated(UpdateState::Updating, ""));
    assert_eq!(verdict(vec![going, runs()]), Verdict::Waiting);
    let done = Event::Service(updated(UpdateState::Completed, ""));
    // One of the old spec is on a node that is lost.
    assert_eq!(verdict(vec![done, runs(), task("a", 1, TaskState::Running, "", 0)]), Verdict::Done);
}

#[test]
fn only_an_update_of_ours_fails_by_being_rolled_back() {
    let back = || Event::Service(updated(UpdateState::RolledBack, "exit code 1"));
    let runs = || task("b", 2, TaskState::Running, "", 0);
    assert_eq!(verdict(vec![back(), runs()]), Verdict::Done);
    let ours = updated(UpdateState::Updating, "");
    let mut progress = Progress::of(BTreeSet::from(["s".to_owned()])).begun(vec![ours]);
    progress.take(back());
    progress.take(runs());
    progress.take(Event::Synced(true));
    let reason = "service app_web was rolled back: exit code 1".to_owned();
    assert_eq!(progress.verdict(), Verdict::Failed(vec![reason]));
}

#[test]
fn a_change_that_leaves_an_update_paused_is_judged_by_the_tasks() {
    let paused = || updated(UpdateState::Paused, "exit code 1");
    let mut progress = Progress::of(BTreeSet::from(["s".to_owned()])).begun(vec![paused()]);
    progress.take(Event::Service(paused()));
    progress.take(Event::Synced(true));
    assert_eq!(progress.verdict(), Verdict::Waiting);
    progress.take(task("a", 1, TaskState::Running, "", 0));
    assert_eq!(progress.verdict(), Verdict::Done);
    // One that is paused again later is news.
    progress.take(Event::Service(updated(UpdateState::Updating, "")));
    progress.take(Event::Service(paused()));
    assert!(matches!(progress.verdict(), Verdict::Failed(_)));
}

fn bounded(event: Event, max_attempts: u32) -> Event {
    let Event::Task(task) = event else { unreachable!() };
    let restart = Some(RestartPolicy { max_attempts, ..RestartPolicy::default() });
    let spec = TaskSpec { restart, ..TaskSpec::default() };
    Event::Task(Task { spec: Some(spec), ..task })
}

#[test]
fn what_had_its_tries_is_not_waited_for() {
    use TaskState::{Complete, Failed};
    let failed = |failures| bounded(task("a", 1, Failed, "exit code 1", failures), 1);
    assert_eq!(verdict(vec![service(1), failed(0)]), Verdict::Waiting);
    let reason = "app_web.1: exit code 1".to_owned();
    assert_eq!(verdict(vec![service(1), failed(1)]), Verdict::Failed(vec![reason]));
    let ended = bounded(task("a", 1, Complete, "", 1), 1);
    let reason = "app_web.1: ended, and is not started again".to_owned();
    assert_eq!(verdict(vec![service(1), ended]), Verdict::Failed(vec![reason]));
}

fn of_mode(mode: Mode, job: Option<JobStatus>, cron: Option<&str>) -> Event {
    let schedule = cron.map(|cron| Schedule { cron: cron.to_owned(), ..Schedule::default() });
    let spec = ServiceSpec {
        name: "app_web".to_owned(),
        mode: Some(ServiceMode { mode: Some(mode) }),
        schedule,
        ..ServiceSpec::default()
    };
    Event::Service(Service { id: "s".to_owned(), spec: Some(spec), job, ..Service::default() })
}

fn in_slot(slot: u64, iteration: u64, state: TaskState) -> Event {
    let Event::Task(task) = task(&format!("{slot}-{iteration}"), 0, state, "", 0) else {
        unreachable!()
    };
    Event::Task(Task { slot, job_iteration: iteration, ..task })
}

#[test]
fn a_global_service_is_up_when_each_of_its_tasks_runs() {
    use TaskState::{Preparing, Running};
    let global = || of_mode(Mode::Global(GlobalMode {}), None, None);
    assert_eq!(verdict(vec![global()]), Verdict::Waiting);
    let one = vec![global(), in_slot(1, 0, Running), in_slot(2, 0, Preparing)];
    assert_eq!(verdict(one), Verdict::Waiting);
    let both = vec![global(), in_slot(1, 0, Running), in_slot(2, 0, Running)];
    assert_eq!(verdict(both), Verdict::Done);
}

#[test]
fn a_job_is_done_when_enough_of_this_run_have_ended_well() {
    use TaskState::{Complete, Running};
    let mode =
        || Mode::ReplicatedJob(ReplicatedJobMode { max_concurrent: 0, total_completions: 2 });
    let run = |ended: Option<&str>| JobStatus {
        iteration: 2,
        ended_at: ended.map(|_| Timestamp::default()),
        message: ended.unwrap_or_default().to_owned(),
        ..JobStatus::default()
    };
    let job = |ended| of_mode(mode(), Some(run(ended)), None);
    let older = || in_slot(1, 1, Complete);
    let half = vec![job(None), older(), in_slot(1, 2, Running), in_slot(2, 2, Complete)];
    assert_eq!(verdict(half), Verdict::Waiting);
    let all = vec![job(None), older(), in_slot(1, 2, Complete), in_slot(2, 2, Complete)];
    assert_eq!(verdict(all), Verdict::Done);
    let failed = vec![job(None), job(Some("1 of 2 tasks failed"))];
    let reason = "job app_web: 1 of 2 tasks failed".to_owned();
    assert_eq!(verdict(failed), Verdict::Failed(vec![reason]));
    // A run that was over before is none of ours.
    assert_eq!(verdict(vec![job(Some("1 of 2 tasks failed"))]), Verdict::Done);
    assert_eq!(verdict(vec![of_mode(mode(), None, None)]), Verdict::Waiting);
}

#[test]
fn a_scheduled_job_is_not_waited_for() {
    let mode = Mode::ReplicatedJob(ReplicatedJobMode { max_concurrent: 0, total_completions: 1 });
    let mut progress = Progress::of_all();
    progress.take(of_mode(mode, None, Some("@daily")));
    progress.take(Event::Synced(true));
    assert_eq!((progress.verdict(), progress.lines()), (Verdict::Done, Vec::new()));
}
