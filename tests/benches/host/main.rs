//! One host, beside Docker where it is installed: deploy, scale, memory, pull. Each figure is
//! taken several times, the two in turn, and printed as a median with its ratio; nothing fails on
//! a time. Run by `make bench`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // a bench

mod docker;
mod image;

mod shoal;

use docker::Docker;
use shoal::Shoal;
use shoal_tests::Registry;
use shoal_tests::measure::{Report, seconds};

/// Of each figure; `SHOAL_BENCH_RUNS` changes it.
const RUNS: usize = 5;
const MANY: u32 = 50;
const AT_ONCE: usize = 200;

fn main() {
    // `cargo bench` and `cargo test` pass flags of their own.
    if shoal_tests::skip() {
        return;
    }
    let runs = std::env::var("SHOAL_BENCH_RUNS").ok().and_then(|text| text.parse().ok());
    let runs = runs.unwrap_or(RUNS);
    let shoal = Shoal::start();
    let docker = Docker::start();
    match &docker {
        Some(docker) => println!("beside docker {}", docker.version()),
        None => println!("docker is not installed: no figures beside it"),
    }
    let mut report = Report::new(runs);
    memory_idle(&mut report, &shoal, docker.as_ref());
    deploys(&mut report, &shoal, docker.as_ref());
    scales(&mut report, &shoal, docker.as_ref());
    run_and_exec(&mut report, &shoal, docker.as_ref());
    many(&mut report, &shoal);
    pulls(&mut report, &shoal, docker.as_ref());
    report.print();
}

fn memory_idle(report: &mut Report, shoal: &Shoal, docker: Option<&Docker>) {
    let own = vec![shoal.rss_megabytes()];
    let peer = docker.map(|docker| vec![docker.rss_megabytes()]);
    report.add("daemon's RSS, idle, MB", own, peer, "<= 30 MB");
}

fn deploys(report: &mut Report, shoal: &Shoal, docker: Option<&Docker>) {
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..report.runs {
        own.push(seconds(|| shoal.deploy()));
        shoal.remove();
        if let Some(docker) = docker {
            peer.push(seconds(|| docker.deploy()));
            docker.remove();
        }
    }
    report.add("stack deploy of one replica to running, s", own, docker.map(|_| peer), "<= 0.2 x");
}

fn scales(report: &mut Report, shoal: &Shoal, docker: Option<&Docker>) {
    shoal.deploy();
    if let Some(docker) = docker {
        docker.deploy();
    }
    let (mut up, mut down, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peer_up, mut peer_down, mut peer_memory) = (Vec::new(), Vec::new(), Vec::new());
    let mut shims = (Vec::new(), Vec::new());
    let mut shares = (Vec::new(), Vec::new());
    // A scale by docker takes a quarter of a minute.
    for _ in 0..report.runs.min(3) {
        up.push(seconds(|| shoal.scale(MANY)));
        memory.push(shoal.rss_megabytes());
        shims.0.push(shoal.shim_private_kilobytes());
        shares.0.push(shoal.shim_pss_kilobytes());
        down.push(seconds(|| shoal.scale(1)));
        if let Some(docker) = docker {
            peer_up.push(seconds(|| docker.scale(MANY)));
            peer_memory.push(docker.rss_megabytes());
            shims.1.push(docker.shim_private_kilobytes());
            shares.1.push(docker.shim_pss_kilobytes());
            peer_down.push(seconds(|| docker.scale(1)));
        }
    }
    let beside = |figures| docker.map(|_| figures);
    report.add("scale 1 -> 50 to all running, s", up, beside(peer_up), "<= 0.1 x");
    report.add("scale 50 -> 1 to all gone, s", down, beside(peer_down), "");
    report.add("daemon's RSS with 50 containers, MB", memory, beside(peer_memory), "");
    report.add("a shim's private memory, kB", shims.0, beside(shims.1), "<= 512 kB");
    report.add("a shim's PSS, kB", shares.0, beside(shares.1), "<= 1024 kB");
    shoal.remove();
    if let Some(docker) = docker {
        docker.remove();
    }
}

fn run_and_exec(report: &mut Report, shoal: &Shoal, docker: Option<&Docker>) {
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    let (mut own_exec, mut peer_exec) = (Vec::new(), Vec::new());
    shoal.run_in_background();
    if let Some(docker) = docker {
        docker.run_in_background();
    }
    for _ in 0..report.runs * 4 {
        own.push(seconds(|| shoal.run_to_its_end()) * 1000.0);
        own_exec.push(seconds(|| shoal.exec()) * 1000.0);
        if let Some(docker) = docker {
            peer.push(seconds(|| docker.run_to_its_end()) * 1000.0);
            peer_exec.push(seconds(|| docker.exec()) * 1000.0);
        }
    }
    let beside = |figures| docker.map(|_| figures);
    report.add("run --rm, network on, to the shell's return, ms", own, beside(peer), "<= 0.1 x");
    report.add("exec, ms", own_exec, beside(peer_exec), "");
}

/// 200 at once, on however many cores there are.
fn many(report: &mut Report, shoal: &Shoal) {
    let (total, slowest) = shoal.start_many(AT_ONCE);
    report.add("200 containers started at once, all, s", vec![total], None, "");
    report.add("200 containers started at once, the slowest, s", vec![slowest], None, "");
}

fn pulls(report: &mut Report, shoal: &Shoal, docker: Option<&Docker>) {
    if !Registry::is_installed() {
        return println!("docker-registry is not installed: no pulls");
    }
    let mut registry = Registry::new();
    registry.serve(shoal.host());
    if let Some(docker) = docker {
        registry.serve(docker.host());
    }
    let megabytes = image::put(&registry, "large");
    let image = format!("{}/large:latest", registry.address());
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..report.runs {
        own.push(seconds(|| shoal.pull(&image)));
        shoal.remove_image(&image);
        if let Some(docker) = docker {
            peer.push(seconds(|| docker.pull(&image)));
            docker.remove_image(&image);
        }
    }
    let name = format!("pull of an image of {megabytes} MB from loopback, s");
    report.add(&name, own, docker.map(|_| peer), "");
}
