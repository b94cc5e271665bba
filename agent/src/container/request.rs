//! From a configuration and an image to the runtime's request.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{HookBuilder, Hooks, HooksBuilder, Mount as OciMount};
use shoal_proto::v1::{ContainerConfig, ContainerLimits, ContainerSpec, DeviceLimit, LogDriver};
use shoal_runtime::spec::{self, BlockIo, ContainerOptions, Device, DeviceRate};
use shoal_runtime::{CreateRequest, LogConfig, Namespace, Namespaces, Rootfs, Streams, capability};

use super::{cdi, files, mounts, security};
use crate::node::Node;

/// As Docker's json-file driver is best set.
const LOG_SIZE: u64 = 20 << 20;
const LOG_FILES: u32 = 3;
/// As Docker's.
const LEAST_MEMORY: i64 = 6 << 20;
const READ_WRITE_MAKE: &str = "rwm";

/// Where a container is and what it is called.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) hostname: String,
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// Its networks' gateways, which answer its questions for names.
    pub(crate) nameservers: Vec<Ipv4Addr>,
    pub(crate) namespaces: Namespaces,
    /// Files that are only this container's.
    pub(crate) files: Vec<OciMount>,
}

/// What a container is made of.
pub(crate) struct Wanted<'a> {
    pub(crate) id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfiguration,
    pub(crate) place: &'a Place,
}

/// Everything of a configuration that can be wrong before anything is made.
pub(crate) fn check(
    node: &Node,
    config: &ContainerConfig,
    image: &ImageConfiguration,
) -> Result<(), String> {
    let spec = config.spec.clone().unwrap_or_default();
    let edits = cdi::edits(&config.cdi_devices)?;
    let options = options(config, image, "check", &edits)?;
    if options.args.is_empty() {
        return Err("no command: neither the image nor you name one".to_owned());
    }
    spec::build(options).map_err(|error| error.to_string())?;
    let security = security::parse(&config.security)?;
    shoal_runtime::check_seccomp(&security.seccomp).map_err(|error| error.to_string())?;
    capability::set(&spec.cap_add, &spec.cap_drop)?;
    if !spec.stop_signal.is_empty() && super::signal::parse(&spec.stop_signal).is_none() {
        return Err(format!("{:?} is no signal", spec.stop_signal));
    }
    log(config, "", Path::new("/")).map(drop)?;
    node.users.range(config).map(drop)
}

/// The request; makes the volumes and files that the container needs.
pub(crate) fn build(
    node: &Node,
    wanted: &Wanted<'_>,
    rootfs: Rootfs,
) -> Result<CreateRequest, String> {
    let Wanted { id, config, image, place } = wanted;
    let spec = config.spec.clone().unwrap_or_default();
    let own = image.config().clone().unwrap_or_default();
    let security = security::parse(&config.security)?;
    let edits = cdi::edits(&config.cdi_devices)?;
    let mut options = options(config, image, &place.hostname, &edits)?;
    let mut mounts = network_files(node, wanted, &spec)?;
    mounts.extend(shared_memory(node, &place.namespaces.ipc)?);
    for (number, mount) in spec.mounts.iter().enumerate() {
        mounts.push(mounts::build(node, id, number, mount)?);
    }
    mounts.extend(image_volumes(node, id, &own, &spec)?);
    // Some are in a volume, which would hide them.
    mounts.extend(place.files.iter().cloned());
    for bind in &edits.mounts {
        let options: Vec<&str> = bind.options.iter().map(String::as_str).collect();
        let mount = spec::mount("bind", &bind.host_path, &bind.container_path, &options);
        mounts.push(mount.map_err(|error| error.to_string())?);
    }
    options.mounts = mounts;
    if place.namespaces.uts != Namespace::Private {
        // Somebody else's to name.
        options.hostname.clear();
        options.domainname.clear();
    }
    let log_dir = node.log_dir(id);
    std::fs::create_dir_all(&log_dir)
        .map_err(|error| format!("can't make {}: {error}", log_dir.display()))?;
    let user = match spec.user.as_str() {
        "" => own.user().clone().unwrap_or_default(),
        user => user.to_owned(),
    };
    let capabilities = match config.privileged {
        true => capability::set(&["ALL".to_owned()], &spec.cap_drop)?,
        false => capability::set(&spec.cap_add, &spec.cap_drop)?,
    };
    let seccomp = match config.privileged {
        true if security.seccomp == shoal_runtime::Seccomp::Default => {
            shoal_runtime::Seccomp::Unconfined
        }
        _ => security.seccomp,
    };
    let mut namespaces = place.namespaces.clone();
    namespaces.user = node.users.range(config)?;
    let mut groups = spec.group_add.clone();
    groups.extend(edits.groups.iter().map(u32::to_string));
    let mut built = spec::build(options).map_err(|error| error.to_string())?;
    built.set_hooks(hooks(&edits)?);
    Ok(CreateRequest {
        spec: built,
        rootfs,
        log: log(config, id, &node.log_path(id))?,
        user,
        additional_groups: groups,
        capabilities,
        seccomp,
        init: spec.init,
        streams: Streams {
            terminal: spec.tty,
            stdin: config.open_stdin,
            stdin_once: config.stdin_once,
        },
        namespaces,
        apparmor: security.apparmor,
        label: security.label,
    })
}

