//! Somebody who uses the cluster: joins hosts, deploys, scales, removes, drains; and who remembers
//! what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shoal_core::context::Context;
use shoal_core::deploy;
use shoal_core::node::{self, NodeUpdate};
use shoal_core::settings::Settings;
use shoal_core::store::{Change, Changes, Service, Store};
use shoal_manager::raft::ProposeError;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{
    ContainerSpec, GlobalJobMode, GlobalMode, NetworkAttachmentSpec, NetworkSpec, NodeAvailability,
    NodeRole, PortSpec, PublishMode, ReplicatedJobMode, ReplicatedMode, Resources, Schedule,
    ServiceMode, ServiceSpec, StackNetwork, StackService, StackSpec, TaskSpec, UpdateConfig,
    UpdateFailureAction, UpdateOrder, service_mode,
};

use super::manager::{Manager, joined};
use super::{HostId, Rng, World, node_id};

#[derive(Default)]
pub(super) struct Client {
    number: u64,
    pending: BTreeMap<u64, Deed>,
    stacks: u64,
    /// Hosts whose joining is acknowledged.
    joined: BTreeSet<HostId>,
    /// For each stack the revision that was last acknowledged; none when it may have been removed.
    acknowledged: BTreeMap<String, u64>,
}

/// What was asked for.
#[derive(Debug, Clone)]
enum Deed {
    Join { host: HostId },
    Deploy { stack: String },
    Other,
}

impl Client {
    pub(super) fn act(&mut self, world: &mut World, managers: &mut BTreeMap<HostId, Manager>) {
        let leaders: Vec<HostId> =
            managers.values().filter(|one| one.is_leader()).map(|one| one.host).collect();
        if leaders.is_empty() {
            return;
        }
        // One that was cut off may think that it leads, and be asked.
        let host = leaders[world.rng.below(leaders.len() as u64) as usize];
        let hosts_with_managers: BTreeSet<HostId> = managers.keys().copied().collect();
        let manager = managers.get_mut(&host).unwrap();
        let Some(store) = manager.published().map(|published| published.store()) else { return };
        if store.cluster().is_none() {
            return;
        }
        let now = world.clock(host);
        let mut rng = world.rng.clone();
        let mut choice = rng.clone();
        choice.next();
        let mut random = || rng.bits();
        let mut context = Context { now, random: &mut random };
        let decided = self.decide(world, &store, &mut context, &mut choice, &hosts_with_managers);
        world.rng = choice;
        if let Some((deed, changes)) = decided
            && !changes.is_empty()
        {
            self.number += 1;
            self.pending.insert(self.number, deed);
            manager.propose(self.number, changes);
        }
    }

