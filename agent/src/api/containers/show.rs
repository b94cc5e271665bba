//! Containers as listings and `inspect` show them.

use shoal_proto::v1::{
    ContainerConfig, ContainerMountInfo, ContainerNetworkInfo, ContainerRecord, ContainerStateInfo,
    ContainerStatus, ContainerSummary, InspectContainerResponse, MountType, Task, TaskState,
};

use crate::node::{Node, Volumes};
use crate::single::{Attached, Single, Singles, shown_ports};
use crate::task;

/// The newest first.
pub(super) fn list(singles: &Singles, all: bool) -> Vec<ContainerSummary> {
    let own = singles.all().into_iter().map(|single| summary(&single.record()));
    let tasks = task::all(singles.node()).into_iter();
    let tasks = tasks.filter_map(|task| task_summary(singles.node(), &task));
    let mut shown: Vec<ContainerSummary> = own.chain(tasks).collect();
    shown.retain(|one| all || is_up(one));
    shown.sort_by_key(|one| {
        one.created_at.as_ref().map(|at| std::cmp::Reverse((at.seconds, at.nanos)))
    });
    shown
}

fn is_up(summary: &ContainerSummary) -> bool {
    let status = summary.state.as_ref().map(ContainerStateInfo::status).unwrap_or_default();
    use ContainerStatus::{Paused, Restarting, Running};
    matches!(status, Running | Paused | Restarting)
}

fn summary(record: &ContainerRecord) -> ContainerSummary {
    let config = record.config.clone().unwrap_or_default();
    let spec = config.spec.unwrap_or_default();
    ContainerSummary {
        id: record.id.clone(),
        name: config.name,
        image: spec.image.clone(),
        command: command(record),
        created_at: record.created_at,
        state: record.state.clone(),
        ports: shown_ports(record),
        labels: spec.labels,
        task_id: String::new(),
    }
}

