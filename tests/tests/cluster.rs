//! Several hosts on a switch: joining, losing and emptying nodes.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;
use shoal_tests::{Agent, Output, Switch, skip, turn, until};

/// A manager and so many workers, named `worker1` and so on; all have the busybox image.
struct Cluster {
    manager: Agent,
    workers: Vec<Agent>,
    switch: Switch,
}

fn token(manager: &Agent) -> String {
    manager.must(&["cluster", "join-token", "-q"]).trim().to_owned()
}

impl Cluster {
    fn start(workers: u8) -> Self {
        let switch = Switch::new();
        let mut manager = Agent::on(switch.host(1), &["--name", "manager"]);
        manager.restart();
        manager.import_busybox();
        let mut cluster = Self { manager, workers: Vec::new(), switch };
        for number in 1..=workers {
            let name = format!("worker{number}");
            let mut worker = cluster.host(number + 1, &name, &token(&cluster.manager));
            worker.restart_worker();
            worker.import_busybox();
            cluster.workers.push(worker);
        }
        cluster.until_nodes("all have joined", |nodes| {
            nodes.len() == usize::from(workers) + 1
                && nodes.values().all(|state| state == "NODE_STATE_READY")
        });
        cluster
    }

    fn host(&self, number: u8, name: &str, token: &str) -> Agent {
        let manager = self.manager.host.address();
        let flags = ["--name", name, "--join", manager, "--token", token];
        Agent::on(self.switch.host(number), &flags)
    }

    fn until_nodes(&self, what: &str, done: impl Fn(&BTreeMap<String, String>) -> bool) {
        until(
            what,
            || {
                let text = self.manager.ctl(&["node", "ls", "--format", "json"]).stdout;
                let nodes: Value = serde_json::from_str(&text).unwrap_or_default();
                let state = |node: &Value| {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    (text(&node["spec"]["name"]), text(&node["status"]["state"]))
                };
                nodes.as_array().into_iter().flatten().map(state).collect::<BTreeMap<_, _>>()
            },
            done,
        );
    }

    fn deploy(&self, replicas: u32) {
        let file = self.manager.file(
            "app.yml",
            &format!(
                "services:\n  web:\n    image: busybox\n    command: sleep 1000\n    \
                 stop_grace_period: 0s\n    deploy: {{replicas: {replicas}}}\n"
            ),
        );
        self.manager.must(&["stack", "deploy", "-f", &file, "app", "--timeout", "60s"]);
    }

    /// Running tasks on each node, by name.
    fn places(&self) -> BTreeMap<String, usize> {
        let text = self.manager.must(&["stack", "ps", "app"]);
        let mut places = BTreeMap::new();
        for line in text.lines().filter(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.iter().filter(|word| **word == "Running").count() == 2
        }) {
            let at = ["manager", "worker1", "worker2"].into_iter().find(|node| line.contains(node));
            *places.entry(at.unwrap_or("nowhere").to_owned()).or_default() += 1;
        }
        places
    }

    fn until_places(&self, what: &str, wanted: &[(&str, usize)]) {
        let wanted: BTreeMap<String, usize> =
            wanted.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect();
        until(what, || self.places(), |places| *places == wanted);
    }
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
    let cluster = Cluster::start(2);
    cluster.deploy(6);
    assert_eq!(cluster.places().values().sum::<usize>(), 6);
    cluster.until_places("spread evenly", &[("manager", 2), ("worker1", 2), ("worker2", 2)]);
    cluster.switch.plug(2, false);
    let pulled = Instant::now();
    cluster.until_places("taken over", &[("manager", 3), ("worker2", 3)]);
    println!("taken over after {:.1} s", pulled.elapsed().as_secs_f64());
    assert_eq!(names(&cluster.workers[0]), 2, "cut off, it runs what it had");
    assert!(cluster.workers[0].ctl(&["node", "ls"]).stderr.contains("is a worker"));
    cluster.switch.plug(2, true);
    cluster.until_nodes("it is back", |nodes| nodes["worker1"] == "NODE_STATE_READY");
    until("it stops what is no longer its own", || names(&cluster.workers[0]), |count| *count == 0);
    cluster.until_places("nothing moves", &[("manager", 3), ("worker2", 3)]);
    cluster.manager.must(&["stack", "rm", "app"]);
}

