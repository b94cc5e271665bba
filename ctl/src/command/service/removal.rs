//! What `ctl service update` takes away from a service.

use clap::Args;
use shoal_proto::v1::{PayloadKind, Platform, ServiceSpec};

use super::options::placement::{platform, spread};
use super::options::port::Target;
use super::options::{Networks, edit, host, same_variable};
use crate::output;

/// What is to go, by name.
#[derive(Debug, Args)]
pub(super) struct Removals {
    /// Variable
    #[arg(long, value_name = "NAME")]
    env_rm: Vec<String>,
    /// Label of the service
    #[arg(long, value_name = "NAME")]
    label_rm: Vec<String>,
    /// Label of the containers
    #[arg(long, value_name = "NAME")]
    container_label_rm: Vec<String>,
    /// Mount, by its place in the container
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Published port, by the container's: 80, 53/udp
    #[arg(long, value_name = "PORT", value_parser = Target::parse)]
    publish_rm: Vec<Target>,
    /// Rule on nodes
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_rm: Vec<String>,
    /// What tasks are spread over: spread=node.labels.zone
    #[arg(long, value_name = "PREFERENCE", value_parser = spread)]
    placement_pref_rm: Vec<String>,
    /// Affinity and anti-affinity to a service
    #[arg(long, value_name = "SERVICE")]
    affinity_rm: Vec<String>,
    /// Platform: OS/ARCHITECTURE
    #[arg(long, value_name = "PLATFORM", value_parser = platform)]
    platform_rm: Vec<Platform>,
    /// Generic resource
    #[arg(long, value_name = "KIND")]
    generic_resource_rm: Vec<String>,
    /// Secret
    #[arg(long, value_name = "NAME")]
    secret_rm: Vec<String>,
    /// Config
    #[arg(long, value_name = "NAME")]
    config_rm: Vec<String>,
    /// Network, by name or id
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    /// Name in /etc/hosts: NAME[:ADDRESS]
    #[arg(long, value_name = "NAME")]
    host_rm: Vec<String>,
    /// Further group
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
    /// Kernel parameter
    #[arg(long, value_name = "NAME")]
    sysctl_rm: Vec<String>,
    /// Limit of setrlimit(2)
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
}

/// What was asked to go and is not there is told of; it is no failure.
fn missing(option: &str, name: &str) {
    output::note(format!("warning: --{option} {name}: the service has none"));
}

fn take<T>(list: &mut Vec<T>, option: &str, name: &str, is: impl Fn(&T) -> bool) {
    let before = list.len();
    list.retain(|entry| !is(entry));
    if list.len() == before {
        missing(option, name);
    }
}

impl Removals {
    /// Whether the names of networks have to be known.
    pub(super) fn has_networks(&self) -> bool {
        !self.network_rm.is_empty()
    }

    pub(super) fn apply(&self, spec: &mut ServiceSpec, networks: &Networks) {
        for name in &self.label_rm {
            if spec.labels.remove(name).is_none() {
                missing("label-rm", name);
            }
        }
        for target in &self.publish_rm {
            take(&mut spec.ports, "publish-rm", &target.to_string(), |port| target.is_of(port));
        }
        let task = spec.task.get_or_insert_default();
        for kind in &self.generic_resource_rm {
            let reservations = &mut task.generic_reservations;
            take(reservations, "generic-resource-rm", kind, |reserved| reserved.kind == *kind);
        }
        for name in &self.network_rm {
            let id = networks.get(name).unwrap_or(name);
            take(&mut task.networks, "network-rm", name, |attached| attached.network_id == *id);
        }
        edit(&mut task.placement, |placement| {
            for rule in &self.constraint_rm {
                let bare = |rule: &str| rule.split_whitespace().collect::<String>();
                take(&mut placement.constraints, "constraint-rm", rule, |r| bare(r) == bare(rule));
            }
            for level in &self.placement_pref_rm {
                take(&mut placement.spread, "placement-pref-rm", level, |l| l == level);
            }
            for service in &self.affinity_rm {
                let affinities = &mut placement.affinities;
                take(affinities, "affinity-rm", service, |near| near.service == *service);
            }
            for platform in &self.platform_rm {
                let name = format!("{}/{}", platform.os, platform.architecture);
                take(&mut placement.platforms, "platform-rm", &name, |p| p == platform);
            }
        });
        let container = task.container.get_or_insert_default();
        for name in &self.env_rm {
            take(&mut container.env, "env-rm", name, |entry| same_variable(entry, name));
        }
        for name in &self.container_label_rm {
            if container.labels.remove(name).is_none() {
                missing("container-label-rm", name);
            }
        }
        for target in &self.mount_rm {
            take(&mut container.mounts, "mount-rm", target, |mount| mount.target == *target);
        }
        for (option, kind, names) in [
            ("secret-rm", PayloadKind::Secret, &self.secret_rm),
            ("config-rm", PayloadKind::Config, &self.config_rm),
        ] {
            for name in names {
                take(&mut container.payloads, option, name, |used| {
                    used.kind() == kind && used.name == *name
                });
            }
        }
        for line in &self.host_rm {
            // With an address it is that line alone.
            let whole = host(line).ok();
            take(&mut container.extra_hosts, "host-rm", line, |own| match &whole {
                Some(whole) => own == whole,
                None => same_variable(own, line),
            });
        }
        for group in &self.group_rm {
            take(&mut container.group_add, "group-rm", group, |own| own == group);
        }
        for name in &self.sysctl_rm {
            if container.sysctls.remove(name).is_none() {
                missing("sysctl-rm", name);
            }
        }
        for name in &self.ulimit_rm {
            take(&mut container.ulimits, "ulimit-rm", name, |limit| limit.name == *name);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shoal_proto::v1::{ContainerSpec, NetworkAttachmentSpec, PortSpec, TaskSpec};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        removals: Removals,
    }

    #[test]
    fn what_is_named_goes_and_the_rest_stays() {
        let network = |id: &str| NetworkAttachmentSpec {
            network_id: id.to_owned(),
            ..NetworkAttachmentSpec::default()
        };
        let container = ContainerSpec {
            env: vec!["A=1".to_owned(), "AB=2".to_owned()],
            extra_hosts: ["db=10.0.0.1", "db=10.0.0.2", "web=::1"].map(str::to_owned).into(),
            ..ContainerSpec::default()
        };
        let port = |target| PortSpec { target_port: target, ..PortSpec::default() };
        let mut spec = ServiceSpec {
            ports: vec![port(80), port(81)],
            task: Some(TaskSpec {
                container: Some(container),
                networks: vec![network("id1"), network("id2")],
                ..TaskSpec::default()
            }),
            ..ServiceSpec::default()
        };
        let words =
            "ctl --env-rm A --publish-rm 80 --network-rm front --host-rm db:10.0.0.1 --host-rm web";
        let line = Line::try_parse_from(words.split_whitespace()).unwrap();
        let networks = Networks::from([("front".to_owned(), "id1".to_owned())]);
        line.removals.apply(&mut spec, &networks);
        let task = spec.task.unwrap();
        assert_eq!(task.networks, [network("id2")]);
        assert_eq!(task.placement, None);
        let container = task.container.unwrap();
        assert_eq!(container.env, ["AB=2"]);
        assert_eq!(container.extra_hosts, ["db=10.0.0.2"]);
        assert_eq!(spec.ports, [port(81)]);
    }
}
