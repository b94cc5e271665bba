//! When a job is run again and again.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use shoal_proto::duration;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{ConcurrencyPolicy, Schedule};

/// The schedule.
#[derive(Debug, Args)]
pub(super) struct When {
    /// Run the job at these times: "*/5 * * * *", or @hourly and the like; empty: no more
    #[arg(long, value_name = "CRON")]
    schedule: Option<String>,
    /// Where it is that time: Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// What is done when a run is due and another goes on: leave it out, run both, or end the
    /// other [default: forbid]
    #[arg(long, value_enum, value_name = "POLICY")]
    concurrency: Option<Concurrency>,
    /// Leave out a run that is late by more [default: it is made up for, once]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    starting_deadline: Option<Duration>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Concurrency {
    Forbid,
    Allow,
    Replace,
}

impl When {
    pub(super) fn is_set(&self) -> bool {
        self.schedule.as_ref().is_some_and(|cron| !cron.is_empty())
    }

    pub(super) fn apply(&self, schedule: &mut Option<Schedule>) -> anyhow::Result<()> {
        match self.schedule.as_deref() {
            Some("") => *schedule = None,
            Some(cron) => cron.clone_into(&mut schedule.get_or_insert_default().cron),
            None => {}
        }
        let is_more = self.time_zone.is_some()
            || self.concurrency.is_some()
            || self.starting_deadline.is_some();
        let Some(schedule) = schedule else {
            if is_more {
                bail!(
                    "--time-zone, --concurrency and --starting-deadline are of a schedule; set one \
                     with --schedule"
                );
            }
            return Ok(());
        };
        if let Some(zone) = &self.time_zone {
            schedule.time_zone.clone_from(zone);
        }
        match self.concurrency {
            Some(Concurrency::Forbid) => schedule.set_concurrency(ConcurrencyPolicy::Forbid),
            Some(Concurrency::Allow) => schedule.set_concurrency(ConcurrencyPolicy::Allow),
            Some(Concurrency::Replace) => schedule.set_concurrency(ConcurrencyPolicy::Replace),
            None => {}
        }
        if let Some(deadline) = self.starting_deadline {
            schedule.starting_deadline = Some(proto_duration(deadline));
        }
        Ok(())
    }
}