fn options(
    config: &ContainerConfig,
    image: &ImageConfiguration,
    hostname: &str,
    edits: &cdi::Edits,
) -> Result<ContainerOptions, String> {
    let spec = config.spec.clone().unwrap_or_default();
    let own = image.config().clone().unwrap_or_default();
    let limits = config.limits.clone().unwrap_or_default();
    let security = security::parse(&config.security)?;
    let cwd = match spec.working_dir.as_str() {
        "" => own.working_dir().clone().unwrap_or_default(),
        cwd => cwd.to_owned(),
    };
    if !cwd.is_empty() && !cwd.starts_with('/') {
        return Err(format!("working directory {cwd:?} is not an absolute path"));
    }
    let mut devices = config.devices.iter().map(device).collect::<Result<Vec<_>, _>>()?;
    for node in &edits.device_nodes {
        let host_path = if node.host_path.is_empty() { &node.path } else { &node.host_path };
        devices.push(device(&shoal_proto::v1::Device {
            host_path: host_path.clone(),
            container_path: node.path.clone(),
            access: node.permissions.clone(),
        })?);
    }
    if config.privileged {
        devices.extend(all_devices(Path::new("/dev")));
    }
    let mut options = ContainerOptions {
        args: command(&spec, own.entrypoint().as_deref(), own.cmd().as_deref()),
        env: environment(
            &[own.env().as_deref().unwrap_or_default(), &edits.env].concat(),
            &spec,
            hostname,
        ),
        cwd: PathBuf::from(if cwd.is_empty() { "/" } else { &cwd }),
        hostname: hostname.to_owned(),
        domainname: config.domainname.clone(),
        read_only: spec.read_only,
        no_new_privileges: spec.no_new_privileges || security.no_new_privileges,
        sysctls: spec.sysctls.clone().into_iter().collect(),
        ulimits: spec
            .ulimits
            .iter()
            .map(|limit| (limit.name.clone(), unlimited(limit.soft), unlimited(limit.hard)))
            .collect(),
        shm_size: spec.shm_size_bytes.max(0) as u64,
        oom_score_adj: config.oom_score_adj_set.then_some(config.oom_score_adj),
        devices,
        device_rules: config.device_cgroup_rules.clone(),
        privileged: config.privileged,
        unconfined_paths: security.unconfined_paths,
        console_size: (config.console_columns, config.console_rows),
        ..ContainerOptions::default()
    };
    limit(&mut options, &limits)?;
    Ok(options)
}

