//! Services on three nodes, beside the swarm: a service of one is made, has 30 replicas, 60, all of
//! which are replaced at once, and one again.

use std::collections::BTreeSet;

use serde_json::Value;
use shoal_tests::Agent;
use shoal_tests::measure::{Report, seconds, wait};

use crate::swarm::Swarm;
use crate::{PEER_RUNS, Shoal};

const FEW: usize = 30;
const MANY: usize = 60;
const NAME: &str = "roll";

/// The same deeds for both.
pub(crate) trait Rollout {
    fn create(&self);
    fn scale(&self, replicas: usize);
    /// All tasks at once, to another variable.
    fn update(&self, number: usize);
    fn remove(&self);
    /// Ids of the tasks that run and shall.
    fn running(&self) -> BTreeSet<String>;

    fn until(&self, replicas: usize) {
        wait("so many run", || self.running().len() == replicas);
    }
}

#[derive(Default)]
struct Times {
    create: Vec<f64>,
    up: Vec<f64>,
    update: Vec<f64>,
    down: Vec<f64>,
}

pub(crate) fn measure(report: &mut Report, shoal: &Shoal, peer: Option<&Swarm>) {
    let (mut own, mut peers) = (Times::default(), Times::default());
    for run in 0..report.runs {
        one(shoal, run, &mut own);
        if let Some(peer) = peer.filter(|_| run < PEER_RUNS) {
            one(peer, run, &mut peers);
        }
    }
    let mut add = |name: &str, own, peers, target| {
        report.add(name, own, peer.map(|_| peers), target);
    };
    add("three nodes: a service of one runs, s", own.create, peers.create, "<= 0.2 x");
    add("three nodes: 1 -> 30 running, s", own.up, peers.up, "<= 0.1 x");
    add("three nodes: 60 replaced at once, s", own.update, peers.update, "<= 0.15 x");
    add("three nodes: 60 -> 1, s", own.down, peers.down, "");
}

fn one(cluster: &impl Rollout, run: usize, times: &mut Times) {
    times.create.push(seconds(|| {
        cluster.create();
        cluster.until(1);
    }));
    times.up.push(seconds(|| {
        cluster.scale(FEW);
        cluster.until(FEW);
    }));
    cluster.scale(MANY);
    cluster.until(MANY);
    let before = cluster.running();
    times.update.push(seconds(|| {
        cluster.update(run);
        wait("all are others", || {
            let now = cluster.running();
            now.len() == MANY && now.is_disjoint(&before)
        });
    }));
    times.down.push(seconds(|| {
        cluster.scale(1);
        cluster.until(1);
    }));
    cluster.remove();
    wait("none is left", || cluster.running().is_empty());
}

impl Shoal {
    fn asked(&self) -> &Agent {
        &self.cluster.managers[0]
    }
}

impl Rollout for Shoal {
    fn create(&self) {
        self.asked().must(&[
            "service",
            "create",
            "-d",
            "--name",
            NAME,
            "--stop-grace-period",
            "0s",
            "--update-parallelism",
            "0",
            "busybox",
            "sleep",
            "1000",
        ]);
    }

    fn scale(&self, replicas: usize) {
        self.asked().must(&["service", "scale", "-d", &format!("{NAME}={replicas}")]);
    }

    fn update(&self, number: usize) {
        self.asked().must(&["service", "update", "-d", "--env", &format!("N={number}"), NAME]);
    }

    fn remove(&self) {
        self.asked().must(&["service", "rm", NAME]);
    }

    fn running(&self) -> BTreeSet<String> {
        let text = self.asked().ctl(&["service", "ps", NAME, "--format", "json"]).stdout;
        let tasks: Value = serde_json::from_str(&text).unwrap_or_default();
        let running = tasks.as_array().into_iter().flatten().filter(|task| {
            task["status"]["state"] == "TASK_STATE_RUNNING"
                && task["desiredState"] == "TASK_STATE_RUNNING"
        });
        running.map(|task| task["id"].to_string()).collect()
    }
}

impl Rollout for Swarm {
    fn create(&self) {
        // It stays for the next time.
        let _ = self.docker(0, &["network", "create", "-d", "overlay", NAME]);
        self.must(
            0,
            &[
                "service",
                "create",
                "-d",
                "--name",
                NAME,
                "--network",
                NAME,
                "--endpoint-mode",
                "dnsrr",
                "--stop-grace-period",
                "0s",
                "--update-parallelism",
                "0",
                crate::swarm::IMAGE,
            ],
        );
    }

    fn scale(&self, replicas: usize) {
        self.must(0, &["service", "scale", "-d", &format!("{NAME}={replicas}")]);
    }

    fn update(&self, number: usize) {
        self.must(0, &["service", "update", "-d", "--env-add", &format!("N={number}"), NAME]);
    }

    fn remove(&self) {
        self.must(0, &["service", "rm", NAME]);
    }

    fn running(&self) -> BTreeSet<String> {
        let format = "{{.ID}} {{.CurrentState}}";
        let args = ["service", "ps", NAME, "--filter", "desired-state=running", "--format", format];
        let text = self.docker(0, &args).unwrap_or_default();
        let running = text.lines().filter(|line| line.contains(" Running"));
        running.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    }
}
