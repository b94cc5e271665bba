use super::slots::{SETTLE, SETTLE_AFTER_FAILURE};
use super::*;
use shoal_proto::v1::{
    RemovedObject, ReplicatedMode, RestartCondition, RestartPolicy, ServiceMode, ServiceSpec,
    StackSpec, TaskSpec, TaskStatus, service_mode,
};
use TaskState::{Complete, Failed, Pending, Preparing, Rejected, Running, Shutdown, Starting};

/// A wait that began after the tasks of `before` had been listed, with one service `web`.
struct Script {
    progress: Progress,
    policy: RestartPolicy,
}

fn service(spec_version: u64, replicas: u64, policy: RestartPolicy) -> Service {
    let mode = Some(service_mode::Mode::Replicated(ReplicatedMode { replicas }));
    let task = TaskSpec { restart: Some(policy), ..TaskSpec::default() };
    let spec = ServiceSpec {
        name: "app_web".to_owned(),
        mode: Some(ServiceMode { mode }),
        task: Some(task),
        ..ServiceSpec::default()
    };
    Service {
        id: "s".to_owned(),
        spec: Some(spec),
        short_name: "web".to_owned(),
        spec_version,
        ..Service::default()
    }
}

fn task(id: &str, slot: u64, spec_version: u64, state: TaskState, error: &str) -> Task {
    let mut status = TaskStatus { error: error.to_owned(), ..TaskStatus::default() };
    status.set_state(state);
    Task {
        id: id.to_owned(),
        service_id: "s".to_owned(),
        slot,
        spec_version,
        desired_state: Running.into(),
        status: Some(status),
        ..Task::default()
    }
}

impl Script {
    fn with(before: &[Task], policy: RestartPolicy, spec_version: u64, replicas: u64) -> Self {
        let service = service(spec_version, replicas, policy);
        let progress = Progress::new(
            std::slice::from_ref(&service),
            |service| service.short_name.clone(),
            before,
        );
        let mut script = Self { progress, policy };
        script.progress.take(Event::Service(service));
        script
    }

    fn new(replicas: u64) -> Self {
        Self::with(&[], RestartPolicy::default(), 1, replicas)
    }

    fn task(&mut self, mut task: Task) -> Verdict {
        task.spec = Some(TaskSpec { restart: Some(self.policy), ..TaskSpec::default() });
        self.progress.take(Event::Task(task));
        self.progress.verdict()
    }

    fn removed(&mut self, kind: &str, id: &str) -> Verdict {
        let (kind, id) = (kind.to_owned(), id.to_owned());
        self.progress.take(Event::Removed(RemovedObject { kind, id }));
        self.progress.verdict()
    }
}

fn failed(text: &str) -> Verdict {
    Verdict::Failed(vec![text.to_owned()])
}

#[test]
fn a_service_is_up_when_each_slot_runs_the_newest_spec() {
    let mut script = Script::new(2);
    assert_eq!(script.progress.verdict(), Verdict::Waiting);
    assert_eq!(script.task(task("a", 1, 1, Starting, "")), Verdict::Waiting);
    assert_eq!(script.task(task("a", 1, 1, Running, "")), Verdict::Waiting);
    assert_eq!(script.task(task("b", 2, 1, Running, "")), Verdict::Up(SETTLE));
}

#[test]
fn two_tasks_in_one_slot_are_not_two_replicas() {
    let mut script = Script::new(2);
    script.task(task("a", 1, 1, Running, ""));
    assert_eq!(script.task(task("b", 1, 1, Running, "")), Verdict::Waiting);
}

#[test]
fn an_update_is_over_when_the_old_tasks_have_stopped() {
    let old = task("a", 1, 1, Running, "");
    let mut script = Script::with(std::slice::from_ref(&old), RestartPolicy::default(), 2, 1);
    assert_eq!(script.task(old.clone()), Verdict::Waiting);
    assert_eq!(script.task(task("b", 1, 2, Running, "")), Verdict::Waiting);
    let stopping = Task { desired_state: Shutdown.into(), ..old };
    assert_eq!(script.task(stopping.clone()), Verdict::Waiting);
    assert_eq!(script.progress.lines()[0].doing, "1 being stopped");
    let mut stopped = stopping;
    stopped.status.get_or_insert_default().set_state(Shutdown);
    assert_eq!(script.task(stopped), Verdict::Up(SETTLE));
}