/// Puts the limits into the options.
pub(crate) fn limit(
    options: &mut ContainerOptions,
    limits: &ContainerLimits,
) -> Result<(), String> {
    let swap = limits.memory_swap_bytes;
    if swap > 0 && swap < limits.memory_bytes {
        return Err("the limit of memory and swap together is below the memory's".to_owned());
    }
    if limits.memory_bytes > 0 && limits.memory_bytes < LEAST_MEMORY {
        return Err("a memory limit is 6m at the least: no container starts with less".to_owned());
    }
    if limits.nano_cpus > 0 && limits.cpu_quota > 0 {
        return Err("cpus and cpu-quota say the same: give one of them".to_owned());
    }
    options.memory_limit = limits.memory_bytes;
    options.memory_swap = swap;
    options.memory_reservation = limits.memory_reservation_bytes;
    options.nano_cpus = limits.nano_cpus;
    options.pids_limit = limits.pids;
    options.cpu_shares = limits.cpu_shares;
    options.cpu_quota = limits.cpu_quota;
    options.cpu_period = limits.cpu_period;
    options.cpuset_cpus.clone_from(&limits.cpuset_cpus);
    options.cpuset_mems.clone_from(&limits.cpuset_mems);
    options.oom_kill_disable = limits.oom_kill_disable;
    let block_io = limits.block_io.clone().unwrap_or_default();
    if block_io.weight != 0 && !(10..=1000).contains(&block_io.weight) {
        return Err(format!("block I/O weight {} is not between 10 and 1000", block_io.weight));
    }
    options.block_io = BlockIo {
        weight: block_io.weight as u16,
        read_bytes: rates(&block_io.read_bytes)?,
        write_bytes: rates(&block_io.write_bytes)?,
        read_operations: rates(&block_io.read_operations)?,
        write_operations: rates(&block_io.write_operations)?,
    };
    Ok(())
}

/// The hooks that devices need to be run.
fn hooks(edits: &cdi::Edits) -> Result<Option<Hooks>, String> {
    if edits.hooks.is_empty() {
        return Ok(None);
    }
    let hook = |wanted: &cdi::Hook| {
        let hook = HookBuilder::default().path(&wanted.path).args(wanted.args.clone());
        let hook = hook.env(wanted.env.clone());
        match wanted.timeout {
            Some(timeout) => hook.timeout(timeout).build(),
            None => hook.build(),
        }
    };
    let hooks: Result<Vec<_>, _> = edits.hooks.iter().map(hook).collect();
    let built = hooks.and_then(|hooks| HooksBuilder::default().create_container(hooks).build());
    built.map(Some).map_err(|error| error.to_string())
}

fn rates(limits: &[DeviceLimit]) -> Result<Vec<DeviceRate>, String> {
    let one = |limit: &DeviceLimit| {
        let (_, number) = device_number(Path::new(&limit.path))?;
        Ok(DeviceRate { device: number, rate: limit.rate })
    };
    limits.iter().map(one).collect()
}

/// Whether it is a block device, and its numbers.
fn device_number(path: &Path) -> Result<(bool, (i64, i64)), String> {
    let found =
        std::fs::metadata(path).map_err(|error| format!("device {}: {error}", path.display()))?;
    let kind = found.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Err(format!("{} is no device", path.display()));
    }
    let number = (major(found.rdev()) as i64, minor(found.rdev()) as i64);
    Ok((kind.is_block_device(), number))
}

fn device(wanted: &shoal_proto::v1::Device) -> Result<Device, String> {
    let path = Path::new(&wanted.host_path);
    let (block, number) = device_number(path)?;
    let found =
        std::fs::metadata(path).map_err(|error| format!("device {}: {error}", path.display()))?;
    let place = match wanted.container_path.as_str() {
        "" => path.to_owned(),
        place => PathBuf::from(place),
    };
    if !place.is_absolute() {
        return Err(format!("device path {} is not absolute", place.display()));
    }
    let access = if wanted.access.is_empty() { READ_WRITE_MAKE } else { &wanted.access };
    if access.chars().any(|right| !READ_WRITE_MAKE.contains(right)) {
        return Err(format!("device access {access:?} is not of r, w and m"));
    }
    Ok(Device {
        path: place,
        block,
        number,
        mode: found.mode() & 0o777,
        owner: (found.uid(), found.gid()),
        access: access.to_owned(),
    })
}

