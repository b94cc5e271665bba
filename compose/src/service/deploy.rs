//! `deploy:`

use shoal_proto::time::proto_duration;
use shoal_proto::v1::{EndpointMode, Resources, RestartCondition, ServiceSpec, TaskSpec};
use shoal_proto::{ByteSize, duration};

use super::{generic, placement, update};
use crate::diagnostic::Log;
use crate::keys;
use crate::section::{Section, whole};
use crate::stack::Project;

const LIMITS: &[&str] = &["cpus", "memory", "pids"];
const RESERVATIONS: &[&str] = &["cpus", "memory", "pids", "devices", "generic_resources"];

/// All but how many tasks there are.
pub(super) fn read(
    project: &Project<'_>,
    mut deploy: Section<'_>,
    spec: &mut ServiceSpec,
    task: &mut TaskSpec,
    log: &mut Log<'_>,
) {
    spec.labels = deploy.labels(log);
    let mode = deploy.parsed("endpoint_mode", log, |text| match text {
        "vip" => Ok(EndpointMode::Vip),
        "dnsrr" => Ok(EndpointMode::Dnsrr),
        other => Err(format!("{other:?} is no mode; want vip or dnsrr")),
    });
    spec.set_endpoint_mode(mode.unwrap_or(EndpointMode::Vip));
    if let Some(mut resources) = deploy.part("resources", log) {
        if let Some(limits) = resources.part("limits", log) {
            amounts(limits, LIMITS, task.limits.get_or_insert_default(), log);
        }
        if let Some(mut reserved) = resources.part("reservations", log) {
            task.generic_reservations = generic::read(&mut reserved, log);
            amounts(reserved, RESERVATIONS, task.reservations.get_or_insert_default(), log);
        }
        resources.finish(&["limits", "reservations"], log);
    }
    if let Some(section) = deploy.part("restart_policy", log) {
        restart(section, task, log);
    }
    task.placement = placement::read(project, &mut deploy, log);
    task.priority = deploy.parsed("x-shoal-priority", log, priority).unwrap_or(0);
    spec.update = update::read(&mut deploy, update::UPDATE, log);
    spec.rollback = update::read(&mut deploy, update::ROLLBACK, log);
    deploy.finish(keys::DEPLOY, log);
}

fn priority(text: &str) -> Result<i32, String> {
    let (least, most) = (i32::MIN, i32::MAX);
    text.parse().map_err(|_| format!("{text:?} is not a whole number from {least} to {most}"))
}

fn amounts(mut section: Section<'_>, known: &[&str], amounts: &mut Resources, log: &mut Log<'_>) {
    if let Some(cpus) = section.parsed("cpus", log, cpus) {
        amounts.nano_cpus = cpus;
    }
    if let Some(bytes) = section.parsed("memory", log, bytes) {
        amounts.memory_bytes = bytes;
    }
    if let Some(pids) = section.parsed("pids", log, whole::<i64>) {
        amounts.pids = pids.max(0);
    }
    section.finish(known, log);
}

fn restart(mut section: Section<'_>, task: &mut TaskSpec, log: &mut Log<'_>) {
    let policy = task.restart.get_or_insert_default();
    let condition = section.parsed("condition", log, |text| match text {
        "any" | "always" | "unless-stopped" => Ok(RestartCondition::Any),
        "on-failure" => Ok(RestartCondition::OnFailure),
        "none" | "no" => Ok(RestartCondition::None),
        other => Err(format!("{other:?} is no condition; want any, on-failure or none")),
    });
    if let Some(condition) = condition {
        policy.set_condition(condition);
    }
    policy.delay = section.parsed("delay", log, duration::parse).map(proto_duration);
    policy.window = section.parsed("window", log, duration::parse).map(proto_duration);
    if let Some(attempts) = section.parsed("max_attempts", log, whole::<u32>) {
        policy.max_attempts = attempts;
    }
    section.finish(&["condition", "delay", "window", "max_attempts"], log);
}

/// `0.5` CPUs in billionths.
pub(super) fn cpus(text: &str) -> Result<i64, String> {
    match text.parse::<f64>() {
        Ok(cpus) if (0.0..=100_000.0).contains(&cpus) => Ok((cpus * 1e9).round() as i64),
        _ => Err(format!("{text:?} is not a number of CPUs such as 0.5")),
    }
}

/// `512m` in bytes.
pub(super) fn bytes(text: &str) -> Result<i64, String> {
    let size: ByteSize =
        text.parse().map_err(|error: shoal_proto::bytesize::ByteSizeError| error.to_string())?;
    i64::try_from(size.0).map_err(|_| format!("{text:?} is more than any machine has"))
}
