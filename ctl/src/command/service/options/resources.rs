//! How much a task may use, and how much is kept for it.

use clap::Args;
use shoal_proto::v1::{GenericReservation, Resources, TaskSpec};

use super::{edit, put};
use crate::command::container::limits::{bytes, cpus};

/// Limits and reservations.
#[derive(Debug, Args)]
pub(super) struct Amounts {
    /// CPUs that a task may use: 1.5; 0: no limit
    #[arg(long, value_name = "NUMBER", value_parser = cpus_or_none)]
    limit_cpu: Option<i64>,
    /// Memory that a task may use: 512m; 0: no limit
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    limit_memory: Option<i64>,
    /// Processes and threads that a task may have; 0: no limit
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(0..))]
    limit_pids: Option<i64>,
    /// CPUs that are kept for a task
    #[arg(long, value_name = "NUMBER", value_parser = cpus_or_none)]
    reserve_cpu: Option<i64>,
    /// Memory that is kept for a task
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    reserve_memory: Option<i64>,
    /// Generic resources that are kept for a task: KIND=NUMBER
    #[arg(long, alias = "generic-resource-add", value_name = "KIND=NUMBER", value_parser = generic)]
    generic_resource: Vec<GenericReservation>,
}

fn cpus_or_none(text: &str) -> Result<i64, String> {
    if text == "0" { Ok(0) } else { cpus(text) }
}

fn generic(text: &str) -> Result<GenericReservation, String> {
    let read = text.split_once('=').and_then(|(kind, count)| {
        let count = count.parse().ok().filter(|count| *count > 0)?;
        (!kind.is_empty()).then(|| GenericReservation { kind: kind.to_owned(), count })
    });
    read.ok_or_else(|| format!("{text:?} is not KIND=NUMBER such as gpu=2"))
}

impl Amounts {
    pub(super) fn apply(&self, task: &mut TaskSpec) {
        edit(&mut task.limits, |limits: &mut Resources| {
            limits.nano_cpus = self.limit_cpu.unwrap_or(limits.nano_cpus);
            limits.memory_bytes = self.limit_memory.unwrap_or(limits.memory_bytes);
            limits.pids = self.limit_pids.unwrap_or(limits.pids);
        });
        edit(&mut task.reservations, |reserved: &mut Resources| {
            reserved.nano_cpus = self.reserve_cpu.unwrap_or(reserved.nano_cpus);
            reserved.memory_bytes = self.reserve_memory.unwrap_or(reserved.memory_bytes);
        });
        for reservation in &self.generic_resource {
            put(&mut task.generic_reservations, reservation.clone(), |a, b| a.kind == b.kind);
        }
    }
}