/// Every device below a folder of the host's /dev, for privileged containers. Terminals and what
/// is mounted there are the container's own.
fn all_devices(folder: &Path) -> Vec<Device> {
    let mut devices = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            let own = ["pts", "shm", "fd", "mqueue"].map(|name| Path::new("/dev").join(name));
            if !own.contains(&path) {
                devices.extend(all_devices(&path));
            }
        } else if (kind.is_block_device() || kind.is_char_device())
            && !path.ends_with("console")
            && let Ok(found) = device(&shoal_proto::v1::Device {
                host_path: path.display().to_string(),
                ..Default::default()
            })
        {
            devices.push(found);
        }
    }
    devices
}

/// -1 is how people write "no limit".
fn unlimited(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

/// An entrypoint of one's own also takes the image's command away (compose specification,
/// "entrypoint"; docker run, "--entrypoint").
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

/// The image's variables, overridden by one's own; a name alone takes one away.
fn environment(image: &[String], spec: &ContainerSpec, hostname: &str) -> Vec<String> {
    let mut variables: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    variables.insert("HOSTNAME", Some(hostname));
    if spec.tty {
        variables.insert("TERM", Some("xterm"));
    }
    for entry in image.iter().chain(&spec.env) {
        match entry.split_once('=') {
            Some((name, value)) => variables.insert(name, Some(value)),
            None => variables.insert(entry, None),
        };
    }
    let set = variables.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    set.collect()
}

/// An image's VOLUMEs that nothing else is mounted at: a volume of the container's own each.
fn image_volumes(
    node: &Node,
    id: &str,
    own: &oci_spec::image::Config,
    spec: &ContainerSpec,
) -> Result<Vec<OciMount>, String> {
    let volumes = own.volumes().clone().unwrap_or_default();
    let taken = |target: &String| spec.mounts.iter().any(|mount| mount.target == *target);
    let first = spec.mounts.len();
    volumes
        .iter()
        .filter(|target| !taken(target))
        .enumerate()
        .map(|(number, target)| {
            let mount = shoal_proto::v1::Mount { target: target.clone(), ..Default::default() };
            mounts::build(node, id, first + number, &mount)
        })
        .collect()
}

/// The IPC namespace's shared memory comes with it.
fn shared_memory(node: &Node, ipc: &Namespace) -> Result<Vec<OciMount>, String> {
    let root = match ipc {
        Namespace::Private => return Ok(Vec::new()),
        Namespace::Host => PathBuf::from("/"),
        Namespace::Of(other) => match node.runtime.state(other) {
            Ok(
                shoal_runtime::ContainerState::Running { pid, .. }
                | shoal_runtime::ContainerState::Created { pid },
            ) => PathBuf::from(format!("/proc/{pid}/root")),
            _ => return Err(format!("container {other} is not running: its IPC can't be shared")),
        },
    };
    ["dev/shm", "dev/mqueue"]
        .into_iter()
        .map(|path| (root.join(path), Path::new("/").join(path)))
        .filter(|(source, _)| source.is_dir())
        .map(|(source, target)| {
            let options = ["bind", "rprivate", "nosuid", "noexec", "nodev"];
            spec::mount("bind", &source, &target, &options).map_err(|error| error.to_string())
        })
        .collect()
}

fn network_files(
    node: &Node,
    wanted: &Wanted<'_>,
    spec: &ContainerSpec,
) -> Result<Vec<OciMount>, String> {
    let Wanted { id, config, place, .. } = wanted;
    let bind = |path: &Path, target: &str| {
        spec::mount("bind", path, Path::new(target), &["bind", "rprivate", "idmap"])
            .map_err(|error| error.to_string())
    };
    if let Namespace::Of(other) = &place.namespaces.network {
        // Who shares a network shares its names.
        let dir = node.files_dir(other);
        let names = ["hostname", "hosts", "resolv.conf"];
        let there = names.iter().filter(|name| dir.join(name).exists());
        return there.map(|name| bind(&dir.join(name), &format!("/etc/{name}"))).collect();
    }
    let dir = node.files_dir(id);
    let names = names(config, &spec.extra_hosts, place);
    let files = files::write(&dir, &names)
        .map_err(|error| format!("can't write {}: {error}", dir.display()))?;
    files.into_iter().map(|(path, target)| bind(&path, target)).collect()
}

fn names<'a>(
    config: &'a ContainerConfig,
    extra_hosts: &'a [String],
    place: &'a Place,
) -> files::Names<'a> {
    files::Names {
        hostname: &place.hostname,
        domainname: &config.domainname,
        extra_hosts,
        addresses: &place.addresses,
        nameservers: &place.nameservers,
        dns: &config.dns,
        search: &config.dns_search,
        options: &config.dns_options,
        of_the_host: place.namespaces.network == Namespace::Host,
    }
}

