//! What a container uses, as its groups count it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Hierarchy;

/// Reads and writes of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceUsage {
    /// `MAJOR:MINOR`
    pub device: String,
    /// Bytes.
    pub read: u64,
    /// Bytes.
    pub written: u64,
}

/// What a container uses; zero where the host does not count it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of all CPUs together.
    pub cpu: u64,
    /// Nanoseconds of them in the kernel.
    pub cpu_system: u64,
    /// Times that its CPU quota ran out.
    pub throttled: u64,
    /// Bytes, without the file cache that the kernel would give up first.
    pub memory: u64,
    /// Bytes of file cache among what is charged to it.
    pub cache: u64,
    /// Bytes that it may have; 0: no limit.
    pub memory_limit: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processes that it may have; 0: no limit.
    pub pids_limit: u64,
    /// By block device.
    pub devices: Vec<DeviceUsage>,
}

/// What v1 shows for "no limit", rounded down to whole pages.
const NO_LIMIT: u64 = 1 << 62;

pub(super) fn read(paths: &[(Hierarchy, PathBuf)]) -> Usage {
    let mut usage = Usage::default();
    for (hierarchy, path) in paths {
        if hierarchy.v2 {
            if super::limits::has_controllers(path) {
                v2(path, &mut usage);
            }
            continue;
        }
        for controller in &hierarchy.controllers {
            v1(controller, path, &mut usage);
        }
    }
    if usage.memory_limit >= NO_LIMIT {
        usage.memory_limit = 0;
    }
    usage
}

fn number(path: &Path, file: &str) -> u64 {
    let text = fs::read_to_string(path.join(file)).unwrap_or_default();
    // "max" is no number: no limit.
    text.trim().parse().unwrap_or(0)
}

/// A value of a file of `name value` lines.
fn field(path: &Path, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path.join(file)).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn v1(controller: &str, path: &Path, usage: &mut Usage) {
    match controller {
        "cpuacct" => {
            usage.cpu = number(path, "cpuacct.usage");
            usage.cpu_system = number(path, "cpuacct.usage_sys");
        }
        "cpu" => usage.throttled = field(path, "cpu.stat", "nr_throttled"),
        "memory" => {
            usage.cache = field(path, "memory.stat", "total_inactive_file");
            usage.memory = number(path, "memory.usage_in_bytes").saturating_sub(usage.cache);
            usage.memory_limit = number(path, "memory.limit_in_bytes");
        }
        "pids" => {
            usage.pids = number(path, "pids.current");
            usage.pids_limit = number(path, "pids.max");
        }
        "blkio" => {
            let text = fs::read_to_string(path.join("blkio.throttle.io_service_bytes"));
            for line in text.unwrap_or_default().lines() {
                let mut fields = line.split(' ');
                let (Some(device), Some(kind), Some(count)) =
                    (fields.next(), fields.next(), fields.next())
                else {
                    continue;
                };
                let count = count.parse().unwrap_or(0);
                match kind {
                    "Read" => of(usage, device).read += count,
                    "Write" => of(usage, device).written += count,
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn of<'a>(usage: &'a mut Usage, device: &str) -> &'a mut DeviceUsage {
    let index = match usage.devices.iter().position(|one| one.device == device) {
        Some(index) => index,
        None => {
            usage.devices.push(DeviceUsage { device: device.to_owned(), ..DeviceUsage::default() });
            usage.devices.len() - 1
        }
    };
    &mut usage.devices[index]
}

fn v2(path: &Path, usage: &mut Usage) {
    usage.cpu = field(path, "cpu.stat", "usage_usec") * 1000;
    usage.cpu_system = field(path, "cpu.stat", "system_usec") * 1000;
    usage.throttled = field(path, "cpu.stat", "nr_throttled");
    usage.cache = field(path, "memory.stat", "inactive_file");
    usage.memory = number(path, "memory.current").saturating_sub(usage.cache);
    usage.memory_limit = number(path, "memory.max");
    usage.pids = number(path, "pids.current");
    usage.pids_limit = number(path, "pids.max");
    let text = fs::read_to_string(path.join("io.stat")).unwrap_or_default();
    for line in text.lines() {
        let Some((device, counts)) = line.split_once(' ') else { continue };
        for (name, count) in counts.split(' ').filter_map(|part| part.split_once('=')) {
            let count = count.parse().unwrap_or(0);
            match name {
                "rbytes" => of(usage, device).read += count,
                "wbytes" => of(usage, device).written += count,
                _ => {}
            }
        }
    }
}
