//! A service as `docker service inspect --pretty` shows it.

use std::collections::{BTreeMap, HashMap};

use shoal_proto::time::std_duration;
use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{
    Affinity, ConcurrencyPolicy, ContainerSpec, EndpointMode, MountType, PayloadKind, Placement,
    PlacementStrategy, PortSpec, PublishMode, Resources, RestartCondition, Service, ServiceCounts,
    ServiceSpec, TaskSpec, UpdateConfig, UpdateFailureAction, UpdateOrder, UpdateState,
};
use shoal_proto::{ByteSize, ProtoDuration};

use super::super::mode;
use super::page::Page;
use crate::when;

/// `networks`: names by ids.
pub(super) fn page(
    service: &Service,
    counts: &ServiceCounts,
    networks: &BTreeMap<String, String>,
) -> String {
    let mut page = Page::default();
    let spec = service.spec.clone().unwrap_or_default();
    let task = spec.task.clone().unwrap_or_default();
    page.field("ID", &service.id);
    page.field("Name", &spec.name);
    page.list("Labels", sorted(&spec.labels));
    page.field("Service Mode", mode::word(&spec));
    page.section("Tasks", |page| counted(page, service, &spec, counts));
    page.section("Schedule", |page| schedule(page, service, &spec));
    page.section("Update Status", |page| update_status(page, service));
    page.section("Placement", |page| placement(page, &task));
    page.section("Update Config", |page| rollout(page, spec.update.as_ref()));
    page.section("Rollback Config", |page| rollout(page, spec.rollback.as_ref()));
    page.section("Restart Policy", |page| restart(page, &task));
    let container = task.container.clone().unwrap_or_default();
    page.section("Container", |page| container_fields(page, &container));
    page.section("Mounts", |page| mounts(page, &container));
    for (head, kind) in [("Secrets", PayloadKind::Secret), ("Configs", PayloadKind::Config)] {
        page.section(head, |page| payloads(page, &container, kind));
    }
    page.section("Resources", |page| {
        page.section("Reservations", |page| {
            amounts(page, &task.reservations.unwrap_or_default());
            for reserved in &task.generic_reservations {
                page.field(&reserved.kind, reserved.count);
            }
        });
        page.section("Limits", |page| amounts(page, &task.limits.unwrap_or_default()));
    });
    let attached = task.networks.iter().map(|attached| {
        let name = networks.get(&attached.network_id).unwrap_or(&attached.network_id);
        match attached.aliases.is_empty() {
            true => name.clone(),
            false => format!("{name} (as {})", attached.aliases.join(", ")),
        }
    });
    page.field("Networks", attached.collect::<Vec<_>>().join(", "));
    page.field(
        "Endpoint Mode",
        match spec.endpoint_mode() {
            EndpointMode::Vip if spec.sticky => "vip, sticky",
            EndpointMode::Vip => "vip",
            EndpointMode::Dnsrr => "dnsrr",
        },
    );
    page.list("Ports", service.ports.iter().map(port));
    page.into_text()
}

fn sorted(map: &HashMap<String, String>) -> Vec<String> {
    let mut lines: Vec<String> =
        map.iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.sort();
    lines
}

fn time(time: Option<&ProtoDuration>) -> String {
    time.map(|time| format!("{:?}", std_duration(time))).unwrap_or_default()
}

