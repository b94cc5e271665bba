//! What a service is made of: the options that `create` and `update` share. Only what is given
//! changes a spec; in lists, something of the same name, target or the like is replaced.

mod container;
mod network;
mod payload;
pub(super) mod placement;
pub(super) mod port;
mod resources;
mod restart;
mod rollout;
mod schedule;
mod words;

use std::collections::BTreeMap;

use anyhow::bail;
use clap::{Args, ValueEnum};
use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{EndpointMode, NetworkAttachmentSpec, ServiceSpec};

pub(super) use container::{host, same_variable};
pub(super) use words::Words;

use super::mode;
use crate::command::container::options::pairs;
use crate::command::container::port::Published;

/// The service.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Number of tasks; of a replicated job: how many shall end well
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<u64>,
    /// Tasks of a replicated job that run at the same time; 0: all
    #[arg(long, value_name = "NUMBER")]
    max_concurrent: Option<u64>,
    /// Label of the service: NAME=VALUE
    #[arg(short, long, alias = "label-add")]
    label: Vec<String>,
    /// Network, by name or id, or name=NETWORK,alias=NAME,…
    #[arg(long, alias = "network-add", value_parser = network::parse)]
    network: Vec<NetworkAttachmentSpec>,
    /// Publish a port: [[ADDRESS:]PORT:]PORT[/udp], or
    /// target=PORT,published=PORT,mode=ingress|host,protocol=tcp|udp|sctp
    #[arg(short, long, alias = "publish-add", value_name = "PORT", value_parser = port::parse)]
    publish: Vec<Published>,
    /// How the service's name resolves: to an address of its own, or to its tasks' [default: vip]
    #[arg(long, value_enum, value_name = "MODE")]
    endpoint_mode: Option<Endpoint>,
    /// A client's connections all go to one task while that is there
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    sticky: Option<bool>,
    /// Replace a lost task only when it is known not to run any more
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    fenced: Option<bool>,
    /// The agent's socket, which other commands take as --host
    // With the id of the global option, it is that, and --host is free for lines of /etc/hosts.
    #[arg(id = "host", long = "socket", value_name = "URL")]
    socket: Option<String>,
    #[command(flatten, next_help_heading = "Container")]
    container: container::Container,
    #[command(flatten, next_help_heading = "Placement")]
    placement: placement::Placing,
    #[command(flatten, next_help_heading = "Resources")]
    resources: resources::Amounts,
    #[command(flatten, next_help_heading = "Restart")]
    restart: restart::Restart,
    #[command(flatten, next_help_heading = "Updates")]
    update: rollout::Forwards,
    #[command(flatten, next_help_heading = "Rollbacks")]
    rollback: rollout::Backwards,
    #[command(flatten, next_help_heading = "Schedule of a job")]
    schedule: schedule::When,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Endpoint {
    Vip,
    Dnsrr,
}

/// Ids of networks by their names.
pub(super) type Networks = BTreeMap<String, String>;

impl Options {
    /// Whether the names of networks have to be known.
    pub(super) fn has_networks(&self) -> bool {
        !self.network.is_empty()
    }

    /// Whether the service is to be run again and again.
    pub(super) fn has_schedule(&self) -> bool {
        self.schedule.is_set()
    }

    /// Changes what was given. A network that `networks` doesn't know stays a name.
    ///
    /// # Errors
    /// Something that the service's mode has no use for, or a file that can't be read.
    pub(super) fn apply(&self, spec: &mut ServiceSpec, networks: &Networks) -> anyhow::Result<()> {
        self.count(spec)?;
        spec.labels.extend(pairs::<Vec<_>>(&self.label));
        let published: Vec<_> = self.publish.iter().flat_map(|published| &published.0).collect();
        spec.ports.retain(|old| !published.iter().any(|new| port::same_target(old, new)));
        spec.ports.extend(published.into_iter().cloned());
        match self.endpoint_mode {
            Some(Endpoint::Vip) => spec.set_endpoint_mode(EndpointMode::Vip),
            Some(Endpoint::Dnsrr) => spec.set_endpoint_mode(EndpointMode::Dnsrr),
            None => {}
        }
        spec.sticky = self.sticky.unwrap_or(spec.sticky);
        self.update.apply(&mut spec.update);
        self.rollback.apply(&mut spec.rollback);
        self.schedule.apply(&mut spec.schedule)?;
        let task = spec.task.get_or_insert_default();
        for attached in &self.network {
            let mut attached = attached.clone();
            if let Some(id) = networks.get(&attached.network_id) {
                attached.network_id.clone_from(id);
            }
            put(&mut task.networks, attached, |a, b| a.network_id == b.network_id);
        }
        if let Some(fenced) = self.fenced {
            task.fenced = fenced;
        }
        self.placement.apply(task);
        self.resources.apply(task);
        self.restart.apply(&mut task.restart);
        self.container.apply(task.container.get_or_insert_default())
    }

    fn count(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let word = mode::word(spec);
        let mut mode = spec.mode.as_mut().and_then(|mode| mode.mode.as_mut());
        if let Some(replicas) = self.replicas {
            match &mut mode {
                Some(Mode::Replicated(mode)) => mode.replicas = replicas,
                Some(Mode::ReplicatedJob(mode)) => mode.total_completions = replicas,
                _ => bail!("--replicas: a {word} service has one task on each node"),
            }
        }
        if let Some(concurrent) = self.max_concurrent {
            match &mut mode {
                Some(Mode::ReplicatedJob(mode)) => mode.max_concurrent = concurrent,
                _ => bail!("--max-concurrent: only a replicated job has it, not a {word} service"),
            }
        }
        Ok(())
    }
}

/// Takes the place of the one that is the same but for details, or comes last.
fn put<T>(list: &mut Vec<T>, new: T, same: impl Fn(&T, &T) -> bool) {
    match list.iter_mut().find(|old| same(old, &new)) {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

/// Writes a change alone: something that is not set stays so. An empty message beside none would
/// be another spec, and new tasks.
pub(super) fn edit<T: Clone + Default + PartialEq>(
    field: &mut Option<T>,
    change: impl FnOnce(&mut T),
) {
    let old = field.clone().unwrap_or_default();
    let mut new = old.clone();
    change(&mut new);
    if new != old {
        *field = Some(new);
    }
}

#[cfg(test)]
mod tests;
