//! How tasks are replaced by ones of another spec, forwards and back.

use std::time::Duration;

use clap::{Args, ValueEnum};
use shoal_proto::duration;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{UpdateConfig, UpdateFailureAction, UpdateOrder};

use super::edit;

/// Towards a new spec.
#[derive(Debug, Args)]
pub(super) struct Forwards {
    /// Tasks replaced at the same time; 0: all [default: 1]
    #[arg(long, value_name = "NUMBER")]
    update_parallelism: Option<u64>,
    /// Time between a replaced task's start and the next one's turn
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    update_delay: Option<Duration>,
    /// Whether the old task ends before the new one starts, or after it runs [default: stop-first]
    #[arg(long, value_enum, value_name = "ORDER")]
    update_order: Option<Order>,
    /// How long a new task must run to count as good [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    update_monitor: Option<Duration>,
    /// What is done when too many new tasks fail [default: pause]
    #[arg(long, value_enum, value_name = "ACTION")]
    update_failure_action: Option<Action>,
    /// Part of the tasks that may fail, from 0 to 1
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    update_max_failure_ratio: Option<f64>,
    /// Without a task that gets further for so long, the update has failed [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    update_progress_deadline: Option<Duration>,
}

/// Back to the spec before.
#[derive(Debug, Args)]
pub(super) struct Backwards {
    /// Tasks replaced at the same time; 0: all [default: 1]
    #[arg(long, value_name = "NUMBER")]
    rollback_parallelism: Option<u64>,
    /// Time between a replaced task's start and the next one's turn
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    rollback_delay: Option<Duration>,
    /// Whether the old task ends before the new one starts, or after it runs [default: stop-first]
    #[arg(long, value_enum, value_name = "ORDER")]
    rollback_order: Option<Order>,
    /// How long a new task must run to count as good [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    rollback_monitor: Option<Duration>,
    /// What is done when too many new tasks fail [default: pause]
    #[arg(long, value_enum, value_name = "ACTION")]
    rollback_failure_action: Option<BackAction>,
    /// Part of the tasks that may fail, from 0 to 1
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    rollback_max_failure_ratio: Option<f64>,
    /// Without a task that gets further for so long, the rollback has failed [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    rollback_progress_deadline: Option<Duration>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    StopFirst,
    StartFirst,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Action {
    Pause,
    Continue,
    Rollback,
}

/// A rollback has nothing to go back to.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum BackAction {
    Pause,
    Continue,
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("{text:?} is not a number from 0 to 1 such as 0.2")),
    }
}

/// What was given, of either.
struct Given {
    parallelism: Option<u64>,
    delay: Option<Duration>,
    order: Option<Order>,
    monitor: Option<Duration>,
    action: Option<UpdateFailureAction>,
    max_failure_ratio: Option<f64>,
    progress_deadline: Option<Duration>,
}

impl Given {
    fn apply(&self, config: &mut Option<UpdateConfig>) {
        edit(config, |config: &mut UpdateConfig| {
            config.parallelism = self.parallelism.or(config.parallelism);
            config.delay = self.delay.map(proto_duration).or(config.delay);
            match self.order {
                Some(Order::StopFirst) => config.set_order(UpdateOrder::StopFirst),
                Some(Order::StartFirst) => config.set_order(UpdateOrder::StartFirst),
                None => {}
            }
            config.monitor = self.monitor.map(proto_duration).or(config.monitor);
            if let Some(action) = self.action {
                config.set_failure_action(action);
            }
            config.max_failure_ratio = self.max_failure_ratio.unwrap_or(config.max_failure_ratio);
            config.progress_deadline =
                self.progress_deadline.map(proto_duration).or(config.progress_deadline);
        });
    }
}

impl Forwards {
    pub(super) fn apply(&self, config: &mut Option<UpdateConfig>) {
        let given = Given {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            order: self.update_order,
            monitor: self.update_monitor,
            action: self.update_failure_action.map(|action| match action {
                Action::Pause => UpdateFailureAction::Pause,
                Action::Continue => UpdateFailureAction::Continue,
                Action::Rollback => UpdateFailureAction::Rollback,
            }),
            max_failure_ratio: self.update_max_failure_ratio,
            progress_deadline: self.update_progress_deadline,
        };
        given.apply(config);
    }
}

impl Backwards {
    pub(super) fn apply(&self, config: &mut Option<UpdateConfig>) {
        let given = Given {
            parallelism: self.rollback_parallelism,
            delay: self.rollback_delay,
            order: self.rollback_order,
            monitor: self.rollback_monitor,
            action: self.rollback_failure_action.map(|action| match action {
                BackAction::Pause => UpdateFailureAction::Pause,
                BackAction::Continue => UpdateFailureAction::Continue,
            }),
            max_failure_ratio: self.rollback_max_failure_ratio,
            progress_deadline: self.rollback_progress_deadline,
        };
        given.apply(config);
    }
}
