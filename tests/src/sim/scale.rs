//! A large cluster on the simulation's network and clock, with nothing going wrong: what it costs
//! the managers. Figures are of this process, which has all three managers and all agents in it.

use std::time::{Duration, Instant};

use prost::Message as _;
use shoal_core::store::Store;
use shoal_proto::v1::{
    ContainerSpec, ReplicatedMode, ServiceMode, ServiceSpec, StackService, StackSpec, TaskSpec,
    TaskState, service_mode,
};

use super::{Sim, Time};

/// Copies of the store that its memory is measured over.
const MEASURED: u64 = 4;
/// Tasks of one service.
const REPLICAS: u64 = 1000;

/// Starts the cluster, deploys, and prints what it took.
#[allow(clippy::print_stdout)] // a benchmark's figures
pub fn run(agents: u64, tasks: u64) {
    let mut sim = Sim::large(3, agents);
    let begun = Instant::now();
    sim.run_until(Duration::from_secs(300), |sim| sim.ready_nodes() as u64 == agents);
    let joined = begun.elapsed();
    println!(
        "{agents} agents on 3 managers, in one process: joined in {:.1} s of work",
        joined.as_secs_f64()
    );
    let begun = Instant::now();
    let (virtual_begin, work_before) = (sim.world.now, sim.manager_work);
    let services = tasks.div_ceil(REPLICAS);
    sim.deploy(&spec(services));
    sim.run_until(Duration::from_secs(3600), |sim| sim.running_tasks() as u64 == tasks);
    let (work, managers_work) = (begun.elapsed(), sim.manager_work - work_before);
    let virtual_time = sim.world.now - virtual_begin;
    println!(
        "{tasks} tasks: all run after {:.1} s of the cluster's time; {:.1} s of work, {:.1} s of it the managers'",
        virtual_time.as_secs_f64(),
        work.as_secs_f64(),
        managers_work.as_secs_f64()
    );
    let (bytes, encoded) = sim.bytes_of_store();
    println!(
        "a manager's store: {:.2} kB in memory for each task, {:.0} bytes encoded",
        bytes as f64 / 1024.0 / tasks as f64,
        encoded as f64 / tasks as f64
    );
    let begun = sim.manager_work;
    let rest = Duration::from_secs(10);
    let until = sim.world.now + rest;
    sim.run_until(rest * 2, |sim| sim.world.now >= until);
    println!(
        "at rest: {:.1} % of a core for the three managers",
        100.0 * (sim.manager_work - begun).as_secs_f64() / rest.as_secs_f64()
    );
}

fn spec(services: u64) -> StackSpec {
    let service = |number: u64| {
        let container = ContainerSpec { image: "app:1".to_owned(), ..ContainerSpec::default() };
        let replicated = ReplicatedMode { replicas: REPLICAS };
        let spec = ServiceSpec {
            name: format!("big_web{number}"),
            task: Some(TaskSpec { container: Some(container), ..TaskSpec::default() }),
            mode: Some(ServiceMode { mode: Some(service_mode::Mode::Replicated(replicated)) }),
            ..ServiceSpec::default()
        };
        StackService { name: format!("web{number}"), spec: Some(spec) }
    };
    StackSpec {
        name: "big".to_owned(),
        services: (0..services).map(service).collect(),
        ..StackSpec::default()
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

impl Sim {
    fn run_until(&mut self, limit: Time, done: impl Fn(&Self) -> bool) {
        let end = self.world.now + limit;
        let mut next_look = self.world.now;
        loop {
            if self.world.now >= next_look {
                if done(self) {
                    return;
                }
                next_look = self.world.now + Duration::from_millis(100);
            }
            assert!(self.world.now < end, "not in time: {} run", self.running_tasks());
            self.next();
        }
    }

    fn ready_nodes(&self) -> usize {
        let Some(store) = self.leader_store() else { return 0 };
        store
            .nodes()
            .filter(|node| node.status.state() == shoal_proto::v1::NodeState::Ready)
            .count()
    }

    fn running_tasks(&self) -> usize {
        let Some(store) = self.leader_store() else { return 0 };
        store.tasks().filter(|task| task.state() == TaskState::Running).count()
    }

    /// What one more copy of the store takes in memory, made as a manager makes it from a snapshot,
    /// and how long it is when it is encoded.
    fn bytes_of_store(&self) -> (u64, usize) {
        let store = self.leader_store().unwrap();
        let snapshot = store.snapshot();
        let encoded = snapshot.encoded_len();
        let copy = || Store::restore(snapshot.clone()).unwrap();
        // The first ones take what was free in this process; all are kept.
        let mut copies: Vec<Store> = (0..4).map(|_| copy()).collect();
        let before = resident();
        copies.extend((0..MEASURED).map(|_| copy()));
        let bytes = resident().saturating_sub(before) / MEASURED;
        assert!(copies.iter().all(|copy| copy.tasks().count() == store.tasks().count()));
        (bytes, encoded)
    }
}
