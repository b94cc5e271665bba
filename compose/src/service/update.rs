//! `deploy.update_config` and `deploy.rollback_config`: how tasks are replaced.

use shoal_proto::duration;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{UpdateConfig, UpdateFailureAction, UpdateOrder};

use crate::diagnostic::Log;
use crate::keys;
use crate::section::{Section, whole};

pub(super) const UPDATE: &str = "update_config";
pub(super) const ROLLBACK: &str = "rollback_config";

/// None when the key is not there.
pub(super) fn read(deploy: &mut Section<'_>, key: &str, log: &mut Log<'_>) -> Option<UpdateConfig> {
    let mut section = deploy.part(key, log)?;
    let mut time = |key: &str, log: &mut Log<'_>| {
        section.parsed(key, log, duration::parse).map(proto_duration)
    };
    let mut config = UpdateConfig {
        delay: time("delay", log),
        monitor: time("monitor", log),
        progress_deadline: time("x-shoal-progress-deadline", log),
        parallelism: section.parsed("parallelism", log, whole::<u64>),
        max_failure_ratio: section.parsed("max_failure_ratio", log, ratio).unwrap_or(0.0),
        ..UpdateConfig::default()
    };
    let action = section.parsed("failure_action", log, |text| match text {
        "pause" => Ok(UpdateFailureAction::Pause),
        "continue" => Ok(UpdateFailureAction::Continue),
        "rollback" if key == UPDATE => Ok(UpdateFailureAction::Rollback),
        "rollback" => Err("a rollback can't be rolled back; want pause or continue".to_owned()),
        other if key == UPDATE => {
            Err(format!("{other:?} is no failure action; want pause, continue or rollback"))
        }
        other => Err(format!("{other:?} is no failure action; want pause or continue")),
    });
    config.set_failure_action(action.unwrap_or(UpdateFailureAction::Pause));
    let order = section.parsed("order", log, |text| match text {
        "stop-first" => Ok(UpdateOrder::StopFirst),
        "start-first" => Ok(UpdateOrder::StartFirst),
        other => Err(format!("{other:?} is no order; want stop-first or start-first")),
    });
    config.set_order(order.unwrap_or(UpdateOrder::StopFirst));
    section.finish(keys::UPDATE, log);
    Some(config)
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("{text:?} is not a number from 0 to 1 such as 0.2")),
    }
}