/// Numbers that say nothing when they are 0.
fn number(number: u64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

fn counted(page: &mut Page, service: &Service, spec: &ServiceSpec, counts: &ServiceCounts) {
    page.field("Running", mode::replicas(service, counts));
    if counts.updated != counts.running {
        page.field("Of The Newest Spec", counts.updated);
    }
    match spec.mode.as_ref().and_then(|mode| mode.mode.as_ref()) {
        Some(Mode::Replicated(mode)) => page.field("Replicas", mode.replicas),
        Some(Mode::ReplicatedJob(mode)) => {
            page.field("Max Concurrent", number(mode.max_concurrent));
            page.field("Total Completions", mode.total_completions);
        }
        Some(Mode::Global(_) | Mode::GlobalJob(_)) | None => {}
    }
    let Some(job) = service.job.as_ref().filter(|job| job.iteration > 0) else { return };
    page.field("Run", job.iteration);
    page.field("Began", when::ago(job.started_at.as_ref()));
    page.field("Ended", when::ago(job.ended_at.as_ref()));
    if spec.schedule.is_none() {
        page.field("Message", &job.message);
    }
}

fn schedule(page: &mut Page, service: &Service, spec: &ServiceSpec) {
    let Some(schedule) = &spec.schedule else { return };
    page.field("Cron", &schedule.cron);
    page.field(
        "Time Zone",
        if schedule.time_zone.is_empty() { "UTC" } else { &schedule.time_zone },
    );
    page.field(
        "Concurrency",
        match schedule.concurrency() {
            ConcurrencyPolicy::Forbid => "forbid",
            ConcurrencyPolicy::Allow => "allow",
            ConcurrencyPolicy::Replace => "replace",
        },
    );
    page.field("Starting Deadline", time(schedule.starting_deadline.as_ref()));
    page.field("Suspended", schedule.suspended);
    let job = service.job.clone().unwrap_or_default();
    page.field("Last Due", job.due_at.as_ref().map(when::rfc3339).unwrap_or_default());
    page.field("Next Run", job.next_at.as_ref().map(when::rfc3339).unwrap_or_default());
    page.field("Message", &job.message);
}

fn update_status(page: &mut Page, service: &Service) {
    let update = service.update.clone().unwrap_or_default();
    if update.state() == UpdateState::None {
        return;
    }
    page.field("State", update.state());
    page.field("Started", when::ago(update.started_at.as_ref()));
    page.field("Ended", when::ago(update.ended_at.as_ref()));
    page.field("Message", &update.message);
}

fn placement(page: &mut Page, task: &TaskSpec) {
    let placement: Placement = task.placement.clone().unwrap_or_default();
    page.list("Constraints", placement.constraints.iter().cloned());
    page.list("Preferences", placement.spread.iter().map(|level| format!("spread={level}")));
    page.field("Max Replicas Per Node", number(placement.max_replicas_per_node));
    if placement.strategy() == PlacementStrategy::Pack {
        page.field("Strategy", "pack");
    }
    page.list("Affinities", placement.affinities.iter().map(affinity));
    let platforms = placement.platforms.iter();
    page.list("Platforms", platforms.map(|one| format!("{}/{}", one.os, one.architecture)));
    if task.priority != 0 {
        page.field("Priority", task.priority);
    }
    if task.fenced {
        page.field("Fenced", true);
    }
}

fn affinity(affinity: &Affinity) -> String {
    let side = if affinity.anti { "away from" } else { "near" };
    let place = match affinity.topology.as_str() {
        "" => String::new(),
        topology => format!(" by {topology}"),
    };
    let preferred = if affinity.preferred { " where it can be had" } else { "" };
    format!("{side} {}{place}{preferred}", affinity.service)
}

fn rollout(page: &mut Page, config: Option<&UpdateConfig>) {
    let Some(config) = config else { return };
    page.field(
        "Parallelism",
        match config.parallelism {
            None => "1".to_owned(),
            Some(0) => "all".to_owned(),
            Some(number) => number.to_string(),
        },
    );
    page.field("Delay", time(config.delay.as_ref()));
    page.field(
        "On Failure",
        match config.failure_action() {
            UpdateFailureAction::Pause => "pause",
            UpdateFailureAction::Continue => "continue",
            UpdateFailureAction::Rollback => "rollback",
        },
    );
    page.field("Monitoring Period", time(config.monitor.as_ref()));
    page.field("Max Failure Ratio", config.max_failure_ratio);
    page.field(
        "Order",
        match config.order() {
            UpdateOrder::StopFirst => "stop-first",
            UpdateOrder::StartFirst => "start-first",
        },
    );
    page.field("Progress Deadline", time(config.progress_deadline.as_ref()));
}

fn restart(page: &mut Page, task: &TaskSpec) {
    let policy = task.restart.unwrap_or_default();
    page.field(
        "Condition",
        match policy.condition() {
            RestartCondition::Any => "any",
            RestartCondition::OnFailure => "on-failure",
            RestartCondition::None => "none",
        },
    );
    page.field("Delay", time(policy.delay.as_ref()));
    page.field("Max Attempts", number(policy.max_attempts.into()));
    page.field("Window", time(policy.window.as_ref()));
}

fn container_fields(page: &mut Page, container: &ContainerSpec) {
    page.field("Image", &container.image);
    if container.set_command {
        page.field("Entrypoint", container.command.join(" "));
    }
    page.field("Args", container.args.join(" "));
    page.list("Env", container.env.iter().cloned());
    page.list("Labels", sorted(&container.labels));
    page.field("Dir", &container.working_dir);
    page.field("User", &container.user);
    page.field("Groups", container.group_add.join(", "));
    page.field("Hostname", &container.hostname);
    page.list("Hosts", container.extra_hosts.iter().cloned());
    for (name, is_set) in
        [("Init", container.init), ("Read Only", container.read_only), ("TTY", container.tty)]
    {
        if is_set {
            page.field(name, true);
        }
    }
    page.field("Stop Signal", &container.stop_signal);
    page.field("Stop Grace Period", time(container.stop_grace_period.as_ref()));
    page.field("Added Capabilities", container.cap_add.join(", "));
    page.field("Dropped Capabilities", container.cap_drop.join(", "));
    page.list("Sysctls", sorted(&container.sysctls));
    if let Some(check) = &container.healthcheck {
        page.section("Health Check", |page| {
            page.field("Command", check.test.join(" "));
            page.field("Interval", time(check.interval.as_ref()));
            page.field("Timeout", time(check.timeout.as_ref()));
            page.field("Start Period", time(check.start_period.as_ref()));
            page.field("Start Interval", time(check.start_interval.as_ref()));
            page.field("Retries", number(check.retries.into()));
        });
    }
}

fn mounts(page: &mut Page, container: &ContainerSpec) {
    for mount in &container.mounts {
        let kind = match mount.r#type() {
            MountType::Volume => "volume",
            MountType::Bind => "bind",
            MountType::Tmpfs => "tmpfs",
        };
        page.section(&format!("Target {}", mount.target), |page| {
            page.field("Source", &mount.source);
            page.field("Type", kind);
            page.field("Read Only", mount.read_only);
            if mount.movable {
                page.field("Movable", true);
            }
        });
    }
}

