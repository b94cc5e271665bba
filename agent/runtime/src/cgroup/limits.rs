//! Limits in the words of the OCI runtime specification, written to v1 and v2 files (runtime-spec,
//! config-linux.md, "Control groups").

use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxResources};

use super::{Hierarchy, write};
use crate::error::RuntimeError;

pub(super) fn set(
    hierarchy: &Hierarchy,
    path: &Path,
    limits: Option<&LinuxResources>,
) -> Result<(), RuntimeError> {
    let Some(limits) = limits else { return Ok(()) };
    if hierarchy.v2 {
        // A v2 hierarchy without controllers (hybrid) has none of the files.
        return if has_controllers(path) { v2(path, limits) } else { Ok(()) };
    }
    hierarchy.controllers.iter().try_for_each(|controller| v1(controller, path, limits))
}

/// Whether this v2 group has the controllers: beside v1, only some odd one is left to v2.
pub(super) fn has_controllers(path: &Path) -> bool {
    std::fs::read_to_string(path.join("cgroup.controllers"))
        .is_ok_and(|text| text.split_whitespace().any(|name| name == "memory" || name == "cpu"))
}

fn v1(controller: &str, path: &Path, limits: &LinuxResources) -> Result<(), RuntimeError> {
    match controller {
        "memory" => {
            let Some(memory) = limits.memory() else { return Ok(()) };
            let limit = memory.limit().map(|limit| ("memory.limit_in_bytes", limit));
            let both = "memory.memsw.limit_in_bytes";
            let swap = memory.swap().filter(|_| path.join(both).exists()).map(|swap| (both, swap));
            // The one with swap may never be below the one without: raised first, lowered last.
            let text = std::fs::read_to_string(path.join("memory.limit_in_bytes"));
            let now: i64 = text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(i64::MAX);
            let rises = limit.is_some_and(|(_, limit)| limit > now);
            let order = if rises { [swap, limit] } else { [limit, swap] };
            for (file, value) in order.into_iter().flatten() {
                write(path, file, value)?;
            }
            if let Some(reservation) = memory.reservation() {
                write(path, "memory.soft_limit_in_bytes", reservation)?;
            }
            if memory.disable_oom_killer() == Some(true) {
                write(path, "memory.oom_control", 1)?;
            }
            Ok(())
        }
        "blkio" => {
            let Some(block_io) = limits.block_io() else { return Ok(()) };
            if let Some(weight) = block_io.weight() {
                // Which of the two there is depends on the scheduler that the kernel is built with.
                let names = ["blkio.bfq.weight", "blkio.weight"];
                let Some(file) = names.into_iter().find(|file| path.join(file).exists()) else {
                    return Err(no_weight());
                };
                write(path, file, weight)?;
            }
            for (file, rates) in [
                ("blkio.throttle.read_bps_device", block_io.throttle_read_bps_device()),
                ("blkio.throttle.write_bps_device", block_io.throttle_write_bps_device()),
                ("blkio.throttle.read_iops_device", block_io.throttle_read_iops_device()),
                ("blkio.throttle.write_iops_device", block_io.throttle_write_iops_device()),
            ] {
                for rate in rates.iter().flatten() {
                    write(
                        path,
                        file,
                        format!("{}:{} {}", rate.major(), rate.minor(), rate.rate()),
                    )?;
                }
            }
            Ok(())
        }
        "cpu" => {
            let Some(cpu) = limits.cpu() else { return Ok(()) };
            if let Some(shares) = cpu.shares() {
                write(path, "cpu.shares", shares)?;
            }
            if let Some(period) = cpu.period() {
                write(path, "cpu.cfs_period_us", period)?;
            }
            match cpu.quota() {
                Some(quota) => write(path, "cpu.cfs_quota_us", quota),
                None => Ok(()),
            }
        }
        "cpuset" => {
            let Some(cpu) = limits.cpu() else { return Ok(()) };
            if let Some(cpus) = cpu.cpus() {
                write(path, "cpuset.cpus", cpus)?;
            }
            match cpu.mems() {
                Some(mems) => write(path, "cpuset.mems", mems),
                None => Ok(()),
            }
        }
        "pids" => match limits.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit) {
            Some(limit) if limit > 0 => write(path, "pids.max", limit),
            Some(_) => write(path, "pids.max", "max"),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn v2(path: &Path, limits: &LinuxResources) -> Result<(), RuntimeError> {
    if let Some(memory) = limits.memory() {
        if let Some(limit) = memory.limit() {
            write(path, "memory.max", limit)?;
            // v1 counts memory and swap together, v2 swap alone. A kernel without swap has no file.
            if let Some(swap) = memory.swap()
                && path.join("memory.swap.max").exists()
            {
                match swap {
                    -1 => write(path, "memory.swap.max", "max")?,
                    swap => write(path, "memory.swap.max", (swap - limit).max(0))?,
                }
            }
        }
        if let Some(reservation) = memory.reservation() {
            write(path, "memory.low", reservation)?;
        }
    }
    if limits.memory().as_ref().is_some_and(|memory| memory.disable_oom_killer() == Some(true)) {
        return Err(RuntimeError::Invalid(
            "cgroup v2 can't keep a container from being killed for want of memory; \
             leave --oom-kill-disable out"
                .to_owned(),
        ));
    }
    if let Some(block_io) = limits.block_io() {
        v2_block_io(path, block_io)?;
    }
    if let Some(cpu) = limits.cpu() {
        if let Some(shares) = cpu.shares() {
            // The usual mapping of 2..262144 shares to a weight of 1..10000.
            let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142;
            write(path, "cpu.weight", weight)?;
        }
        if let Some(quota) = cpu.quota() {
            let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
            write(path, "cpu.max", format!("{quota} {}", cpu.period().unwrap_or(100_000)))?;
        }
        if let Some(cpus) = cpu.cpus() {
            write(path, "cpuset.cpus", cpus)?;
        }
        if let Some(mems) = cpu.mems() {
            write(path, "cpuset.mems", mems)?;
        }
    }
    match limits.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit) {
        Some(limit) if limit > 0 => write(path, "pids.max", limit),
        Some(_) => write(path, "pids.max", "max"),
        None => Ok(()),
    }
}

fn no_weight() -> RuntimeError {
    RuntimeError::Invalid("this host's kernel can't weigh block I/O".to_owned())
}

fn v2_block_io(path: &Path, block_io: &LinuxBlockIo) -> Result<(), RuntimeError> {
    if let Some(weight) = block_io.weight() {
        if path.join("io.bfq.weight").exists() {
            write(path, "io.bfq.weight", weight)?;
        } else if path.join("io.weight").exists() {
            // The usual mapping of 10..1000 to 1..10000.
            let weight = 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9_999 / 990;
            write(path, "io.weight", format!("default {weight}"))?;
        } else {
            return Err(no_weight());
        }
    }
    for (name, rates) in [
        ("rbps", block_io.throttle_read_bps_device()),
        ("wbps", block_io.throttle_write_bps_device()),
        ("riops", block_io.throttle_read_iops_device()),
        ("wiops", block_io.throttle_write_iops_device()),
    ] {
        for rate in rates.iter().flatten() {
            let line = format!("{}:{} {name}={}", rate.major(), rate.minor(), rate.rate());
            write(path, "io.max", line)?;
        }
    }
    Ok(())
}
