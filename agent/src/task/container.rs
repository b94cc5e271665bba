//! From a task to a container that runs: image, mounts, files, spec, interfaces, start.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::sys::signal::Signal;
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::Mount as OciMount;
use shoal_image::{Image, Platform, Reference};
use shoal_network::{AttachRequest, PublishedPort};
use shoal_proto::v1::{ContainerSpec, Mount, MountType, Network, Task};
use shoal_runtime::spec::{self, COPY_UP, ContainerOptions};
use shoal_runtime::{
    CreateRequest, LogConfig, Namespaces, Rootfs, RuntimeError, Seccomp, Streams, capability,
};

use super::assigned::{self, hostname};
use super::files;
use super::worker::Refusal;
use crate::node::{Node, Volumes};

/// As Docker's json-file driver is best set.
const LOG_SIZE: u64 = 20 << 20;
const LOG_FILES: u32 = 3;

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
    let interfaces = interfaces(task, networks)?;
    let snapshot = node.images.prepare_snapshot(&task.id, &image).await.map_err(rejected)?;
    let rootfs =
        Rootfs::Overlay { lower: snapshot.lower, upper: snapshot.upper, work: snapshot.work };
    let request = request(node, task, &image.config, rootfs, &interfaces)?;
    let (runtime, id) = (node.runtime.clone(), task.id.clone());
    let created = blocking(move || runtime.create(&id, request)).await.map_err(rejected)?;
    node.network.attach(&task.id, &created.netns, &interfaces).await.map_err(rejected)?;
    let (runtime, id) = (node.runtime.clone(), task.id.clone());
    match blocking(move || runtime.start(&id)).await {
        Ok(()) => Ok(created.pid),
        Err(RuntimeError::Exec { code, message }) => Err(Refusal::Failed(message, code)),
        Err(error) => Err(rejected(error)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RuntimeError::Setup(format!("the work ended early: {error}"))))
}