/// As executed; before the first start what it will be.
fn command(record: &ContainerRecord) -> Vec<String> {
    if !record.args.is_empty() {
        return record.args.clone();
    }
    let spec = record.config.clone().unwrap_or_default().spec.unwrap_or_default();
    let image: serde_json::Value = serde_json::from_str(&record.image_config).unwrap_or_default();
    let list = |name: &str| -> Vec<String> {
        let values = image["config"][name].as_array().cloned().unwrap_or_default();
        values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let mut args = if spec.set_command { spec.command } else { list("Entrypoint") };
    match (spec.set_args, spec.set_command) {
        (true, _) => args.extend(spec.args),
        (false, true) => {}
        (false, false) => args.extend(list("Cmd")),
    }
    args
}

/// None for a task that has no container yet.
fn task_summary(node: &Node, task: &Task) -> Option<ContainerSummary> {
    let status = node.statuses.status(&task.id)?;
    if status.state() < TaskState::Starting {
        return None;
    }
    let spec = task.spec.clone().unwrap_or_default().container.unwrap_or_default();
    let runs = matches!(status.state(), TaskState::Starting | TaskState::Running);
    let paused = runs && node.runtime.is_paused(&task.id);
    let container_status = match (runs, paused) {
        (true, true) => ContainerStatus::Paused,
        (true, false) => ContainerStatus::Running,
        (false, _) => ContainerStatus::Exited,
    };
    let state = ContainerStateInfo {
        status: container_status.into(),
        pid: status.pid,
        exit_code: status.exit_code.unwrap_or_default(),
        oom_killed: status.oom_killed,
        error: status.error.clone(),
        started_at: status.since.filter(|_| runs),
        finished_at: status.since.filter(|_| !runs),
        health: status.health,
        ..ContainerStateInfo::default()
    };
    Some(ContainerSummary {
        id: task.id.clone(),
        name: format!("{}.{}.{}", task.service_name, task.slot, task.id),
        image: spec.image,
        command: [spec.command, spec.args].concat(),
        created_at: task.meta.as_ref().and_then(|meta| meta.created_at),
        state: Some(state),
        ports: Vec::new(),
        labels: spec.labels,
        task_id: task.id.clone(),
    })
}

pub(super) fn inspect_single(singles: &Singles, single: &Single) -> InspectContainerResponse {
    let node = singles.node();
    let record = single.record();
    let config = record.config.clone().unwrap_or_default();
    let places = singles.shown_places(&record).into_iter();
    let networks: Vec<ContainerNetworkInfo> = places
        .map(|(wanted, place)| match place {
            Some(place) => network_info(&place),
            None => ContainerNetworkInfo {
                name: wanted.network,
                mac_address: wanted.mac_address,
                aliases: wanted.aliases,
                ..ContainerNetworkInfo::default()
            },
        })
        .collect();
    let first = networks.first().cloned().unwrap_or_default();
    let bare = |address: &str| address.split('/').next().unwrap_or_default().to_owned();
    InspectContainerResponse {
        summary: Some(summary(&record)),
        image_id: record.image_id.clone(),
        args: command(&record),
        log_path: node.log_path(&single.id).display().to_string(),
        address: bare(&first.address),
        gateway: first.gateway,
        mounts: mounts(node, &single.id, &config),
        config: Some(config),
        networks,
    }
}

fn network_info(place: &Attached) -> ContainerNetworkInfo {
    let Attached { network, address, .. } = place;
    let mac = place.mac.unwrap_or_else(|| shoal_network::hardware_address(*address));
    let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    ContainerNetworkInfo {
        name: network.name.clone(),
        network_id: network.id.clone(),
        address: format!("{address}/{}", network.subnet.prefix_len()),
        gateway: network.gateway.to_string(),
        mac_address: mac.join(":"),
        aliases: place.aliases.clone(),
    }
}

pub(super) fn inspect_task(node: &Node, task: &Task) -> InspectContainerResponse {
    let mut task = task.clone();
    // With a placeholder that means nothing it never had a container: shown as written.
    let _ = task::fill_in(node, &mut task);
    let summary = task_summary(node, &task);
    let config = ContainerConfig {
        name: format!("{}.{}.{}", task.service_name, task.slot, task.id),
        spec: task.spec.clone().unwrap_or_default().container,
        ..ContainerConfig::default()
    };
    let told = node.told.borrow();
    let place = |held: &shoal_proto::v1::NetworkAttachment| {
        let address: ipnet::Ipv4Net = held.address.parse().ok()?;
        let network = told.networks.get(&held.network_id)?.clone();
        let aliases = held.aliases.clone();
        Some(network_info(&Attached { network, address: address.addr(), mac: None, aliases }))
    };
    let networks: Vec<ContainerNetworkInfo> = task.networks.iter().filter_map(place).collect();
    let first = networks.first().cloned().unwrap_or_default();
    InspectContainerResponse {
        args: summary.as_ref().map(|summary| summary.command.clone()).unwrap_or_default(),
        summary,
        image_id: String::new(),
        log_path: node.log_path(&task.id).display().to_string(),
        address: first.address.split('/').next().unwrap_or_default().to_owned(),
        gateway: first.gateway,
        mounts: mounts(node, &task.id, &config),
        config: Some(config),
        networks,
    }
}

fn mounts(node: &Node, id: &str, config: &ContainerConfig) -> Vec<ContainerMountInfo> {
    let mounts = config.spec.as_ref().map(|spec| spec.mounts.clone()).unwrap_or_default();
    mounts
        .into_iter()
        .enumerate()
        .map(|(number, mount)| {
            let (kind, name) = match mount.r#type() {
                MountType::Volume if mount.source.is_empty() => {
                    ("volume", Volumes::anonymous(id, number))
                }
                MountType::Volume => ("volume", mount.source.clone()),
                MountType::Bind => ("bind", String::new()),
                MountType::Tmpfs => ("tmpfs", String::new()),
            };
            let source = match kind {
                "volume" => node.volumes.path(&name).display().to_string(),
                _ => mount.source,
            };
            ContainerMountInfo {
                r#type: kind.to_owned(),
                source,
                target: mount.target,
                read_only: mount.read_only,
                name,
            }
        })
        .collect()
}
