//! One service of the file.

mod container;
mod depends;
mod deploy;
mod generic;
mod health;
mod mode;
mod network;
mod payload;
mod placement;
mod port;
mod schedule;
mod update;
mod volume;

use shoal_proto::v1::{Resources, RestartCondition, RestartPolicy, ServiceSpec, TaskSpec};

use crate::diagnostic::Log;
use crate::keys;
use crate::section::{Section, whole};
use crate::stack::Project;
use crate::yaml::Node;

/// None, with errors in the log, when it can't be understood.
pub(crate) fn read(
    project: &Project<'_>,
    name: &str,
    node: &Node,
    log: &mut Log<'_>,
) -> Option<ServiceSpec> {
    let mut section = Section::of(&format!("services.{name}"), node, log)?;
    let mut spec =
        ServiceSpec { name: format!("{}_{name}", project.name), ..ServiceSpec::default() };
    let mut task = TaskSpec {
        restart: Some(RestartPolicy::default()),
        limits: Some(Resources::default()),
        reservations: Some(Resources::default()),
        ..TaskSpec::default()
    };
    task.container = Some(container::read(project, &mut section, log));
    task.networks = network::read(project, name, &mut section, log);
    spec.ports = port::read(&mut section, log);
    spec.depends_on = depends::read(project, &mut section, log);
    limits(&mut section, &mut task, log);
    restart(&mut section, &mut task, log);
    let mut deploy = section.part("deploy", log);
    spec.mode = Some(mode::read(&mut section, deploy.as_mut(), log));
    spec.schedule = schedule::read(&mut section, log);
    // The specification has no words for these: extensions are `x-` keys.
    spec.sticky = section.flag("x-shoal-sticky", log).unwrap_or(false);
    task.fenced = section.flag("x-shoal-fencing", log).unwrap_or(false);
    if let Some(deploy) = deploy {
        deploy::read(project, deploy, &mut spec, &mut task, log);
    }
    if let Some(platform) = section.parsed("platform", log, placement::platform) {
        task.placement.get_or_insert_default().platforms.push(platform);
    }
    spec.task = Some(task);
    section.finish(keys::SERVICE, log);
    Some(spec)
}

/// Compose's older limits outside `deploy`.
fn limits(section: &mut Section<'_>, task: &mut TaskSpec, log: &mut Log<'_>) {
    let limits = task.limits.get_or_insert_default();
    if let Some(bytes) = section.parsed("mem_limit", log, deploy::bytes) {
        limits.memory_bytes = bytes;
    }
    if let Some(cpus) = section.parsed("cpus", log, deploy::cpus) {
        limits.nano_cpus = cpus;
    }
    if let Some(pids) = section.parsed("pids_limit", log, whole::<i64>) {
        limits.pids = pids.max(0);
    }
}

/// `restart:`; `deploy.restart_policy` goes before it.
fn restart(section: &mut Section<'_>, task: &mut TaskSpec, log: &mut Log<'_>) {
    let parse = |text: &str| {
        let (name, attempts) = match text.split_once(':') {
            Some((name, attempts)) => (name, Some(attempts)),
            None => (text, None),
        };
        let condition = match name {
            "no" => RestartCondition::None,
            "always" | "unless-stopped" => RestartCondition::Any,
            "on-failure" => RestartCondition::OnFailure,
            _ => return Err("want no, always, on-failure[:TIMES] or unless-stopped"),
        };
        let attempts = match attempts {
            None => 0,
            Some(_) if name != "on-failure" => {
                return Err("only on-failure takes how many times, as in on-failure:3");
            }
            Some(attempts) => {
                attempts.parse::<u32>().map_err(|_| "want a number after on-failure:")?
            }
        };
        Ok((condition, attempts))
    };
    if let Some((condition, attempts)) = section.parsed("restart", log, parse) {
        let policy = task.restart.get_or_insert_default();
        policy.set_condition(condition);
        policy.max_attempts = attempts;
    }
}
