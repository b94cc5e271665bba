//! Golden scripts: what happens, then every task of the cluster once the orchestrator has nothing
//! more to do: `SLOT:STATE`, with `/DESIRED` where that is not running, and what a held task
//! waits for. Tasks of one slot stand oldest first.

mod dependency;
mod global;
mod job;
mod nodes;
mod rebalance;
mod removal;
mod restart;
mod update;

use std::sync::Arc;

use shoal_proto::v1::TaskState;
use shoal_proto::{ServiceId, TaskId};

use std::time::SystemTime;

use super::{Memory, reconcile_service, reconcile_stack};
use crate::deploy::scale_service;
use crate::lookup;
use crate::store::{Service, Stack, Task};
use crate::testing::{Cluster, placed, service};

const WEB: ServiceId = ServiceId::from_bits(1);

/// Lets the orchestrator look at everything until it changes nothing.
fn reconcile(cluster: &mut Cluster) {
    reconcile_with(cluster, &mut Memory::default());
}

/// The same with what the leader remembers; the clock that nobody sets goes with the other one.
fn reconcile_with(cluster: &mut Cluster, memory: &mut Memory) {
    for _ in 0..20 {
        let uptime = cluster.now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        memory.observe(&cluster.store, uptime);
        let before = cluster.store.version();
        let services: Vec<Arc<Service>> = cluster.store.services().cloned().collect();
        for service in services {
            let (_, changes) = cluster.propose(|store, context, changes| {
                reconcile_service(store, &service, memory, context, changes)
            });
            if !changes.is_empty() {
                cluster.apply(changes);
            }
        }
        let stacks: Vec<Arc<Stack>> = cluster.store.stacks().cloned().collect();
        for stack in stacks {
            let ((), changes) = cluster.propose(|store, context, changes| {
                reconcile_stack(store, &stack, context, changes);
            });
            if !changes.is_empty() {
                cluster.apply(changes);
            }
        }
        if cluster.store.version() == before {
            return;
        }
    }
    panic!("it never comes to rest: {}", picture(cluster));
}

fn picture(cluster: &Cluster) -> String {
    let mut tasks: Vec<&Arc<Task>> = cluster.store.tasks().collect();
    tasks.sort_by_key(|task| (task.slot, task.id));
    let line = |task: &Arc<Task>| {
        let mut line = format!("{}:{}", task.slot, task.state());
        if task.desired != TaskState::Running {
            line += &format!("/{}", task.desired);
        }
        if task.is_live() && !task.waiting_for.is_empty() {
            line += &format!(" ({})", task.waiting_for);
        }
        line
    };
    tasks.into_iter().map(line).collect::<Vec<_>>().join(" ")
}

/// Gives every waiting task node 1.
fn place(cluster: &mut Cluster) {
    let waiting: Vec<Arc<Task>> = cluster
        .store
        .tasks()
        .filter(|task| task.is_live() && task.node.is_none())
        .cloned()
        .collect();
    for task in waiting {
        cluster.put(placed((*task).clone(), 1, TaskState::Assigned));
    }
}

fn newest(cluster: &Cluster, slot: &str) -> TaskId {
    lookup::task(&cluster.store, slot).expect("a task in the slot").id
}

fn act(cluster: &mut Cluster, action: &str) {
    let web = cluster.store.service(WEB).cloned().expect("the scripts are about web");
    let words: Vec<&str> = action.split(' ').collect();
    match words[..] {
        ["agents"] => {
            place(cluster);
            cluster.agents();
        }
        ["place"] => place(cluster),
        ["update"] => {
            cluster.put(Service { spec_version: web.spec_version + 1, ..(*web).clone() });
        }
        ["scale", replicas] => cluster
            .commit(|_, context, changes| {
                scale_service(&web, replicas.parse().unwrap(), context, changes)
            })
            .unwrap(),
        [state, slot] => {
            let name = format!("TASK_STATE_{}", state.to_ascii_uppercase());
            let state = TaskState::from_str_name(&name).expect("the name of a state");
            let task = newest(cluster, slot);
            cluster.report(task, state);
        }
        _ => panic!("unknown action {action:?}"),
    }
    reconcile(cluster);
}

#[track_caller]
fn play(steps: &[(&str, &str)]) {
    let mut cluster = Cluster::default();
    cluster.put(service(1, "web", 0));
    for (action, expected) in steps {
        act(&mut cluster, action);
        assert_eq!(picture(&cluster), *expected, "after {action:?}");
    }
}

#[test]
fn scaling_down_takes_the_highest_slots_and_keeps_no_history_of_them() {
    play(&[
        ("scale 3", "1:new 2:new 3:new"),
        ("agents", "1:running 2:running 3:running"),
        ("scale 1", "1:running 2:running/remove 3:running/remove"),
        ("agents", "1:running"),
        ("scale 2", "1:running 2:new"),
        // The second never had a node: there is no agent to wait for.
        ("scale 0", "1:running/remove"),
        ("agents", ""),
    ]);
}

#[test]
fn scaling_down_keeps_the_slot_that_runs() {
    play(&[
        ("scale 3", "1:new 2:new 3:new"),
        ("place", "1:assigned 2:assigned 3:assigned"),
        ("running web.3", "1:assigned 2:assigned 3:running"),
        ("scale 1", "1:assigned/remove 2:assigned/remove 3:running"),
        ("agents", "3:running"),
        ("scale 2", "1:new 3:running"),
    ]);
}

#[test]
fn a_slot_is_not_filled_again_before_its_last_task_is_gone() {
    play(&[
        ("scale 2", "1:new 2:new"),
        ("agents", "1:running 2:running"),
        ("scale 1", "1:running 2:running/remove"),
        ("scale 2", "1:running 2:running/remove 2:new/ready (waits for web.2 to make room)"),
        ("agents", "1:running 2:ready"),
        ("agents", "1:running 2:running"),
    ]);
}

#[test]
fn a_task_that_ended_is_replaced_in_its_slot() {
    play(&[
        ("scale 2", "1:new 2:new"),
        ("agents", "1:running 2:running"),
        ("failed web.1", "1:failed/shutdown 1:new 2:running"),
        ("agents", "1:failed/shutdown 1:running 2:running"),
        ("complete web.2", "1:failed/shutdown 1:running 2:complete/shutdown 2:new"),
    ]);
}

#[test]
fn an_update_goes_slot_by_slot_and_stops_a_task_when_the_next_is_ready() {
    play(&[
        ("scale 2", "1:new 2:new"),
        ("agents", "1:running 2:running"),
        ("update", "1:running 1:new/ready (waits for web.1 to make room) 2:running"),
        ("agents", "1:running/shutdown 1:ready/ready (waits for web.1 to make room) 2:running"),
        ("agents", "1:shutdown/shutdown 1:ready 2:running"),
        (
            "agents",
            "1:shutdown/shutdown 1:running 2:running 2:new/ready (waits for web.2 to make room)",
        ),
    ]);
}

#[test]
fn a_rejected_update_costs_no_running_task_and_is_tried_again() {
    play(&[
        ("scale 2", "1:new 2:new"),
        ("agents", "1:running 2:running"),
        ("update", "1:running 1:new/ready (waits for web.1 to make room) 2:running"),
        ("place", "1:running 1:assigned/ready (waits for web.1 to make room) 2:running"),
        (
            "rejected web.1",
            "1:running 1:rejected/shutdown 1:new/ready (waits for web.1 to make room) 2:running",
        ),
    ]);
}