fn interfaces(
    task: &Task,
    networks: &BTreeMap<String, Network>,
) -> Result<Vec<AttachRequest>, Refusal> {
    let attach = |held: &shoal_proto::v1::NetworkAttachment| {
        let network = networks.get(&held.network_id).and_then(assigned::network)?;
        let address: ipnet::Ipv4Net = held.address.parse().ok()?;
        Some(AttachRequest { network, address: address.addr() })
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

fn request(
    node: &Node,
    task: &Task,
    image: &ImageConfiguration,
    rootfs: Rootfs,
    interfaces: &[AttachRequest],
) -> Result<CreateRequest, Refusal> {
    let spec = container_spec(task);
    let own = image.config().clone().unwrap_or_default();
    let limits = task.spec.as_ref().and_then(|spec| spec.limits).unwrap_or_default();
    let reserved = task.spec.as_ref().and_then(|spec| spec.reservations).unwrap_or_default();
    let hostname = hostname(task);
    let mut mounts = network_files(node, task, &hostname, &spec, interfaces)?;
    for (number, mount) in spec.mounts.iter().enumerate() {
        mounts.push(oci_mount(node, &task.id, number, mount)?);
    }
    let cwd = match spec.working_dir.as_str() {
        "" => own.working_dir().clone().unwrap_or_default(),
        cwd => cwd.to_owned(),
    };
    let options = ContainerOptions {
        args: command(&spec, own.entrypoint().as_deref(), own.cmd().as_deref()),
        env: environment(own.env().as_deref().unwrap_or_default(), &spec.env, &hostname),
        cwd: PathBuf::from(if cwd.is_empty() { "/" } else { &cwd }),
        hostname,
        mounts,
        read_only: spec.read_only,
        no_new_privileges: spec.no_new_privileges,
        sysctls: spec.sysctls.clone().into_iter().collect(),
        ulimits: spec
            .ulimits
            .iter()
            .map(|limit| (limit.name.clone(), unlimited(limit.soft), unlimited(limit.hard)))
            .collect(),
        shm_size: spec.shm_size_bytes.max(0) as u64,
        memory_limit: limits.memory_bytes,
        memory_reservation: reserved.memory_bytes,
        nano_cpus: limits.nano_cpus,
        pids_limit: limits.pids,
    };
    let log_dir = node.log_dir(&task.id);
    std::fs::create_dir_all(&log_dir)
        .map_err(|error| rejected(format!("can't make {}: {error}", log_dir.display())))?;
    let user = match spec.user.as_str() {
        "" => own.user().clone().unwrap_or_default(),
        user => user.to_owned(),
    };
    Ok(CreateRequest {
        spec: spec::build(options).map_err(rejected)?,
        rootfs,
        log: LogConfig {
            path: node.log_path(&task.id),
            max_size: LOG_SIZE,
            max_files: LOG_FILES,
            ..LogConfig::default()
        },
        user,
        additional_groups: spec.group_add.clone(),
        capabilities: capability::set(&spec.cap_add, &spec.cap_drop).map_err(Refusal::Rejected)?,
        seccomp: Seccomp::Default,
        init: spec.init,
        streams: Streams { terminal: spec.tty, stdin: false, stdin_once: false },
        namespaces: Namespaces::default(),
        apparmor: String::new(),
        label: String::new(),
    })
}

/// -1 is how people write "no limit".
fn unlimited(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

/// A service's entrypoint also takes the image's command away (compose specification,
/// "entrypoint").
fn command(
    spec: &ContainerSpec,
    entrypoint: Option<&[String]>,
    cmd: Option<&[String]>,
) -> Vec<String> {
    let mut args = match spec.set_command {
        true => spec.command.clone(),
        false => entrypoint.unwrap_or_default().to_vec(),
    };
    match (spec.set_args, spec.set_command) {
        (true, _) => args.extend(spec.args.iter().cloned()),
        (false, true) => {}
        (false, false) => args.extend(cmd.unwrap_or_default().iter().cloned()),
    }
    args
}

/// The image's variables, overridden by the service's; a name alone takes one away.
fn environment(image: &[String], service: &[String], hostname: &str) -> Vec<String> {
    let mut variables: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    variables.insert("HOSTNAME", Some(hostname));
    for entry in image.iter().chain(service) {
        match entry.split_once('=') {
            Some((name, value)) => variables.insert(name, Some(value)),
            None => variables.insert(entry, None),
        };
    }
    let set = variables.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    set.collect()
}

fn network_files(
    node: &Node,
    task: &Task,
    hostname: &str,
    spec: &ContainerSpec,
    interfaces: &[AttachRequest],
) -> Result<Vec<OciMount>, Refusal> {
    let addresses: Vec<Ipv4Addr> = interfaces.iter().map(|one| one.address).collect();
    let nameservers: Vec<Ipv4Addr> = interfaces.iter().map(|one| one.network.gateway).collect();
    let dir = node.files_dir(&task.id);
    let files = files::write(&dir, hostname, spec, &addresses, &nameservers)
        .map_err(|error| rejected(format!("can't write {}: {error}", dir.display())))?;
    files
        .into_iter()
        .map(|(path, target)| {
            spec::mount("bind", &path, Path::new(target), &["bind", "rprivate"]).map_err(rejected)
        })
        .collect()
}

fn oci_mount(node: &Node, task: &str, number: usize, mount: &Mount) -> Result<OciMount, Refusal> {
    let target = Path::new(&mount.target);
    let access = if mount.read_only { "ro" } else { "rw" };
    let fail = |what: &str, error: std::io::Error| rejected(format!("{what}: {error}"));
    match mount.r#type() {
        MountType::Volume => {
            let name = match mount.source.as_str() {
                "" => Volumes::anonymous(task, number),
                name => name.to_owned(),
            };
            let source = node
                .volumes
                .ensure(&name)
                .map_err(|error| fail(&format!("volume {name}"), error))?;
            let mut options = vec!["rbind", "rprivate", access];
            if !mount.no_copy {
                options.push(COPY_UP);
            }
            spec::mount("bind", &source, target, &options)
        }
        MountType::Bind => {
            let source = Path::new(&mount.source);
            if !source.exists() {
                if !mount.create_host_path {
                    return Err(rejected(format!(
                        "bind mount: {} does not exist on this node",
                        mount.source
                    )));
                }
                std::fs::create_dir_all(source).map_err(|error| fail(&mount.source, error))?;
            }
            let propagation = match mount.propagation.as_str() {
                "" => "rprivate",
                propagation => propagation,
            };
            spec::mount("bind", source, target, &["rbind", propagation, access])
        }
        MountType::Tmpfs => {
            let mut options = vec![
                "nosuid".to_owned(),
                "nodev".to_owned(),
                "noexec".to_owned(),
                access.to_owned(),
            ];
            if mount.tmpfs_size_bytes > 0 {
                options.push(format!("size={}", mount.tmpfs_size_bytes));
            }
            if mount.tmpfs_mode > 0 {
                options.push(format!("mode={:o}", mount.tmpfs_mode));
            }
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            spec::mount("tmpfs", Path::new("tmpfs"), target, &options)
        }
    }
    .map_err(rejected)
}

/// The service's stop signal, else the image's, else SIGTERM.
pub(super) fn stop_signal(spec: &ContainerSpec, image: Option<&Image>) -> Signal {
    let mut text = spec.stop_signal.clone();
    if text.is_empty()
        && let Some(image) = image
    {
        let own = image.config.config().as_ref().and_then(|own| own.stop_signal().clone());
        text = own.unwrap_or_default();
    }
    signal(&text).unwrap_or(Signal::SIGTERM)
}

/// `SIGINT`, `INT` or `2`.
fn signal(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).ok();
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    Signal::from_str(&name).ok()
}
