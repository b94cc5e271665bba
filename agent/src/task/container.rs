//! From a task to a container that runs: image, mounts, files, spec, interfaces, start.

use std::collections::BTreeMap;
use std::str::FromStr;

use nix::sys::signal::Signal;
use shoal_image::{Image, Platform, Reference};
use shoal_network::{AttachRequest, PublishedPort};
use shoal_proto::v1::{
    ContainerConfig, ContainerLimits, ContainerSpec, GenericResource, Network, Task,
};
use shoal_runtime::{Namespaces, Rootfs, RuntimeError};

use super::assigned::{self, hostname};
use super::worker::Refusal;
use super::{fence, given};
use crate::container::{self, Place, Wanted, signal};
use crate::node::Node;

fn rejected(error: impl ToString) -> Refusal {
    Refusal::Rejected(error.to_string())
}

/// The ports that the node must open for the task.
pub(super) fn ports(task: &Task) -> Vec<PublishedPort> {
    task.ports.iter().filter_map(assigned::port).collect()
}

fn container_spec(task: &Task) -> ContainerSpec {
    task.spec.clone().unwrap_or_default().container.unwrap_or_default()
}

/// Gets the image and the ports.
pub(super) async fn prepare(node: &Node, task: &Task) -> Result<Image, Refusal> {
    let name = container_spec(task).image;
    let image = match node.images.resolve(&name).await.map_err(rejected)? {
        Some(image) => image,
        None => {
            let reference = Reference::from_str(&name).map_err(rejected)?;
            node.images.pull(&reference, &Platform::host(), |_| {}).await.map_err(rejected)?
        }
    };
    node.network.claim_ports(&task.id, &ports(task)).await.map_err(rejected)?;
    Ok(image)
}

/// Makes the container and starts its command; returns its pid.
pub(super) async fn start(
    node: &Node,
    task: &Task,
    networks: &BTreeMap<String, Network>,
    image: Image,
) -> Result<u32, Refusal> {
    let mut filled_in = task.clone();
    given::fill_in(node, &mut filled_in).map_err(Refusal::Rejected)?;
    let task = &filled_in;
    // What does not fit would have to be told so by each node on its way.
    let mtu = match node.address {
        Some(own) => Some(node.network.overlay_mtu(own).await.map_err(rejected)?),
        None => None,
    };
    let interfaces = interfaces(task, networks, mtu)?;
    let snapshot = node.images.prepare_snapshot(&task.id, &image).await.map_err(rejected)?;
    let rootfs =
        Rootfs::Overlay { lower: snapshot.lower, upper: snapshot.upper, work: snapshot.work };
    let mut config = config(task);
    let files = given::give(node, task, &mut config).map_err(Refusal::Rejected)?;
    let place = Place {
        files,
        hostname: hostname(task),
        addresses: interfaces.iter().map(|one| one.address).collect(),
        nameservers: interfaces.iter().map(|one| one.network.gateway).collect(),
        namespaces: Namespaces::default(),
    };
    let wanted = Wanted { id: &task.id, config: &config, image: &image.config, place: &place };
    let request = container::build(node, &wanted, rootfs).map_err(Refusal::Rejected)?;
    let (runtime, id) = (node.runtime.clone(), task.id.clone());
    let created = blocking(move || runtime.create(&id, request)).await.map_err(rejected)?;
    node.network.attach(&task.id, &created.netns, &interfaces).await.map_err(rejected)?;
    if task.spec.as_ref().is_some_and(|spec| spec.fenced) {
        fence::begin(node, &task.id).await.map_err(rejected)?;
    }
    let (runtime, id) = (node.runtime.clone(), task.id.clone());
    match blocking(move || runtime.start(&id)).await {
        Ok(()) => Ok(created.pid),
        Err(RuntimeError::Exec { code, message }) => Err(Refusal::Failed(message, code)),
        Err(error) => Err(rejected(error)),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RuntimeError::Setup(format!("the work ended early: {error}"))))
}

fn interfaces(
    task: &Task,
    networks: &BTreeMap<String, Network>,
    mtu: Option<u32>,
) -> Result<Vec<AttachRequest>, Refusal> {
    let attach = |held: &shoal_proto::v1::NetworkAttachment| {
        let network = networks.get(&held.network_id).and_then(assigned::network)?;
        let address: ipnet::Ipv4Net = held.address.parse().ok()?;
        Some(AttachRequest { network, address: address.addr(), mtu, mac: None })
    };
    let wanted = task.networks.iter();
    wanted
        .map(|held| {
            attach(held).ok_or_else(|| {
                Refusal::Rejected(format!("network {} is not known on this node", held.network_id))
            })
        })
        .collect()
}

/// A task's container in the terms of single ones.
fn config(task: &Task) -> ContainerConfig {
    let spec = task.spec.clone().unwrap_or_default();
    let (limits, reserved) =
        (spec.limits.unwrap_or_default(), spec.reservations.unwrap_or_default());
    let mut container = spec.container.unwrap_or_default();
    container.env.extend(task.generic_resources.iter().map(variable));
    ContainerConfig {
        name: format!("{}.{}.{}", task.service_name, task.slot, task.id),
        spec: Some(container),
        limits: Some(ContainerLimits {
            memory_bytes: limits.memory_bytes,
            memory_reservation_bytes: reserved.memory_bytes,
            nano_cpus: limits.nano_cpus,
            pids: limits.pids,
            ..ContainerLimits::default()
        }),
        ..ContainerConfig::default()
    }
}

/// How a container learns what its task holds, as in Swarm.
fn variable(held: &GenericResource) -> String {
    let value = match held.names.is_empty() {
        true => held.count.to_string(),
        false => held.names.join(","),
    };
    format!("DOCKER_RESOURCE_{}={value}", held.kind.to_uppercase())
}

/// The service's stop signal, else the image's, else SIGTERM.
pub(super) fn stop_signal(spec: &ContainerSpec, image: Option<&Image>) -> i32 {
    let mut text = spec.stop_signal.clone();
    if text.is_empty()
        && let Some(image) = image
    {
        let own = image.config.config().as_ref().and_then(|own| own.stop_signal().clone());
        text = own.unwrap_or_default();
    }
    signal::parse(&text).unwrap_or(Signal::SIGTERM as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_proto::v1::TaskSpec;

    #[test]
    fn a_container_is_told_what_its_task_holds_of_generic_resources() {
        let container = ContainerSpec {
            env: vec!["A=b".to_owned(), "DOCKER_RESOURCE_GPU=7".to_owned()],
            ..ContainerSpec::default()
        };
        let held = |kind: &str, count, names: &[&str]| GenericResource {
            kind: kind.to_owned(),
            count,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let task = Task {
            spec: Some(TaskSpec { container: Some(container), ..TaskSpec::default() }),
            generic_resources: vec![held("gpu", 2, &[]), held("nvme-ssd", 0, &["a", "b"])],
            ..Task::default()
        };
        // The last of a name counts.
        let expected = [
            "A=b",
            "DOCKER_RESOURCE_GPU=7",
            "DOCKER_RESOURCE_GPU=2",
            "DOCKER_RESOURCE_NVME-SSD=a,b",
        ];
        assert_eq!(config(&task).spec.unwrap().env, expected);
    }
}