/// Brings the files about names of a running container to its new networks.
pub(crate) fn renew_files(
    node: &Node,
    id: &str,
    config: &ContainerConfig,
    before: &Place,
    now: &Place,
) -> std::io::Result<()> {
    let extra_hosts = config.spec.as_ref().map(|spec| spec.extra_hosts.clone()).unwrap_or_default();
    let (before, now) = (names(config, &extra_hosts, before), names(config, &extra_hosts, now));
    files::renew(&node.files_dir(id), &before, &now)
}

/// The log of a driver in Docker's words.
fn log(config: &ContainerConfig, id: &str, path: &Path) -> Result<LogConfig, String> {
    let driver = config.log.clone().unwrap_or_default();
    let mut log = LogConfig {
        path: path.to_owned(),
        max_size: LOG_SIZE,
        max_files: LOG_FILES,
        ..LogConfig::default()
    };
    match driver.name.as_str() {
        "" | "json-file" | "local" => {}
        "none" => log.path = PathBuf::new(),
        "journald" => {
            if !Path::new("/run/systemd/journal/socket").exists() {
                return Err("log driver journald: this host has no journal".to_owned());
            }
            log.journal = journal_fields(config, &driver, id);
        }
        other => {
            return Err(format!(
                "log driver {other:?} is unknown; there are json-file, local, journald and none"
            ));
        }
    }
    for (name, value) in &driver.options {
        match name.as_str() {
            "max-size" => {
                let size: shoal_proto::ByteSize =
                    value.parse().map_err(|error| format!("log option max-size: {error}"))?;
                log.max_size = size.0.max(1);
            }
            "max-file" => {
                log.max_files = value
                    .parse()
                    .ok()
                    .filter(|files| (1..=100).contains(files))
                    .ok_or(format!("log option max-file: {value:?} is not from 1 to 100"))?;
            }
            "tag" if driver.name == "journald" => {}
            // What the file is packed in is ours to choose.
            "compress" if matches!(value.as_str(), "true" | "false") => {}
            other => return Err(format!("log option {other:?} is unknown")),
        }
    }
    Ok(log)
}

/// Docker's names for the fields (its documentation, "Journald logging driver").
fn journal_fields(config: &ContainerConfig, driver: &LogDriver, id: &str) -> String {
    let short: String = id.chars().take(12).collect();
    let tag = driver.options.get("tag").cloned().unwrap_or_else(|| short.clone());
    let image = config.spec.as_ref().map(|spec| spec.image.clone()).unwrap_or_default();
    [
        ("CONTAINER_ID", short.as_str()),
        ("CONTAINER_ID_FULL", id),
        ("CONTAINER_NAME", &config.name),
        ("CONTAINER_TAG", &tag),
        ("SYSLOG_IDENTIFIER", &tag),
        ("IMAGE_NAME", &image),
    ]
    .iter()
    .map(|(name, value)| format!("{name}={}\n", value.replace('\n', " ")))
    .collect()
}
