//! What runs in a task, and what it is given.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use shoal_proto::duration;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{ContainerSpec, Mount, PayloadReference, Ulimit};

use super::words::Words;
use super::{payload, put};
use crate::command::container::health::Health;
use crate::command::container::mount;
use crate::command::container::options::{environment, pairs, ulimit};

/// The container.
#[derive(Debug, Args)]
pub(super) struct Container {
    /// Set a variable: NAME=VALUE, or NAME for its value here
    #[arg(short, long, alias = "env-add", value_name = "VARIABLE")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Label of the containers: NAME=VALUE
    #[arg(long, alias = "container-label-add", value_name = "LABEL")]
    container_label: Vec<String>,
    /// Mount: type=volume|bind|tmpfs,source=…,target=…,readonly,…; with volume-movable a task may
    /// leave the volume behind
    #[arg(long, alias = "mount-add", value_parser = mounted)]
    mount: Vec<Mount>,
    /// Secret, as a file in /run/secrets, or source=NAME,target=PATH,uid=…,gid=…,mode=0400
    #[arg(long, alias = "secret-add", value_parser = payload::secret)]
    secret: Vec<PayloadReference>,
    /// Config, as a file in /, or source=NAME,target=PATH,uid=…,gid=…,mode=0444, or
    /// source=NAME,env=VARIABLE
    #[arg(long, alias = "config-add", value_parser = payload::config)]
    config: Vec<PayloadReference>,
    /// User, and group, by name or number: USER[:GROUP]
    #[arg(short, long)]
    user: Option<String>,
    /// Further group
    #[arg(long, alias = "group-add")]
    group: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Host name [default: the beginning of the id]
    #[arg(long)]
    hostname: Option<String>,
    /// Name in /etc/hosts: NAME:ADDRESS; the address host-gateway is the node
    #[arg(long = "host", alias = "host-add", value_name = "NAME:ADDRESS", value_parser = host)]
    hosts: Vec<String>,
    /// What to run instead of the image's entrypoint, split as a shell does; empty: no entrypoint
    #[arg(long, value_name = "COMMAND", value_parser = Words::parse)]
    entrypoint: Option<Words>,
    /// Time between the stop signal and SIGKILL [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    stop_grace_period: Option<Duration>,
    /// Signal that stops it [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    #[command(flatten)]
    health: Health,
    /// Run it under a small init, which reaps and forwards signals
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    init: Option<bool>,
    /// No writes to the root file system
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    read_only: Option<bool>,
    /// A terminal
    #[arg(short, long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    tty: Option<bool>,
    /// Capability to add; ALL for all
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Capability to take away; ALL for all
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Kernel parameter of the container's namespaces: NAME=VALUE
    #[arg(long, alias = "sysctl-add", value_name = "PARAMETER")]
    sysctl: Vec<String>,
    /// Limit of setrlimit(2): NAME=SOFT[:HARD]
    #[arg(long, alias = "ulimit-add", value_name = "LIMIT", value_parser = ulimit)]
    ulimit: Vec<Ulimit>,
}

/// As for a single container, but that a path is one of the nodes', that a volume's name may have
/// placeholders, and that it may be movable.
fn mounted(text: &str) -> Result<Mount, String> {
    let mut movable = false;
    let mut rest = Vec::new();
    for part in text.split(',') {
        match part {
            "volume-movable" | "volume-movable=true" => movable = true,
            "volume-movable=false" => movable = false,
            part => rest.push(part),
        }
    }
    let source = rest.iter().find_map(|part| match part.split_once('=') {
        Some(("source" | "src", source)) => Some(source),
        _ => None,
    });
    if rest.contains(&"type=bind") && source.is_some_and(|source| !source.starts_with('/')) {
        return Err("source= is a path on the nodes; it begins with a /".to_owned());
    }
    let mount = mount::of_task(&rest.join(","))?;
    Ok(Mount { movable, ..mount })
}

