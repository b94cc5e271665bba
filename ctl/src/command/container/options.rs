//! What `run` and `create` are told of the container.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{
    ContainerConfig, ContainerRestart, ContainerRestartPolicy, ContainerSpec, Device, LogDriver,
    Mount, Ulimit,
};

use super::health::Health;
use super::limits::{Limits, Rates, bytes};
use super::mount;
use super::network::{self, Chosen};
use super::port::{self, Published};

/// The container.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the container [default: one is made up]
    #[arg(long)]
    name: Option<String>,
    /// Set a variable: NAME=VALUE, or NAME for its value here
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Label: NAME=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// User, and group, by name or number: USER[:GROUP]
    #[arg(short, long)]
    user: Option<String>,
    /// Further group
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// What to run instead of the image's entrypoint; empty: no entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Host name [default: the beginning of the id]
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Domain name
    #[arg(long)]
    domainname: Option<String>,
    /// Mount a volume or a folder: [SOURCE:]TARGET[:ro,…]
    #[arg(short, long, value_name = "VOLUME", value_parser = mount::volume)]
    volume: Vec<Mount>,
    /// Mount: type=bind|volume|tmpfs,source=…,target=…,readonly,…
    #[arg(long, value_name = "MOUNT", value_parser = mount::mount)]
    mount: Vec<Mount>,
    /// Mount a tmpfs: TARGET[:size=…,mode=…]
    #[arg(long, value_name = "TMPFS", value_parser = mount::tmpfs)]
    tmpfs: Vec<Mount>,
    /// No writes to the root file system
    #[arg(long)]
    read_only: bool,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    shm_size: Option<i64>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    rates: Rates,
    /// Limit of setrlimit(2): NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT", value_parser = ulimit)]
    ulimit: Vec<Ulimit>,
    /// Kernel parameter of the container's namespaces: NAME=VALUE
    #[arg(long, value_name = "PARAMETER")]
    sysctl: Vec<String>,
    /// Device of the host's: PATH[:PATH IN THE CONTAINER[:rwm]], or a CDI name: VENDOR/CLASS=NAME
    #[arg(long, value_parser = device)]
    device: Vec<Given>,
    /// GPUs, as the node's CDI files name them: all, or "device=0,1"
    #[arg(long, value_name = "GPUS", value_parser = gpus)]
    gpus: Option<Gpus>,
    /// Rule on devices: "c 189:* rwm"
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Capability to add; ALL for all
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Capability to take away; ALL for all
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// All capabilities and devices, nothing hidden, no seccomp
    #[arg(long)]
    privileged: bool,
    /// seccomp=FILE|unconfined, no-new-privileges, apparmor=PROFILE, label=LABEL,
    /// systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// User namespace: host, or remapped to ids that are nobody's on the host
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Pid namespace: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// IPC namespace: private, shareable, host or container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// UTS namespace: host or container:NAME
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// Network: bridge, host, none, container:NAME, or networks of the cluster: NAME, or
    /// name=NAME,ip=ADDRESS,mac-address=MAC,alias=ALIAS
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = network::parse)]
    network: Vec<Chosen>,
    /// Further name on the network
    #[arg(long, visible_alias = "net-alias", value_name = "ALIAS")]
    network_alias: Vec<String>,
    /// Address on the network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Hardware address on the network
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
    /// Cgroup namespace: private or host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// Publish a port: [[ADDRESS:]PORT:]PORT[/udp]; of a range for one port, 8000-8010:80, the first
    /// that is free
    #[arg(short, long, value_name = "PORT", value_parser = port::parse)]
    publish: Vec<Published>,
    /// Publish all ports that the image exposes, at ports that the node picks
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// DNS server to ask
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Domain to search names in
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of resolv.conf(5)
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Name in /etc/hosts: NAME:ADDRESS; the address host-gateway is the node
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Signal that stops it [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL [default: 10]
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// When it ends: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = restart, default_value = "no")]
    restart: ContainerRestartPolicy,
    #[command(flatten)]
    health: Health,
    /// Run it under a small init, which reaps and forwards signals
    #[arg(long)]
    init: bool,
    /// How gladly the kernel kills it for want of memory, from -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Wait for memory instead of being killed (cgroup v1 alone)
    #[arg(long)]
    oom_kill_disable: bool,
    /// Where its output goes: json-file, local, journald, none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// max-size=20m, max-file=3, tag=NAME
    #[arg(long, value_name = "OPTION")]
    log_opt: Vec<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// A terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Remove it when it has ended
    #[arg(long)]
    pub(super) rm: bool,
    /// Pull the image: always, missing, never
    #[arg(long, default_value = "missing", value_parser = ["always", "missing", "never"])]
    pub(super) pull: String,
    /// Write the container's id into a new file
    #[arg(long, value_name = "FILE")]
    pub(super) cidfile: Option<PathBuf>,
    /// Show help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// The image
    pub(super) image: String,
    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn restart(text: &str) -> Result<ContainerRestartPolicy, String> {
    let (word, times) = match text.split_once(':') {
        Some((word, times)) => (word, Some(times)),
        None => (text, None),
    };
    let condition = match (word, times) {
        ("no" | "", None) => ContainerRestart::No,
        ("always", None) => ContainerRestart::Always,
        ("unless-stopped", None) => ContainerRestart::UnlessStopped,
        ("on-failure", _) => ContainerRestart::OnFailure,
        _ => {
            return Err(format!(
                "{text:?} is no restart policy; there are no, on-failure[:TIMES], always and \
                 unless-stopped"
            ));
        }
    };
    let max_retries = match times {
        None => 0,
        Some(times) => times.parse().map_err(|_| format!("{times:?} is no number of times"))?,
    };
    Ok(ContainerRestartPolicy { condition: condition.into(), max_retries })
}

/// For `update`, which takes the same.
pub(super) fn restart_policy(text: &str) -> Result<ContainerRestartPolicy, String> {
    restart(text)
}

pub(in crate::command) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let wrong = || format!("{text:?} is not of the form NAME=SOFT[:HARD]");
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        text => text.parse::<i64>().map_err(|_| wrong()),
    };
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

