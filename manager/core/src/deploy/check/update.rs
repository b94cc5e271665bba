//! Settings of updates and schedules that contradict each other.

use std::time::{Duration, SystemTime};

use shoal_proto::time::std_duration;
use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{
    PublishMode, RestartCondition, ServiceSpec, TaskSpec, UpdateConfig, UpdateFailureAction,
    UpdateOrder,
};

use super::{SpecError, broken};
use crate::schedule::Schedule;

/// Of any time that is waited for.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

pub(super) fn check(
    object: &str,
    spec: &ServiceSpec,
    task: &TaskSpec,
    now: SystemTime,
) -> Result<(), SpecError> {
    let mode = spec.mode.as_ref().and_then(|mode| mode.mode.as_ref());
    let is_job = matches!(mode, Some(Mode::ReplicatedJob(_) | Mode::GlobalJob(_)));
    for (field, config) in [("update", &spec.update), ("rollback", &spec.rollback)] {
        let Some(config) = config else { continue };
        if is_job {
            let rule = format!("{field}: a job is not updated task by task: it is run anew");
            return Err(broken(object, rule));
        }
        one(object, field, config, spec, task)?;
    }
    let back = spec.rollback.as_ref().map(UpdateConfig::failure_action);
    if back == Some(UpdateFailureAction::Rollback) {
        let rule = "rollback: its failure action can be pause or continue; there is nothing to go \
                    back to";
        return Err(broken(object, rule));
    }
    let restart = task.restart.unwrap_or_default();
    if is_job && restart.condition() == RestartCondition::None && restart.max_attempts > 0 {
        let rule = "restart: max_attempts means nothing with the condition none";
        return Err(broken(object, rule));
    }
    let Some(schedule) = &spec.schedule else { return Ok(()) };
    if !is_job {
        let rule = "schedule: only jobs are run again and again; take the mode replicated-job or \
                    global-job";
        return Err(broken(object, rule));
    }
    let checked = Schedule::of(schedule).and_then(|schedule| schedule.check(now));
    checked.map_err(|error| broken(object, error.to_string()))
}

fn one(
    object: &str,
    field: &str,
    config: &UpdateConfig,
    spec: &ServiceSpec,
    task: &TaskSpec,
) -> Result<(), SpecError> {
    let duration = |set: &Option<shoal_proto::ProtoDuration>| set.as_ref().map(std_duration);
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        let ratio = config.max_failure_ratio;
        let rule = format!("{field}: the max failure ratio {ratio} is not between 0 and 1");
        return Err(broken(object, rule));
    }
    for (name, set) in [("delay", &config.delay), ("progress deadline", &config.progress_deadline)]
    {
        if duration(set).is_some_and(|set| set > LONGEST) {
            let rule = format!("{field}: a {name} of more than a year ends nowhere");
            return Err(broken(object, rule));
        }
    }
    let deadline = duration(&config.progress_deadline);
    if deadline.is_some_and(|deadline| deadline.is_zero()) {
        return Err(broken(object, format!("{field}: a progress deadline of 0 can't be met")));
    }
    let monitor = duration(&config.monitor).unwrap_or_default();
    if monitor > Duration::from_secs(86_400) {
        let rule = format!("{field}: to monitor each task for more than a day ends nowhere");
        return Err(broken(object, rule));
    }
    if config.order() == UpdateOrder::StartFirst {
        if task.fenced {
            let rule = format!(
                "{field}: start-first runs two tasks of a slot at once, which fencing forbids"
            );
            return Err(broken(object, rule));
        }
        let mode = spec.mode.as_ref().and_then(|mode| mode.mode.as_ref());
        let host = spec
            .ports
            .iter()
            .find(|port| port.mode() == PublishMode::Host && port.published_port != 0);
        if let (Some(Mode::Global(_)), Some(port)) = (mode, host) {
            let rule = format!(
                "{field}: start-first needs host port {} twice on each node; take stop-first",
                port.published_port
            );
            return Err(broken(object, rule));
        }
    }
    Ok(())
}
