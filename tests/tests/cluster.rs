//! Several hosts on a switch: joining, losing and emptying nodes.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;
use shoal_tests::{Agent, Managers, Output, skip, turn, until};

fn until_state(cluster: &Managers, what: &str, node: &str, state: &str) {
    let nodes = || cluster.nodes(&cluster.managers[0]);
    until(what, nodes, |nodes| nodes.get(node).is_some_and(|node| node.state == state));
}

fn until_places(cluster: &Managers, what: &str, wanted: &[(&str, usize)]) {
    let wanted: BTreeMap<String, usize> =
        wanted.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect();
    until(what, || cluster.places(&cluster.managers[0]), |places| *places == wanted);
}

fn token(manager: &Agent) -> String {
    manager.must(&["cluster", "join-token", "-q"]).trim().to_owned()
}

fn names(agent: &Agent) -> usize {
    agent.must(&["ps", "-q"]).lines().count()
}

#[test]
fn a_lost_node_is_replaced_within_seconds_and_stops_its_own_when_it_is_back() {
    let _turn = turn();
    if skip() {
        return;
    }
    let cluster = Managers::start(1, 2);
    cluster.deploy(&cluster.managers[0], 6);
    assert_eq!(cluster.places(&cluster.managers[0]).values().sum::<usize>(), 6);
    until_places(&cluster, "spread evenly", &[("m1", 2), ("w1", 2), ("w2", 2)]);
    cluster.switch.plug(2, false);
    let pulled = Instant::now();
    until_places(&cluster, "taken over", &[("m1", 3), ("w2", 3)]);
    println!("taken over after {:.1} s", pulled.elapsed().as_secs_f64());
    assert_eq!(names(&cluster.workers[0]), 2, "cut off, it runs what it had");
    assert!(cluster.workers[0].ctl(&["node", "ls"]).stderr.contains("is a worker"));
    cluster.switch.plug(2, true);
    until_state(&cluster, "it is back", "w1", "READY");
    until("it stops what is no longer its own", || names(&cluster.workers[0]), |count| *count == 0);
    until_places(&cluster, "nothing moves", &[("m1", 3), ("w2", 3)]);
    cluster.managers[0].must(&["stack", "rm", "app"]);
}

#[test]
fn workers_outlive_their_manager_and_their_own_agent() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(1, 1);
    cluster.deploy(&cluster.managers[0], 4);
    until_places(&cluster, "spread", &[("m1", 2), ("w1", 2)]);
    let before = cluster.managers[0].running("app");
    cluster.managers[0].end("-9");
    until(
        "the worker has noticed",
        || cluster.workers[0].log(),
        |log| log.contains("can't reach the manager"),
    );
    assert_eq!(names(&cluster.workers[0]), 2);
    cluster.managers[0].restart();
    until_state(&cluster, "the worker is back", "w1", "READY");
    // A worker that is started again needs neither token nor address.
    cluster.workers[0].end("-9");
    cluster.workers[0].restart_worker();
    until_state(&cluster, "again", "w1", "READY");
    until("the same tasks run", || cluster.managers[0].running("app"), |now| *now == before);
    // Its session comes a moment after it counts as ready still.
    until(
        "logs come from the worker too",
        || cluster.managers[0].ctl(&["service", "logs", "app_web"]),
        |logs| logs.code == 0 && logs.stdout.is_empty(),
    );
    cluster.managers[0].must(&["stack", "rm", "app"]);
}

#[test]
fn a_drained_node_is_emptied_and_a_paused_one_gets_nothing_new() {
    let _turn = turn();
    if skip() {
        return;
    }
    let cluster = Managers::start(1, 2);
    let must = |args: &[&str]| cluster.managers[0].must(args);
    must(&["node", "update", "--availability", "pause", "w2"]);
    cluster.deploy(&cluster.managers[0], 4);
    until_places(&cluster, "not on the paused one", &[("m1", 2), ("w1", 2)]);
    must(&["node", "update", "--availability", "active", "w2"]);
    must(&["node", "update", "--availability", "drain", "w1"]);
    until_places(&cluster, "emptied", &[("m1", 2), ("w2", 2)]);
    must(&["node", "update", "--label-add", "zone=eu", "w1"]);
    let node: Value = serde_json::from_str(&must(&["node", "inspect", "w1"])).unwrap();
    assert_eq!(node[0]["spec"]["labels"]["zone"], "eu");
    assert!(must(&["node", "ps", "w2"]).contains("app_web"));
    must(&["node", "update", "--availability", "active", "w1"]);
    let file = cluster.managers[0].file(
        "placed.yml",
        "services:\n  web:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n    \
         deploy: {replicas: 2, placement: {constraints: [\"node.labels.zone==eu\"]}}\n",
    );
    must(&["stack", "deploy", "-f", &file, "app", "--timeout", "60s"]);
    until_places(&cluster, "where the label is", &[("w1", 2)]);
    must(&["stack", "rm", "app"]);
}

fn refused(agent: &Agent) -> Output {
    let output = agent.command().output().unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn who_may_not_join_is_told_why() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(1, 1);
    let old = token(&cluster.managers[0]);
    let rotated = cluster.managers[0].must(&["cluster", "join-token", "--rotate", "-q"]);
    assert_ne!(rotated.trim(), old);
    assert_eq!(rotated.trim(), token(&cluster.managers[0]));
    let words = |number: u8, name: &str, token: &str, expected: &str| {
        let address = cluster.managers[0].host.address();
        let flags = ["--name", name, "--join", address, "--token", token];
        let outcome = refused(&Agent::on(cluster.switch.host(number), &flags));
        assert!(outcome.code == 1 && outcome.stderr.contains(expected), "{expected}: {outcome:#?}");
    };
    words(3, "late", &old, "the join token is not, or no longer");
    words(4, "odd", "SWMTKN-1-a-b", "that is no join token");
    let (head, tail) = rotated.trim().rsplit_once('-').unwrap();
    let foreign = format!("SHOAL-1-{}-{tail}", "0".repeat(head.len() - "SHOAL-1-".len()));
    words(5, "foreign", &foreign, "is not the cluster that the token is of");
    words(6, "w1", rotated.trim(), "a node of the name \"w1\" is in the cluster");
    let nobody =
        Agent::on(cluster.switch.host(7), &["--join", "192.0.2.99", "--token", rotated.trim()]);
    assert!(refused(&nobody).stderr.contains("nothing answers there"));
    // A node that was taken out is not let in again.
    cluster.workers[0].end("-TERM");
    until_state(&cluster, "it is down", "w1", "DOWN");
    cluster.managers[0].must(&["node", "rm", "w1"]);
    cluster.workers[0].restart_worker();
    until(
        "it is told",
        || cluster.workers[0].log(),
        |log| log.contains("was taken out of the cluster"),
    );
    let last = cluster.managers[0].ctl(&["node", "rm", "--force", "m1"]);
    assert!(last.code == 1 && last.stderr.contains("is the only manager"), "{last:#?}");
}
