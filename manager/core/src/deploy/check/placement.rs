//! Rules of placement that can't be read, or that no node can ever meet.

use std::collections::BTreeMap;

use shoal_proto::v1::{Resources, ServiceSpec, TaskSpec};

use super::{SpecError, broken, is_name};
use crate::placement::{Constraint, Subject};

pub(super) fn check(object: &str, spec: &ServiceSpec, task: &TaskSpec) -> Result<(), SpecError> {
    let placement = task.placement.clone().unwrap_or_default();
    for constraint in &placement.constraints {
        constraint.parse::<Constraint>().map_err(|error| broken(object, error.to_string()))?;
    }
    contradictions(object, &placement.constraints)?;
    for level in &placement.spread {
        level
            .parse::<Subject>()
            .map_err(|error| broken(object, format!("spread over {level:?}: {error}")))?;
    }
    let mut wanted: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for affinity in &placement.affinities {
        let word = if affinity.anti { "anti-affinity" } else { "affinity" };
        if !is_name(&affinity.service) {
            let rule = format!("{word} to {:?}, which is not a service's name", affinity.service);
            return Err(broken(object, rule));
        }
        if !affinity.topology.is_empty() {
            affinity.topology.parse::<Subject>().map_err(|error| {
                broken(object, format!("{word} to {}: {error}", affinity.service))
            })?;
        }
        if affinity.preferred {
            continue;
        }
        let place = (affinity.service.as_str(), affinity.topology.as_str());
        if wanted.insert(place, affinity.anti).is_some_and(|other| other != affinity.anti) {
            let rule = format!(
                "affinity and anti-affinity to {} contradict each other: no node meets both",
                affinity.service
            );
            return Err(broken(object, rule));
        }
    }
    for platform in &placement.platforms {
        if platform.os.is_empty() && platform.architecture.is_empty() {
            return Err(broken(object, "a platform has neither os nor architecture"));
        }
    }
    amounts(object, &task.limits.unwrap_or_default(), &task.reservations.unwrap_or_default())?;
    let is_global = spec.mode.as_ref().and_then(|mode| mode.mode.as_ref()).is_some_and(|mode| {
        use shoal_proto::v1::service_mode::Mode;
        matches!(mode, Mode::Global(_) | Mode::GlobalJob(_))
    });
    if is_global && (placement.max_replicas_per_node > 0 || !placement.spread.is_empty()) {
        let rule = "a global service has one task on each node: max_replicas_per_node and spread \
                    preferences mean nothing for it";
        return Err(broken(object, rule));
    }
    Ok(())
}

/// `a==x` beside `a==y`, or beside `a!=x`.
fn contradictions(object: &str, constraints: &[String]) -> Result<(), SpecError> {
    let mut wanted: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    let split = |text: &'static str| {
        constraints.iter().filter_map(move |constraint| {
            let (subject, value) = constraint.split_once(text)?;
            Some((subject.trim(), (value.trim(), constraint.as_str())))
        })
    };
    for (subject, (value, text)) in split("==").filter(|(subject, _)| *subject != "node.ip") {
        if let Some((other, before)) = wanted.insert(subject, (value, text))
            && other != value
        {
            return Err(broken(object, format!("no node ever meets both {before} and {text}")));
        }
    }
    for (subject, (value, text)) in split("!=") {
        if let Some((_, before)) = wanted.get(subject).filter(|(wanted, _)| *wanted == value) {
            return Err(broken(object, format!("no node ever meets both {before} and {text}")));
        }
    }
    Ok(())
}

fn amounts(object: &str, limits: &Resources, reserved: &Resources) -> Result<(), SpecError> {
    let pairs = [
        ("cpus", limits.nano_cpus, reserved.nano_cpus),
        ("memory", limits.memory_bytes, reserved.memory_bytes),
        ("pids", limits.pids, reserved.pids),
    ];
    for (name, limit, reserved) in pairs {
        if limit < 0 || reserved < 0 {
            return Err(broken(object, format!("{name}: less than nothing can't be had")));
        }
        if limit > 0 && reserved > limit {
            let rule = format!("{name}: more is reserved than the limit lets it use");
            return Err(broken(object, rule));
        }
    }
    Ok(())
}
