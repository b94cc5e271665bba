//! How long a node's rules take to follow a change, by the number of services that it knows: one
//! endpoint comes, one goes, one container is attached. In a network namespace of its own; needs root.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, unshare};
use shoal_network::{
    Desired, Endpoint, Engine, EngineConfig, Network, PortMode, Protocol, PublishedPort, Service,
};

const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];
const ENDPOINTS: u32 = 5;
const RUNS: usize = 9;

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + 2 + number)
}

fn service(number: u32) -> Service {
    let endpoint = |slot: u32| Endpoint {
        task: format!("task{number}x{slot}"),
        slot: u64::from(slot) + 1,
        local: slot == 0,
        addresses: BTreeMap::from([(
            "net".to_owned(),
            address(number * (ENDPOINTS + 1) + slot + 1),
        )]),
        way_out: None,
    };
    let port = PublishedPort {
        protocol: Protocol::Sctp,
        target: 80,
        published: u16::try_from(20_000 + number).unwrap_or(0),
        host_ip: None,
        mode: PortMode::Ingress,
    };
    Service {
        id: format!("s{number}"),
        name: format!("service{number}"),
        short_name: format!("service{number}"),
        vips: BTreeMap::from([("net".to_owned(), address(number * (ENDPOINTS + 1)))]),
        // One in ten is published.
        ports: if number.is_multiple_of(10) { vec![port] } else { Vec::new() },
        endpoints: (0..ENDPOINTS).map(endpoint).collect(),
        ..Service::default()
    }
}

fn desired(services: u32) -> Desired {
    Desired {
        networks: vec![Network {
            id: "net".to_owned(),
            name: "net".to_owned(),
            subnet: Ipv4Net::new(Ipv4Addr::new(10, 64, 0, 0), 10).unwrap(),
            gateway: Ipv4Addr::new(10, 64, 0, 1),
            internal: false,
        }],
        services: (0..services).map(service).collect(),
        ..Desired::default()
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

async fn timed(engine: &Engine, state: &Desired) -> Duration {
    let begin = Instant::now();
    engine.apply(state).await.unwrap();
    begin.elapsed()
}

async fn measure() {
    println!("{:>8} {:>12} {:>12} {:>12}", "services", "first, ms", "leaves, ms", "comes, ms");
    for size in SIZES {
        let dir = std::env::temp_dir().join(format!("shoal-bench-rules-{size}"));
        std::fs::create_dir_all(&dir).unwrap();
        let config = EngineConfig {
            instance: "bench".to_owned(),
            state_dir: dir.clone(),
            resolv_conf: "/etc/resolv.conf".into(),
        };
        let engine = Engine::open(config).await.unwrap();
        let all = desired(size);
        let first = timed(&engine, &all).await;
        let (mut leaves, mut comes) = (Vec::new(), Vec::new());
        for run in 0..RUNS {
            let mut less = all.clone();
            let number = (run * 7919) % less.services.len();
            less.services[number].endpoints.pop();
            leaves.push(timed(&engine, &less).await);
            comes.push(timed(&engine, &all).await);
        }
        println!(
            "{size:>8} {:>12.1} {:>12.2} {:>12.2}",
            first.as_secs_f64() * 1000.0,
            median(leaves),
            median(comes)
        );
        engine.remove_all().await.unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }
}

fn main() {
    // Before there are threads: all of them are to be in it.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}