    fn decide(
        &mut self,
        world: &World,
        store: &Store,
        context: &mut Context<'_>,
        choice: &mut Rng,
        managers: &BTreeSet<HostId>,
    ) -> Option<(Deed, Vec<Change>)> {
        let mut changes = Changes::default();
        let missing = world.skew.keys().find(|host| store.node(node_id(**host)).is_none());
        if let Some(host) = missing.copied() {
            let raft_id = managers.contains(&host).then(|| node::raft_id(context.bits()));
            changes.create(context, joined(host, raft_id));
            return Some((Deed::Join { host }, changes.into_vec()));
        }
        let names: Vec<String> = store.stacks().map(|stack| stack.spec.name.clone()).collect();
        let any = |choice: &mut Rng| names[choice.below(names.len() as u64) as usize].clone();
        match choice.below(28) {
            20 | 21 => {
                let hosts: Vec<HostId> = managers.iter().copied().collect();
                let host = hosts[choice.below(hosts.len() as u64) as usize];
                let node = store.node(node_id(host))?;
                let role = match node.spec.role() {
                    NodeRole::Manager => NodeRole::Worker,
                    NodeRole::Worker => NodeRole::Manager,
                };
                let update = NodeUpdate { role: Some(role), ..NodeUpdate::default() };
                node::update(store, node, &update, context, &mut changes).ok()?;
                Some((Deed::Other, changes.into_vec()))
            }
            22 | 23 => {
                let service = any_service(store, choice)?;
                let number = choice.below(4);
                deploy::roll_back_service(store, service, number, context, &mut changes).ok()?;
                Some((Deed::Other, changes.into_vec()))
            }
            24 | 25 => {
                let service = any_service(store, choice)?;
                let replicas = choice.below(5);
                deploy::scale_service(service, replicas, context, &mut changes).ok()?;
                Some((Deed::Other, changes.into_vec()))
            }
            26 => {
                let service = any_service(store, choice)?;
                let spec = (*service.spec).clone();
                deploy::update_service(store, service, 0, spec, context, &mut changes).ok()?;
                Some((Deed::Other, changes.into_vec()))
            }
            27 => {
                let mut new = (**store.cluster()?).clone();
                let mut settings = Settings::of(store);
                settings.rebalance = choice.chance(50);
                settings.rebalance_interval = Duration::from_secs(1);
                new.state.spec = Some(settings.spec());
                changes.update(context, new);
                Some((Deed::Other, changes.into_vec()))
            }
            0..=5 => {
                self.stacks += 1;
                self.deploy(store, format!("s{}", self.stacks), context, choice)
            }
            6..=13 if !names.is_empty() => self.deploy(store, any(choice), context, choice),
            14 | 15 if !names.is_empty() => {
                let name = any(choice);
                let stack = store.stack_by_name(&name)?;
                deploy::remove_stack(stack, context, &mut changes);
                self.acknowledged.remove(&name);
                Some((Deed::Other, changes.into_vec()))
            }
            _ => {
                let nodes: Vec<_> = store.nodes().collect();
                let node = nodes[choice.below(nodes.len() as u64) as usize];
                let availability = match choice.below(4) {
                    0 => NodeAvailability::Drain,
                    1 => NodeAvailability::Pause,
                    _ => NodeAvailability::Active,
                };
                let update =
                    NodeUpdate { availability: Some(availability), ..NodeUpdate::default() };
                node::update(store, node, &update, context, &mut changes).ok()?;
                Some((Deed::Other, changes.into_vec()))
            }
        }
    }

    fn deploy(
        &self,
        store: &Store,
        stack: String,
        context: &mut Context<'_>,
        choice: &mut Rng,
    ) -> Option<(Deed, Vec<Change>)> {
        let mut changes = Changes::default();
        let spec = spec(&stack, choice);
        deploy::deploy_stack(store, spec, context, &mut changes).ok()?;
        Some((Deed::Deploy { stack }, changes.into_vec()))
    }

    pub(super) fn answered(&mut self, number: u64, outcome: &Result<Store, ProposeError>) {
        let Some(deed) = self.pending.remove(&number) else { return };
        let Ok(store) = outcome else { return };
        match deed {
            Deed::Join { host } => drop(self.joined.insert(host)),
            Deed::Deploy { stack } => {
                if let Some(now) = store.stack_by_name(&stack) {
                    self.acknowledged.insert(stack, now.revision);
                }
            }
            Deed::Other => {}
        }
    }

    /// What was acknowledged is there.
    pub(super) fn check_acknowledged(&self, store: &Store) {
        for host in &self.joined {
            assert!(store.node(node_id(*host)).is_some(), "host {host} had joined and is gone");
        }
        for (name, revision) in &self.acknowledged {
            let now = store.stack_by_name(name).map(|stack| stack.revision);
            let removing = self.pending.values().any(|deed| matches!(deed, Deed::Other));
            assert!(
                now.is_some_and(|now| now >= *revision) || removing,
                "stack {name} was acknowledged in revision {revision} and is in {now:?}"
            );
        }
    }
}

fn any_service<'a>(store: &'a Store, choice: &mut Rng) -> Option<&'a Arc<Service>> {
    let services: Vec<_> = store.services().collect();
    services.get(choice.below(services.len() as u64) as usize).copied()
}

/// What a service is for good follows from its name: its mode, and whether a slot may have two tasks
/// at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Replicated,
    StartFirst,
    Global,
    Job,
    GlobalJob,
    Scheduled,
}

impl Kind {
    pub(super) fn of(name: &str) -> Self {
        let number: u32 = name.bytes().filter(u8::is_ascii_digit).map(u32::from).sum();
        match number % 10 {
            0..=2 => Self::Replicated,
            3..=4 => Self::StartFirst,
            5..=6 => Self::Global,
            7 => Self::Job,
            8 => Self::GlobalJob,
            _ => Self::Scheduled,
        }
    }

