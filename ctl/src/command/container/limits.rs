//! Limits of resources, as `docker run` and `docker update` name them.

use clap::Args;
use shoal_proto::ByteSize;
use shoal_proto::v1::{BlockIo, ContainerLimits, DeviceLimit};

/// What a container may use.
#[derive(Debug, Args)]
pub(super) struct Limits {
    /// Memory: 512m
    #[arg(short, long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<i64>,
    /// Memory and swap together; -1: no limit of swap [default: no swap beyond the memory]
    #[arg(long, value_name = "SIZE", value_parser = swap, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Memory that is kept for it when memory is short
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// CPUs: 1.5
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<i64>,
    /// Weight of its CPU time beside others' (1024 is the usual)
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Microseconds of CPU time in each period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<i64>,
    /// Microseconds of a period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// CPUs that it may run on: 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that it may use: 0,1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads; -1: no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Weight of its block I/O beside others', from 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u32>,
}

/// Rates of block devices, for `run` and `create` alone.
#[derive(Debug, Args)]
pub(super) struct Rates {
    /// Bytes a second to be read from a device: /dev/sda:10m
    #[arg(long, value_name = "DEVICE:RATE", value_parser = byte_rate)]
    device_read_bps: Vec<DeviceLimit>,
    /// Bytes a second to be written to a device: /dev/sda:10m
    #[arg(long, value_name = "DEVICE:RATE", value_parser = byte_rate)]
    device_write_bps: Vec<DeviceLimit>,
    /// Reads a second from a device: /dev/sda:100
    #[arg(long, value_name = "DEVICE:RATE", value_parser = rate)]
    device_read_iops: Vec<DeviceLimit>,
    /// Writes a second to a device: /dev/sda:100
    #[arg(long, value_name = "DEVICE:RATE", value_parser = rate)]
    device_write_iops: Vec<DeviceLimit>,
}

pub(in crate::command) fn bytes(text: &str) -> Result<i64, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}"))?;
    i64::try_from(size.0).map_err(|_| format!("{text} is too large"))
}

fn swap(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// In billionths.
pub(in crate::command) fn cpus(text: &str) -> Result<i64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.01..1e6).contains(&number) => Ok((number * 1e9).round() as i64),
        _ => Err(format!("{text:?} is no number of CPUs such as 0.5")),
    }
}

fn split(text: &str) -> Result<(String, &str), String> {
    match text.rsplit_once(':') {
        Some((path, rate)) if path.starts_with("/dev/") => Ok((path.to_owned(), rate)),
        _ => Err(format!("{text:?} is not of the form /dev/NAME:RATE")),
    }
}

fn byte_rate(text: &str) -> Result<DeviceLimit, String> {
    let (path, rate) = split(text)?;
    Ok(DeviceLimit { path, rate: bytes(rate)? as u64 })
}

fn rate(text: &str) -> Result<DeviceLimit, String> {
    let (path, rate) = split(text)?;
    let rate = rate.parse().map_err(|_| format!("{rate:?} is no number"))?;
    Ok(DeviceLimit { path, rate })
}

impl Limits {
    pub(super) fn is_empty(&self) -> bool {
        self.wire() == ContainerLimits::default()
    }

    pub(super) fn wire(&self) -> ContainerLimits {
        ContainerLimits {
            memory_bytes: self.memory.unwrap_or_default(),
            memory_swap_bytes: self.memory_swap.unwrap_or_default(),
            memory_reservation_bytes: self.memory_reservation.unwrap_or_default(),
            nano_cpus: self.cpus.unwrap_or_default(),
            cpu_shares: self.cpu_shares.unwrap_or_default(),
            cpu_quota: self.cpu_quota.unwrap_or_default(),
            cpu_period: self.cpu_period.unwrap_or_default(),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            pids: self.pids_limit.unwrap_or_default(),
            block_io: self.blkio_weight.map(|weight| BlockIo { weight, ..BlockIo::default() }),
            oom_kill_disable: false,
        }
    }
}

impl Rates {
    pub(super) fn add_to(self, limits: &mut ContainerLimits) {
        let Self { device_read_bps, device_write_bps, device_read_iops, device_write_iops } = self;
        let lists = [&device_read_bps, &device_write_bps, &device_read_iops, &device_write_iops];
        if lists.iter().all(|list| list.is_empty()) {
            return;
        }
        let block_io = limits.block_io.get_or_insert_default();
        block_io.read_bytes = device_read_bps;
        block_io.write_bytes = device_write_bps;
        block_io.read_operations = device_read_iops;
        block_io.write_operations = device_write_iops;
    }
}
