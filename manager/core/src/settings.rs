//! What operators decide of the cluster as a whole, with the defaults filled in and the bounds
//! that keep a cluster alive.

use std::time::Duration;

use shoal_proto::time::{proto_duration, std_duration};
use shoal_proto::v1::ClusterSpec;

use crate::store::Store;

/// Without a word of a node for this long, it is down.
pub const NODE_DOWN_AFTER: Duration = Duration::from_secs(3);
/// How long nodes' certificates are good for.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// How long a node that no manager reaches goes on with tasks that are fenced.
pub const FENCING_LEASE: Duration = Duration::from_secs(10);

/// The least time between two tasks that are moved to spread them evenly.
pub const REBALANCE_INTERVAL: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_secs(86_400);

/// Two heartbeats.
const LEAST_DOWN_AFTER: Duration = Duration::from_secs(2);
const LEAST_VALIDITY: Duration = Duration::from_secs(3600);
const LEAST_LEASE: Duration = Duration::from_secs(3);
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// The settings in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Without a word of a node for this long, it is down.
    pub node_down_after: Duration,
    /// How long nodes' certificates are good for.
    pub certificate_validity: Duration,
    /// How long a node that no manager reaches goes on with tasks that are fenced.
    pub fencing_lease: Duration,
    /// A manager that was stopped needs the unlock key.
    pub autolock: bool,
    /// Tasks are moved to nodes that come or return.
    pub rebalance: bool,
    /// The least time between two that are moved.
    pub rebalance_interval: Duration,
}

/// A setting that would not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} can't be {value:?}; it is from {least:?} to {most:?}")]
pub struct SettingError {
    /// Which.
    pub name: &'static str,
    /// As asked for.
    pub value: Duration,
    /// The lower bound.
    pub least: Duration,
    /// The upper bound.
    pub most: Duration,
}

impl Settings {
    /// Those of the cluster.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        let spec = store.cluster().and_then(|cluster| cluster.state.spec);
        let spec = spec.unwrap_or_default();
        let or = |set: &Option<shoal_proto::ProtoDuration>, default| {
            set.as_ref().map_or(default, std_duration)
        };
        Self {
            node_down_after: or(&spec.node_down_after, NODE_DOWN_AFTER),
            certificate_validity: or(&spec.certificate_validity, CERTIFICATE_VALIDITY),
            fencing_lease: or(&spec.fencing_lease, FENCING_LEASE),
            autolock: spec.autolock,
            rebalance: spec.rebalance,
            rebalance_interval: or(&spec.rebalance_interval, REBALANCE_INTERVAL),
        }
    }

    /// As people are shown them: nothing is left to a default.
    #[must_use]
    pub fn spec(&self) -> ClusterSpec {
        ClusterSpec {
            node_down_after: Some(proto_duration(self.node_down_after)),
            certificate_validity: Some(proto_duration(self.certificate_validity)),
            fencing_lease: Some(proto_duration(self.fencing_lease)),
            autolock: self.autolock,
            rebalance: self.rebalance,
            rebalance_interval: Some(proto_duration(self.rebalance_interval)),
        }
    }

    /// Whether a cluster can live with them.
    ///
    /// # Errors
    /// The first that is too short or too long.
    pub fn check(&self) -> Result<(), SettingError> {
        let bounds = [
            ("node-down-after", self.node_down_after, LEAST_DOWN_AFTER, DAY),
            ("cert-expiry", self.certificate_validity, LEAST_VALIDITY, DAY * 3660),
            ("fencing-lease", self.fencing_lease, LEAST_LEASE, DAY),
            ("rebalance-interval", self.rebalance_interval, LEAST_INTERVAL, DAY),
        ];
        match bounds.into_iter().find(|(_, value, least, most)| value < least || value > most) {
            Some((name, value, least, most)) => Err(SettingError { name, value, least, most }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_cluster_can_live_with_is_refused() {
        let fine = Settings::of(&Store::default());
        assert_eq!(fine.check(), Ok(()));
        let short = Settings { node_down_after: Duration::from_secs(1), ..fine };
        let words = "node-down-after can't be 1s; it is from 2s to 86400s";
        assert_eq!(short.check().unwrap_err().to_string(), words);
        let long = Settings { fencing_lease: Duration::MAX, ..fine };
        assert_eq!(long.check().unwrap_err().name, "fencing-lease");
    }
}