    fn mode(self, count: u64) -> service_mode::Mode {
        use service_mode::Mode;
        match self {
            Self::Replicated | Self::StartFirst => {
                Mode::Replicated(ReplicatedMode { replicas: count })
            }
            Self::Global => Mode::Global(GlobalMode {}),
            Self::GlobalJob => Mode::GlobalJob(GlobalJobMode {}),
            Self::Job | Self::Scheduled => Mode::ReplicatedJob(ReplicatedJobMode {
                max_concurrent: count / 2,
                total_completions: count,
            }),
        }
    }

    pub(super) fn is_job(self) -> bool {
        matches!(self, Self::Job | Self::GlobalJob | Self::Scheduled)
    }

    fn update(self, choice: &mut Rng) -> Option<UpdateConfig> {
        let order = match self {
            Self::StartFirst => UpdateOrder::StartFirst,
            Self::Replicated | Self::Global => UpdateOrder::StopFirst,
            Self::Job | Self::GlobalJob | Self::Scheduled => return None,
        };
        let action = match choice.below(3) {
            0 => UpdateFailureAction::Pause,
            1 => UpdateFailureAction::Continue,
            _ => UpdateFailureAction::Rollback,
        };
        Some(UpdateConfig {
            parallelism: Some(choice.below(3)),
            delay: Some(proto_duration(choice.millis(0, 1000))),
            failure_action: action.into(),
            monitor: Some(proto_duration(choice.millis(0, 2000))),
            max_failure_ratio: if choice.chance(30) { 0.5 } else { 0.0 },
            order: order.into(),
            progress_deadline: Some(proto_duration(Duration::from_secs(15))),
        })
    }
}

/// One or two services with all that can be overcommitted.
fn spec(stack: &str, choice: &mut Rng) -> StackSpec {
    let service = |number: u64, choice: &mut Rng| {
        let name = format!("web{number}");
        let full_name = format!("{stack}_{name}");
        let kind = Kind::of(&full_name);
        let replicas = choice.below(4);
        let what = if kind.is_job() { "job" } else { "app" };
        let image = format!("{what}:{}", choice.below(3));
        let container = ContainerSpec { image, ..ContainerSpec::default() };
        let reservations = Resources {
            nano_cpus: choice.below(3) as i64 * 500_000_000,
            memory_bytes: choice.below(3) as i64 * (512 << 20),
            pids: 0,
        };
        let ports = if choice.chance(20) {
            let mode = if choice.chance(50) { PublishMode::Host } else { PublishMode::Ingress };
            vec![PortSpec {
                target_port: 80,
                published_port: 8000 + choice.below(4) as u32,
                mode: mode.into(),
                ..PortSpec::default()
            }]
        } else {
            Vec::new()
        };
        let task = TaskSpec {
            container: Some(container),
            reservations: Some(reservations),
            networks: vec![NetworkAttachmentSpec {
                network_id: "net".to_owned(),
                ..NetworkAttachmentSpec::default()
            }],
            fenced: kind != Kind::StartFirst && choice.chance(40),
            priority: if choice.chance(20) { 1 } else { 0 },
            ..TaskSpec::default()
        };
        let schedule = (kind == Kind::Scheduled)
            .then(|| Schedule { cron: "* * * * *".to_owned(), ..Schedule::default() });
        let spec = ServiceSpec {
            name: full_name,
            task: Some(task),
            mode: Some(ServiceMode { mode: Some(kind.mode(replicas)) }),
            ports,
            update: kind.update(choice),
            schedule,
            ..ServiceSpec::default()
        };
        StackService { name, spec: Some(spec) }
    };
    let count = 1 + choice.below(2);
    let net = NetworkSpec { name: format!("{stack}_net"), ..NetworkSpec::default() };
    StackSpec {
        name: stack.to_owned(),
        services: (0..count).map(|number| service(number, choice)).collect(),
        networks: vec![StackNetwork { key: "net".to_owned(), spec: Some(net), external: false }],
        ..StackSpec::default()
    }
}