/// A line as the API has it: `NAME=ADDRESS`.
pub(in crate::command::service) fn host(text: &str) -> Result<String, String> {
    if text.contains("://") {
        return Err(
            "here, --host is a line of /etc/hosts: NAME:ADDRESS; name the agent's socket with \
                    --socket, or with --host before \"service\""
                .to_owned(),
        );
    }
    let (name, address) = text
        .split_once([':', '='])
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("{text:?} is not NAME:ADDRESS"))?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(format!("{name}={address}")),
        Err(_) if address == "host-gateway" => Ok(format!("{name}={address}")),
        Err(_) => Err(format!("{address:?} is not an address")),
    }
}

/// Of one name; an entry may be a name alone.
pub(in crate::command::service) fn same_variable(one: &str, other: &str) -> bool {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    name(one) == name(other)
}

/// Puts capabilities into one list, and takes them from the other.
fn capabilities(given: &[String], into: &mut Vec<String>, other: &mut Vec<String>) {
    let bare = |name: &str| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
    };
    for capability in given {
        let same = |listed: &String| bare(listed) == bare(capability);
        other.retain(|listed| !same(listed));
        if !into.iter().any(same) {
            into.push(capability.clone());
        }
    }
}

fn set<T: Clone>(field: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        field.clone_from(given);
    }
}

impl Container {
    pub(super) fn apply(&self, spec: &mut ContainerSpec) -> anyhow::Result<()> {
        for variable in environment(&self.env, &self.env_file)? {
            put(&mut spec.env, variable, |a, b| same_variable(a, b));
        }
        spec.labels.extend(pairs::<Vec<_>>(&self.container_label));
        for mount in &self.mount {
            put(&mut spec.mounts, mount.clone(), |a, b| a.target == b.target);
        }
        for reference in self.secret.iter().chain(&self.config) {
            put(&mut spec.payloads, reference.clone(), payload::same_place);
        }
        set(&mut spec.user, &self.user);
        for group in &self.group {
            put(&mut spec.group_add, group.clone(), |a, b| a == b);
        }
        set(&mut spec.working_dir, &self.workdir);
        set(&mut spec.hostname, &self.hostname);
        for line in &self.hosts {
            put(&mut spec.extra_hosts, line.clone(), |a, b| a == b);
        }
        if let Some(entrypoint) = &self.entrypoint {
            spec.command.clone_from(&entrypoint.0);
            spec.set_command = true;
        }
        if let Some(period) = self.stop_grace_period {
            spec.stop_grace_period = Some(proto_duration(period));
        }
        set(&mut spec.stop_signal, &self.stop_signal);
        self.health.apply(&mut spec.healthcheck);
        set(&mut spec.init, &self.init);
        set(&mut spec.read_only, &self.read_only);
        set(&mut spec.tty, &self.tty);
        capabilities(&self.cap_add, &mut spec.cap_add, &mut spec.cap_drop);
        capabilities(&self.cap_drop, &mut spec.cap_drop, &mut spec.cap_add);
        spec.sysctls.extend(pairs::<Vec<_>>(&self.sysctl));
        for limit in &self.ulimit {
            put(&mut spec.ulimits, limit.clone(), |a, b| a.name == b.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_hosts_have_addresses() {
        assert_eq!(host("db:10.0.0.1").unwrap(), "db=10.0.0.1");
        assert_eq!(host("db:[::1]").unwrap(), "db=::1");
        assert_eq!(host("up:host-gateway").unwrap(), "up=host-gateway");
        for wrong in ["db", ":10.0.0.1", "db:here"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
        assert!(host("unix:///run/shoal/shoal.sock").unwrap_err().contains("--socket"));
    }

    #[test]
    fn a_mount_is_of_the_nodes() {
        let data = mounted("type=volume,source=data,target=/data,volume-movable").unwrap();
        assert!(data.movable && data.source == "data");
        assert!(!mounted("source=data,target=/data").unwrap().movable);
        assert!(mounted("type=bind,source=./data,target=/data").is_err());
    }

    #[test]
    fn a_capability_is_in_one_list() {
        let mut added = vec!["CAP_NET_ADMIN".to_owned()];
        let mut dropped = vec!["SYS_TIME".to_owned()];
        let given = ["net_admin".to_owned(), "cap_sys_time".to_owned()];
        capabilities(&given, &mut added, &mut dropped);
        assert_eq!((added.len(), dropped.len()), (2, 0));
    }
}