#[test]
fn workers_outlive_their_manager_and_their_own_agent() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Cluster::start(1);
    cluster.deploy(4);
    cluster.until_places("spread", &[("manager", 2), ("worker1", 2)]);
    let before = cluster.manager.running("app");
    cluster.manager.end("-9");
    until(
        "the worker has noticed",
        || cluster.workers[0].log(),
        |log| log.contains("can't reach the manager"),
    );
    assert_eq!(names(&cluster.workers[0]), 2);
    cluster.manager.restart();
    cluster.until_nodes("the worker is back", |nodes| nodes["worker1"] == "NODE_STATE_READY");
    // A worker that is started again needs neither token nor address.
    cluster.workers[0].end("-9");
    cluster.workers[0].restart_worker();
    cluster.until_nodes("again", |nodes| nodes["worker1"] == "NODE_STATE_READY");
    until("the same tasks run", || cluster.manager.running("app"), |now| *now == before);
    // Its session comes a moment after it counts as ready still.
    until(
        "logs come from the worker too",
        || cluster.manager.ctl(&["service", "logs", "app_web"]),
        |logs| logs.code == 0 && logs.stdout.is_empty(),
    );
    cluster.manager.must(&["stack", "rm", "app"]);
}

#[test]
fn a_drained_node_is_emptied_and_a_paused_one_gets_nothing_new() {
    let _turn = turn();
    if skip() {
        return;
    }
    let cluster = Cluster::start(2);
    let must = |args: &[&str]| cluster.manager.must(args);
    must(&["node", "update", "--availability", "pause", "worker2"]);
    cluster.deploy(4);
    cluster.until_places("not on the paused one", &[("manager", 2), ("worker1", 2)]);
    must(&["node", "update", "--availability", "active", "worker2"]);
    must(&["node", "update", "--availability", "drain", "worker1"]);
    cluster.until_places("emptied", &[("manager", 2), ("worker2", 2)]);
    must(&["node", "update", "--label-add", "zone=eu", "worker1"]);
    let node: Value = serde_json::from_str(&must(&["node", "inspect", "worker1"])).unwrap();
    assert_eq!(node[0]["spec"]["labels"]["zone"], "eu");
    assert!(must(&["node", "ps", "worker2"]).contains("app_web"));
    must(&["node", "update", "--availability", "active", "worker1"]);
    let file = cluster.manager.file(
        "placed.yml",
        "services:\n  web:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n    \
         deploy: {replicas: 2, placement: {constraints: [\"node.labels.zone==eu\"]}}\n",
    );
    let deployed =
        cluster.manager.ctl(&["stack", "deploy", "-f", &file, "app", "--timeout", "60s"]);
    if deployed.code == 0 {
        cluster.until_places("where the label is", &[("worker1", 2)]);
    } else {
        assert!(deployed.stderr.contains("not supported yet"), "{deployed:#?}");
    }
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
    let mut cluster = Cluster::start(1);
    let old = token(&cluster.manager);
    let rotated = cluster.manager.must(&["cluster", "join-token", "--rotate", "-q"]);
    assert_ne!(rotated.trim(), old);
    assert_eq!(rotated.trim(), token(&cluster.manager));
    let words = |number: u8, name: &str, token: &str, expected: &str| {
        let outcome = refused(&cluster.host(number, name, token));
        assert!(outcome.code == 1 && outcome.stderr.contains(expected), "{expected}: {outcome:#?}");
    };
    words(3, "late", &old, "the join token is not, or no longer");
    words(4, "odd", "SWMTKN-1-a-b", "that is no join token");
    let (head, tail) = rotated.trim().rsplit_once('-').unwrap();
    let foreign = format!("SHOAL-1-{}-{tail}", "0".repeat(head.len() - "SHOAL-1-".len()));
    words(5, "foreign", &foreign, "is not the cluster that the token is of");
    words(6, "worker1", rotated.trim(), "a node of the name \"worker1\" is in the cluster");
    let nobody =
        Agent::on(cluster.switch.host(7), &["--join", "192.0.2.99", "--token", rotated.trim()]);
    assert!(refused(&nobody).stderr.contains("nothing answers there"));
    // A node that was taken out is not let in again.
    cluster.workers[0].end("-TERM");
    cluster.until_nodes("it is down", |nodes| nodes["worker1"] == "NODE_STATE_DOWN");
    cluster.manager.must(&["node", "rm", "worker1"]);
    cluster.workers[0].restart_worker();
    until(
        "it is told",
        || cluster.workers[0].log(),
        |log| log.contains("was taken out of the cluster"),
    );
    let last = cluster.manager.ctl(&["node", "rm", "--force", "manager"]);
    assert!(last.code == 1 && last.stderr.contains("is the only manager"), "{last:#?}");
}