#[test]
fn a_scale_down_waits_for_the_surplus_to_be_marked_and_to_end() {
    let tasks = [task("a", 1, 1, Running, ""), task("b", 2, 1, Running, "")];
    let mut script = Script::with(&tasks, RestartPolicy::default(), 1, 1);
    let [a, b] = tasks;
    script.task(a);
    assert_eq!(script.task(b.clone()), Verdict::Waiting, "not marked yet");
    let marked = Task { desired_state: TaskState::Remove.into(), ..b };
    assert_eq!(script.task(marked), Verdict::Waiting, "still runs");
    assert_eq!(script.removed("task", "b"), Verdict::Up(Duration::ZERO));
}

#[test]
fn to_zero_is_done_when_nothing_is_left() {
    let running = task("a", 1, 1, Running, "");
    let mut script =
        Script::with(std::slice::from_ref(&running), RestartPolicy::default(), 1, 0);
    assert_eq!(script.task(running), Verdict::Waiting);
    assert_eq!(script.removed("task", "a"), Verdict::Up(Duration::ZERO));
}

#[test]
fn what_ran_before_needs_no_time_to_settle() {
    let running = task("a", 1, 1, Running, "");
    let mut script =
        Script::with(std::slice::from_ref(&running), RestartPolicy::default(), 1, 1);
    assert_eq!(script.task(running), Verdict::Up(Duration::ZERO));
}

#[test]
fn a_rejected_task_fails_at_once_with_its_own_words() {
    let mut script = Script::new(1);
    let verdict = script.task(task("a", 1, 1, Rejected, "image nope:1 not found"));
    assert_eq!(verdict, failed("web.1: image nope:1 not found"));
}

#[test]
fn an_old_task_that_runs_on_does_not_hide_a_rejected_new_one() {
    let old = task("a", 1, 1, Running, "");
    let mut script = Script::with(std::slice::from_ref(&old), RestartPolicy::default(), 2, 1);
    script.task(old);
    let verdict = script.task(task("b", 1, 2, Rejected, "no such image"));
    assert_eq!(verdict, failed("web.1: no such image"));
}

#[test]
fn a_slot_that_keeps_failing_fails_at_the_third_time() {
    let mut script = Script::new(1);
    assert_eq!(script.task(task("a", 1, 1, Failed, "exit code 1")), Verdict::Waiting);
    assert_eq!(script.task(task("b", 1, 1, Running, "")), Verdict::Up(SETTLE_AFTER_FAILURE));
    assert_eq!(script.task(task("b", 1, 1, Failed, "exit code 1")), Verdict::Waiting);
    // Forgotten by the cluster, not by the wait.
    assert_eq!(script.removed("task", "a"), Verdict::Waiting);
    let third = script.task(task("c", 1, 1, Failed, "exit code 1"));
    assert_eq!(third, failed("web.1: exit code 1"));
}

#[test]
fn failures_of_different_slots_do_not_add_up() {
    let mut script = Script::new(3);
    for (id, slot) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(script.task(task(id, slot, 1, Failed, "exit code 1")), Verdict::Waiting);
    }
}

#[test]
fn tasks_with_the_same_words_share_a_line() {
    let mut script = Script::new(3);
    script.task(task("a", 2, 1, Rejected, "no such image"));
    let verdict = script.task(task("b", 1, 1, Rejected, "no such image"));
    assert_eq!(verdict, failed("web.1 and 1 more: no such image"));
}

#[test]
fn what_failed_before_the_change_does_not_fail_it() {
    let old = task("a", 1, 1, Rejected, "old news");
    let mut script = Script::with(std::slice::from_ref(&old), RestartPolicy::default(), 1, 1);
    assert_eq!(script.task(old), Verdict::Waiting);
    assert_eq!(script.task(task("b", 1, 1, Running, "")), Verdict::Up(SETTLE));
}

#[test]
fn failures_of_an_older_spec_do_not_count() {
    let mut script = Script::with(&[], RestartPolicy::default(), 2, 1);
    assert_eq!(script.task(task("a", 1, 1, Rejected, "old news")), Verdict::Waiting);
}

