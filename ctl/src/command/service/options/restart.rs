//! What happens when a task has ended.

use std::time::Duration;

use clap::{Args, ValueEnum};
use shoal_proto::duration;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{RestartCondition, RestartPolicy};

use super::edit;

/// When it is started again.
#[derive(Debug, Args)]
pub(super) struct Restart {
    /// When a task that has ended is replaced [default: any]
    #[arg(long, value_enum, value_name = "CONDITION")]
    restart_condition: Option<Condition>,
    /// Wait before that; it doubles with each failure in a row
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    restart_delay: Option<Duration>,
    /// Give up after so many in the window; 0: never
    #[arg(long, value_name = "TIMES")]
    restart_max_attempts: Option<u32>,
    /// The window; without one, all count
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    restart_window: Option<Duration>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Condition {
    None,
    OnFailure,
    Any,
}

impl Restart {
    pub(super) fn apply(&self, policy: &mut Option<RestartPolicy>) {
        edit(policy, |policy: &mut RestartPolicy| {
            match self.restart_condition {
                Some(Condition::None) => policy.set_condition(RestartCondition::None),
                Some(Condition::OnFailure) => policy.set_condition(RestartCondition::OnFailure),
                Some(Condition::Any) => policy.set_condition(RestartCondition::Any),
                None => {}
            }
            policy.delay = self.restart_delay.map(proto_duration).or(policy.delay);
            policy.max_attempts = self.restart_max_attempts.unwrap_or(policy.max_attempts);
            policy.window = self.restart_window.map(proto_duration).or(policy.window);
        });
    }
}
