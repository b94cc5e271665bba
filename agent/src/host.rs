//! What the host is, read from the kernel and /etc.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use shoal_proto::v1::{GenericResource, NodeDescription, Platform, Resources};

/// The host's name, as `hostname` prints it.
pub(crate) fn name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Everything but the routes, which the network knows, the volumes and the roots. What only people
/// can know comes in.
pub(crate) fn describe(
    generic_resources: &[GenericResource],
    labels: &BTreeMap<String, String>,
) -> NodeDescription {
    NodeDescription {
        hostname: name(),
        platform: Some(platform()),
        resources: Some(Resources {
            nano_cpus: cpus() * 1_000_000_000,
            memory_bytes: memory(),
            pids: 0,
        }),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        operating_system: operating_system(),
        host_routes: Vec::new(),
        trusted_roots: Vec::new(),
        generic_resources: generic_resources.to_vec(),
        volumes: Vec::new(),
        labels: labels.clone().into_iter().collect(),
    }
}

/// In the words of OCI images.
pub(crate) fn platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { architecture: architecture.to_owned(), os: "linux".to_owned() }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn cpus() -> i64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as i64)
}

/// `MemTotal:  24658192 kB`
fn memory() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|total| total.split_whitespace().next()?.parse::<i64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The address that packets to other hosts leave from. Nothing is sent: connecting a datagram
/// socket only looks the route up (192.0.2.1 is reserved for examples, RFC 5737).
pub(crate) fn outward_address() -> IpAddr {
    let route = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    route.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}
