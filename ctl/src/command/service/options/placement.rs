//! Where tasks go.

use clap::{Args, ValueEnum};
use shoal_proto::v1::{Affinity, Placement, PlacementStrategy, Platform, TaskSpec};

use super::{edit, put};

/// Rules of placement.
#[derive(Debug, Args)]
pub(super) struct Placing {
    /// Rule on nodes: node.labels.zone==eu
    #[arg(long, alias = "constraint-add")]
    constraint: Vec<String>,
    /// What tasks are spread evenly over: spread=node.labels.zone
    #[arg(long, alias = "placement-pref-add", value_name = "PREFERENCE", value_parser = spread)]
    placement_pref: Vec<String>,
    /// Tasks of the service on one node at the most; 0: no bound
    #[arg(long, value_name = "NUMBER")]
    replicas_max_per_node: Option<u64>,
    /// Tasks on as many nodes as possible, or on as few [default: spread]
    #[arg(long, value_enum)]
    placement_strategy: Option<Strategy>,
    /// Run near a service's tasks: SERVICE[@TOPOLOGY][?]; the topology is what is shared, as
    /// node.labels.zone [default: the node], with ? only where it can be had
    #[arg(long, value_name = "SERVICE", value_parser = near)]
    affinity: Vec<Affinity>,
    /// Run away from a service's tasks: SERVICE[@TOPOLOGY][?]
    #[arg(long, value_name = "SERVICE", value_parser = away)]
    anti_affinity: Vec<Affinity>,
    /// Tasks that find no room may end others of a lower priority [default: 0]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    priority: Option<i32>,
    /// What the image runs on: OS/ARCHITECTURE
    #[arg(long, value_parser = platform)]
    platform: Vec<Platform>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Strategy {
    Spread,
    Pack,
}

/// # Errors
/// No spread.
pub(in crate::command::service) fn spread(text: &str) -> Result<String, String> {
    match text.strip_prefix("spread=") {
        Some(level) if !level.is_empty() => Ok(level.to_owned()),
        _ => Err(format!("{text:?} is not spread=WHAT such as spread=node.labels.zone")),
    }
}

fn near(text: &str) -> Result<Affinity, String> {
    affinity(text, false)
}

fn away(text: &str) -> Result<Affinity, String> {
    affinity(text, true)
}

fn affinity(text: &str, anti: bool) -> Result<Affinity, String> {
    let (rest, preferred) = match text.strip_suffix('?') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (service, topology) = match rest.split_once('@') {
        Some((service, topology)) if !topology.is_empty() => (service, topology),
        Some(_) => return Err(format!("{text:?} names no topology after the @")),
        None => (rest, ""),
    };
    if service.is_empty() {
        return Err(format!("{text:?} names no service; want SERVICE[@TOPOLOGY][?]"));
    }
    Ok(Affinity { service: service.to_owned(), topology: topology.to_owned(), anti, preferred })
}

/// Nodes don't tell variants apart.
///
/// # Errors
/// Not `OS/ARCHITECTURE[/VARIANT]`.
pub(in crate::command::service) fn platform(text: &str) -> Result<Platform, String> {
    let lower = text.to_ascii_lowercase();
    let (os, architecture) = match lower.split('/').collect::<Vec<_>>()[..] {
        [os, architecture] => (os, architecture),
        [os, architecture, variant] if !variant.is_empty() => (os, architecture),
        _ => ("", ""),
    };
    if os.is_empty() || architecture.is_empty() {
        return Err(format!("{text:?} is no platform; want one such as linux/arm64"));
    }
    // Names of the kernel's, as `uname -m` prints them.
    let architecture = match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" => "386",
        other => other,
    };
    Ok(Platform { os: os.to_owned(), architecture: architecture.to_owned() })
}

impl Placing {
    pub(super) fn apply(&self, task: &mut TaskSpec) {
        task.priority = self.priority.unwrap_or(task.priority);
        edit(&mut task.placement, |placement: &mut Placement| {
            for constraint in &self.constraint {
                put(&mut placement.constraints, constraint.clone(), |a, b| a == b);
            }
            for level in &self.placement_pref {
                put(&mut placement.spread, level.clone(), |a, b| a == b);
            }
            if let Some(most) = self.replicas_max_per_node {
                placement.max_replicas_per_node = most;
            }
            match self.placement_strategy {
                Some(Strategy::Spread) => placement.set_strategy(PlacementStrategy::Spread),
                Some(Strategy::Pack) => placement.set_strategy(PlacementStrategy::Pack),
                None => {}
            }
            for affinity in self.affinity.iter().chain(&self.anti_affinity) {
                put(&mut placement.affinities, affinity.clone(), |a, b| {
                    (&a.service, &a.topology, a.anti) == (&b.service, &b.topology, b.anti)
                });
            }
            for platform in &self.platform {
                put(&mut placement.platforms, platform.clone(), |a, b| a == b);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinities_are_to_services() {
        let plain = near("shop_db").unwrap();
        assert_eq!((plain.service.as_str(), plain.topology.as_str()), ("shop_db", ""));
        assert!(!plain.anti && !plain.preferred);
        let zone = away("shop_db@node.labels.zone?").unwrap();
        assert_eq!(zone.topology, "node.labels.zone");
        assert!(zone.anti && zone.preferred);
        for wrong in ["", "?", "@node.id", "db@"] {
            assert!(near(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_preference_is_a_spread() {
        assert_eq!(spread("spread=node.labels.zone").unwrap(), "node.labels.zone");
        assert!(spread("node.labels.zone").is_err());
        assert_eq!(platform("linux/x86_64").unwrap().architecture, "amd64");
        assert!(platform("linux").is_err());
    }
}
