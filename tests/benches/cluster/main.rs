//! Three managers, beside a swarm of three where docker is installed: how long it takes after a
//! manager was lost until writes are acknowledged, until all its tasks run elsewhere, and after it
//! is back until what it ran is gone; and how services come, grow, are updated and shrink. The two take turns; medians are printed, nothing fails on a
//! time. Then 5,000 agents that run nothing, with 100,000 tasks. Run by `make bench`; `cargo bench -p shoal-tests --bench
//! cluster -- leader|rollout|scale` runs a part.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // a bench

mod rollout;
mod swarm;

use std::time::{Duration, Instant};

use shoal_tests::measure::{Report, wait};
use shoal_tests::{Agent, Managers, sim};
use swarm::Swarm;

/// Of each figure; `SHOAL_BENCH_RUNS` changes it.
const RUNS: usize = 5;
/// A swarm takes minutes for one.
pub(crate) const PEER_RUNS: usize = 2;
const TASKS: usize = 6;

fn main() {
    if shoal_tests::skip() {
        return;
    }
    let runs = std::env::var("SHOAL_BENCH_RUNS").ok().and_then(|text| text.parse().ok());
    let runs = runs.unwrap_or(RUNS);
    let mut report = Report::new(runs);
    let shoal = Shoal::start();
    let peer = Swarm::start();
    let (mut own, mut peers) = (Times::default(), Times::default());
    for run in 0..if wants("leader") { runs } else { 0 } {
        shoal.lose_leader(&mut own);
        if let Some(peer) = peer.as_ref().filter(|_| run < PEER_RUNS) {
            peer.lose_leader(&mut peers);
        }
    }
    let mut add = |name: &str, own: Vec<f64>, peers: Vec<f64>, target: &str| {
        report.add(name, own, peer.as_ref().map(|_| peers), target);
    };
    if wants("leader") {
        add("leader cut off to the next write, s", own.written, peers.written, "<= 2");
        add("the same to all its tasks elsewhere, s", own.elsewhere, peers.elsewhere, "<= 6");
        add("healed to its stale containers gone, s", own.gone, peers.gone, "<= 2");
    }
    if wants("rollout") {
        rollout::measure(&mut report, &shoal, peer.as_ref());
    }
    drop((shoal, peer));
    report.print();
    if wants("scale") {
        println!();
        sim::scale::run(5000, 100_000);
    }
}

/// All parts, or those that are named after `--`.
fn wants(part: &str) -> bool {
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    named.is_empty() || named.iter().any(|name| name == part)
}

#[derive(Default)]
pub(crate) struct Times {
    pub(crate) written: Vec<f64>,
    pub(crate) elsewhere: Vec<f64>,
    pub(crate) gone: Vec<f64>,
}

pub(crate) struct Shoal {
    cluster: Managers,
}

impl Shoal {
    fn start() -> Self {
        let cluster = Managers::start(3, 0);
        cluster.deploy(&cluster.managers[0], TASKS as u32);
        Self { cluster }
    }

    fn lose_leader(&self, times: &mut Times) {
        let cluster = &self.cluster;
        let mut leader = None;
        wait("somebody leads", || {
            leader = cluster.leader(&cluster.managers[0]);
            leader.is_some()
        });
        let leader = leader.unwrap();
        let other: &Agent = &cluster.managers[(leader + 1) % 3];
        let host = u8::try_from(leader).unwrap() + 1;
        // The leader has its part of the tasks.
        let name = format!("m{}", leader + 1);
        if !cluster.places(other).contains_key(&name) {
            other.must(&["service", "scale", "app_web=0"]);
            wait("none run", || cluster.places(other).is_empty());
            other.must(&["service", "scale", &format!("app_web={TASKS}")]);
        }
        wait("all run", || cluster.places(other).values().sum::<usize>() == TASKS);
        // One that was lost again and again gets none for a while.
        let has_tasks = cluster.places(other).contains_key(&name);
        cluster.switch.plug(host, false);
        let cut = Instant::now();
        while other.ctl(&["node", "update", "--label-add", "key=value", &name]).code != 0 {
            assert!(cut.elapsed() < Duration::from_secs(60));
        }
        times.written.push(cut.elapsed().as_secs_f64());
        // The next write changes something again.
        other.must(&["node", "update", "--label-rm", "key", &name]);
        wait("its tasks run elsewhere", || {
            let places = cluster.places(other);
            places.values().sum::<usize>() == TASKS && !places.contains_key(&name)
        });
        if has_tasks {
            times.elsewhere.push(cut.elapsed().as_secs_f64());
        }
        cluster.switch.plug(host, true);
        let healed = Instant::now();
        let lost = &cluster.managers[leader];
        wait("its containers are gone", || lost.must(&["ps", "-q"]).is_empty());
        if has_tasks {
            times.gone.push(healed.elapsed().as_secs_f64());
        }
        cluster.until_whole();
    }
}

impl Drop for Shoal {
    fn drop(&mut self) {
        let _ = self.cluster.managers[0].ctl(&["stack", "rm", "app"]);
    }
}