/// A device, by its path or by the name that its vendor gives it.
#[derive(Debug, Clone)]
enum Given {
    Path(Device),
    Named(String),
}

/// CDI names.
#[derive(Debug, Clone)]
struct Gpus(Vec<String>);

fn gpus(text: &str) -> Result<Gpus, String> {
    let named = |name: &str| format!("nvidia.com/gpu={name}");
    let text = text.trim_matches('"');
    match text.strip_prefix("device=") {
        Some(list) if !list.is_empty() => Ok(Gpus(list.split(',').map(named).collect())),
        None if text == "all" => Ok(Gpus(vec![named("all")])),
        // So many, of those that there are: CDI names them by number from 0.
        _ => match text.parse::<u32>() {
            Ok(count @ 1..) => {
                Ok(Gpus((0..count).map(|index| named(&index.to_string())).collect()))
            }
            _ => Err(format!("{text:?} is not all, a number, or device=NAME,…")),
        },
    }
}

fn device(text: &str) -> Result<Given, String> {
    if !text.starts_with('/') && text.contains('=') {
        return Ok(Given::Named(text.to_owned()));
    }
    device_at(text).map(Given::Path)
}

fn device_at(text: &str) -> Result<Device, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_access = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (host, container, access) = match parts[..] {
        [host] => (host, "", ""),
        [host, access] if is_access(access) => (host, "", access),
        [host, container] => (host, container, ""),
        [host, container, access] if is_access(access) => (host, container, access),
        _ => return Err(format!("{text:?} is not of the form PATH[:PATH[:rwm]]")),
    };
    Ok(Device {
        host_path: host.to_owned(),
        container_path: container.to_owned(),
        access: access.to_owned(),
    })
}

/// `NAME=VALUE` pairs.
pub(in crate::command) fn pairs<C: FromIterator<(String, String)>>(list: &[String]) -> C {
    let pair = |entry: &String| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.to_owned(), value.to_owned())
    };
    list.iter().map(pair).collect()
}

/// A name alone takes its value from here; without one here it is left out.
pub(in crate::command) fn environment(
    given: &[String],
    files: &[PathBuf],
) -> anyhow::Result<Vec<String>> {
    let mut entries = Vec::new();
    for file in files {
        let text = fs::read_to_string(file)
            .with_context(|| format!("can't read the variables in {}", file.display()))?;
        let lines = text.lines().map(str::trim_start);
        entries.extend(
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned),
        );
    }
    entries.extend(given.iter().cloned());
    let mut set = Vec::new();
    for entry in entries {
        match entry.split_once('=') {
            Some(("", _)) => bail!("variable {entry:?} has no name"),
            Some(_) => set.push(entry),
            None => {
                if let Ok(value) = std::env::var(&entry) {
                    set.push(format!("{entry}={value}"));
                }
            }
        }
    }
    Ok(set)
}