fn payloads(page: &mut Page, container: &ContainerSpec, kind: PayloadKind) {
    for used in container.payloads.iter().filter(|used| used.kind() == kind) {
        let place = match used.env.as_str() {
            "" => format!("Target {}", used.target),
            variable => format!("Variable {variable}"),
        };
        page.section(&place, |page| {
            page.field("Source", &used.name);
            if (used.uid, used.gid) != (0, 0) {
                page.field("Owner", format!("{}:{}", used.uid, used.gid));
            }
            if used.mode != 0 {
                page.field("Mode", format!("{:04o}", used.mode));
            }
        });
    }
}

fn amounts(page: &mut Page, amounts: &Resources) {
    if amounts.nano_cpus > 0 {
        page.field("CPU", amounts.nano_cpus as f64 / 1e9);
    }
    if amounts.memory_bytes > 0 {
        page.field("Memory", ByteSize(amounts.memory_bytes.unsigned_abs()));
    }
    page.field("Processes", number(amounts.pids.unsigned_abs()));
}

fn port(port: &PortSpec) -> String {
    let mode = match port.mode() {
        PublishMode::Ingress => "ingress",
        PublishMode::Host => "host",
    };
    let host = if port.host_ip.is_empty() { "*" } else { &port.host_ip };
    let (published, target) = (port.published_port, port.target_port);
    format!("{host}:{published}->{target}/{} ({mode})", port.protocol())
}

#[cfg(test)]
mod tests {
    use shoal_proto::v1::{PayloadReference, ReplicatedMode, ServiceMode, UpdateStatus};

    use super::*;

    #[test]
    fn people_see_what_was_asked_for() {
        let mut secret = PayloadReference {
            name: "key".to_owned(),
            target: "/run/secrets/key".to_owned(),
            mode: 0o400,
            ..PayloadReference::default()
        };
        secret.set_kind(PayloadKind::Secret);
        let container = ContainerSpec {
            image: "web:1".to_owned(),
            payloads: vec![secret],
            ..ContainerSpec::default()
        };
        let mode = Mode::Replicated(ReplicatedMode { replicas: 2 });
        let spec = ServiceSpec {
            name: "web".to_owned(),
            mode: Some(ServiceMode { mode: Some(mode) }),
            task: Some(TaskSpec {
                container: Some(container),
                limits: Some(Resources { nano_cpus: 500_000_000, ..Resources::default() }),
                ..TaskSpec::default()
            }),
            ..ServiceSpec::default()
        };
        let mut update =
            UpdateStatus { message: "it failed".to_owned(), ..UpdateStatus::default() };
        update.set_state(UpdateState::Paused);
        let service = Service {
            id: "s1".to_owned(),
            spec: Some(spec),
            update: Some(update),
            ..Service::default()
        };
        let text = page(&service, &ServiceCounts::default(), &BTreeMap::new());
        for lines in [
            "ID: s1\nName: web\nService Mode: replicated\nTasks:\n Running: 0/0\n Replicas: 2\n",
            "Update Status:\n State: paused\n Message: it failed\n",
            "Secrets:\n Target /run/secrets/key:\n  Source: key\n  Mode: 0400\n",
            "Resources:\n Limits:\n  CPU: 0.5\n",
        ] {
            assert!(text.contains(lines), "{text}");
        }
        assert!(!text.contains("Configs"), "{text}");
    }
}