#[test]
fn a_program_that_is_meant_to_end_is_up_when_it_has() {
    let mut policy = RestartPolicy::default();
    policy.set_condition(RestartCondition::OnFailure);
    let mut script = Script::with(&[], policy, 1, 1);
    assert_eq!(script.task(task("a", 1, 1, Complete, "")), Verdict::Up(SETTLE));
}

#[test]
fn a_program_that_ends_again_and_again_is_told_so() {
    let mut script = Script::new(1);
    assert_eq!(script.task(task("a", 1, 1, Complete, "")), Verdict::Waiting);
    script.task(task("b", 1, 1, Complete, ""));
    let Verdict::Failed(reasons) = script.task(task("c", 1, 1, Complete, "")) else {
        panic!("should have failed");
    };
    assert!(reasons[0].starts_with("web.1: ended with exit code 0"), "{reasons:?}");
}

#[test]
fn without_restarts_the_first_failure_is_the_last() {
    let mut policy = RestartPolicy::default();
    policy.set_condition(RestartCondition::None);
    let mut script = Script::with(&[], policy, 1, 1);
    assert_eq!(script.task(task("a", 1, 1, Failed, "exit code 3")), failed("web.1: exit code 3"));
    let bounded = RestartPolicy { max_attempts: 1, ..RestartPolicy::default() };
    let mut script = Script::with(&[], bounded, 1, 1);
    assert_eq!(script.task(task("a", 1, 1, Failed, "exit code 3")), Verdict::Waiting);
    assert_eq!(script.task(task("b", 1, 1, Failed, "exit code 3")), failed("web.1: exit code 3"));
}

#[test]
fn a_later_deploy_and_a_removal_end_the_wait() {
    let stack = |revision, removing| {
        let spec = Some(StackSpec { name: "app".to_owned(), ..StackSpec::default() });
        Event::Stack(Stack { spec, revision, removing, ..Stack::default() })
    };
    let mut script = Script::new(1);
    script.progress = script.progress.of_revision(4);
    script.progress.take(stack(4, false));
    assert_eq!(script.progress.verdict(), Verdict::Waiting);
    script.progress.take(stack(5, false));
    assert_eq!(script.progress.verdict(), Verdict::Overtaken(5));
    script.progress.take(stack(5, true));
    assert_eq!(script.progress.verdict(), Verdict::Removed("stack app".to_owned()));
}

#[test]
fn a_service_taken_away_by_another_hand_ends_the_wait() {
    let mut script = Script::new(1);
    assert_eq!(script.removed("service", "s"), Verdict::Removed("service web".to_owned()));
}

#[test]
fn a_service_that_the_deploy_drops_is_waited_out() {
    let leaving = Service { removing: true, ..service(1, 1, RestartPolicy::default()) };
    let mut progress = Progress::new(std::slice::from_ref(&leaving), |_| "web".to_owned(), &[]);
    progress.take(Event::Service(leaving));
    progress.take(Event::Task(task("a", 1, 1, Running, "")));
    assert_eq!(progress.verdict(), Verdict::Waiting);
    assert_eq!(progress.lines()[0].doing, "being removed");
    let (kind, id) = ("service".to_owned(), "s".to_owned());
    progress.take(Event::Removed(RemovedObject { kind, id }));
    assert_eq!(progress.verdict(), Verdict::Up(Duration::ZERO));
}

#[test]
fn the_slowest_task_says_what_it_waits_for() {
    let mut script = Script::new(2);
    script.task(task("a", 1, 1, Preparing, ""));
    script.task(task("b", 2, 1, Pending, "no suitable node (1 lacks memory)"));
    let line = &script.progress.lines()[0];
    assert_eq!((line.up, line.wanted), (0, 2));
    assert_eq!(line.doing, "no suitable node (1 lacks memory)");
    assert_eq!(
        script.progress.reasons(),
        ["web.2: no suitable node (1 lacks memory)", "web.1: preparing"]
    );
}

#[test]
fn a_watch_that_begins_anew_forgets_objects_but_no_failure() {
    let mut script = Script::new(1);
    script.task(task("a", 1, 1, Failed, "exit code 1"));
    script.progress.restart();
    let service = service(1, 1, RestartPolicy::default());
    script.progress.take(Event::Service(service));
    assert_eq!(script.task(task("b", 1, 1, Running, "")), Verdict::Up(SETTLE_AFTER_FAILURE));
}