/// A profile is read here: the agent has no business with this user's files.
fn security(options: &[String]) -> anyhow::Result<Vec<String>> {
    let read = |option: &String| match option.strip_prefix("seccomp=") {
        None | Some("unconfined") => Ok(option.clone()),
        Some(path) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("can't read the seccomp profile {path}"))?;
            Ok(format!("seccomp={text}"))
        }
    };
    options.iter().map(read).collect()
}

impl Options {
    /// In the words of the API.
    pub(super) fn config(self) -> anyhow::Result<ContainerConfig> {
        let mut healthcheck = None;
        self.health.apply(&mut healthcheck);
        let mounts = [self.volume, self.mount, self.tmpfs].concat();
        let mut limits = self.limits.wire();
        limits.oom_kill_disable = self.oom_kill_disable;
        limits.pids = limits.pids.max(0);
        self.rates.add_to(&mut limits);
        let (mut devices, mut cdi_devices) =
            (Vec::new(), self.gpus.map(|gpus| gpus.0).unwrap_or_default());
        for given in self.device {
            match given {
                Given::Path(device) => devices.push(device),
                Given::Named(name) => cdi_devices.push(name),
            }
        }
        let mut extra_hosts = Vec::new();
        for entry in &self.add_host {
            let Some((name, address)) = entry.split_once([':', '=']) else {
                bail!("--add-host {entry}: want NAME:ADDRESS");
            };
            extra_hosts.push(format!("{name}={address}"));
        }
        let spec = ContainerSpec {
            image: self.image,
            command: self.entrypoint.iter().filter(|text| !text.is_empty()).cloned().collect(),
            set_command: self.entrypoint.is_some(),
            set_args: !self.command.is_empty(),
            args: self.command,
            env: environment(&self.env, &self.env_file)?,
            working_dir: self.workdir.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            hostname: self.hostname.unwrap_or_default(),
            labels: pairs(&self.label),
            mounts,
            healthcheck,
            stop_signal: self.stop_signal.unwrap_or_default(),
            stop_grace_period: self
                .stop_timeout
                .map(|seconds| proto_duration(Duration::from_secs(seconds))),
            read_only: self.read_only,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            init: self.init,
            tty: self.tty,
            group_add: self.group_add,
            sysctls: pairs(&self.sysctl),
            ulimits: self.ulimit,
            shm_size_bytes: self.shm_size.unwrap_or_default(),
            extra_hosts,
            ..ContainerSpec::default()
        };
        let single = network::Single {
            aliases: self.network_alias,
            address: self.ip,
            mac_address: self.mac_address,
        };
        let (network_mode, networks) = network::choose(self.network, single)?;
        Ok(ContainerConfig {
            name: self.name.unwrap_or_default(),
            spec: Some(spec),
            limits: Some(limits),
            open_stdin: self.interactive,
            auto_remove: self.rm,
            restart: Some(self.restart),
            log: Some(LogDriver {
                name: self.log_driver.unwrap_or_default(),
                options: pairs(&self.log_opt),
            }),
            privileged: self.privileged,
            devices,
            cdi_devices,
            device_cgroup_rules: self.device_cgroup_rule,
            security: security(&self.security_opt)?,
            network_mode,
            networks,
            pid_mode: self.pid.unwrap_or_default(),
            ipc_mode: self.ipc.unwrap_or_default(),
            uts_mode: self.uts.unwrap_or_default(),
            cgroup_mode: self.cgroupns.unwrap_or_default(),
            userns_mode: self.userns.unwrap_or_default(),
            ports: self.publish.into_iter().flat_map(|published| published.0).collect(),
            publish_all: self.publish_all,
            dns: self.dns,
            dns_search: self.dns_search,
            dns_options: self.dns_option,
            oom_score_adj: self.oom_score_adj.unwrap_or_default(),
            oom_score_adj_set: self.oom_score_adj.is_some(),
            domainname: self.domainname.unwrap_or_default(),
            ..ContainerConfig::default()
        })
    }
}
