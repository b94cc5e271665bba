//! What a node works with, shared by all its tasks.

mod fabric;
mod lease;
mod payload;
mod reports;
mod status;
mod uplink;
mod volume;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use shoal_image::ImageStore;
use shoal_network::Engine;
use shoal_proto::NodeId;
use shoal_proto::v1::GenericResource;
use shoal_runtime::Runtime;
use tokio::sync::watch;

use crate::container::Users;
use crate::task::Told;

pub(crate) use fabric::{Fabric, Local};
pub(crate) use lease::Lease;
pub(crate) use payload::Payloads;
pub(crate) use reports::Reports;
pub(crate) use status::StatusStore;
pub(crate) use uplink::Uplink;
pub(crate) use volume::Volumes;

/// A handle; clones share it.
#[derive(Clone)]
pub(crate) struct Node {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// Where other nodes find this one; none when that is no IPv4 address, or this host alone.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) runtime: Runtime,
    pub(crate) images: ImageStore,
    pub(crate) network: Engine,
    pub(crate) fabric: Fabric,
    pub(crate) volumes: Volumes,
    pub(crate) payloads: Payloads,
    /// As declared.
    pub(crate) generic_resources: Vec<GenericResource>,
    /// As declared.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) users: Users,
    pub(crate) reports: Reports,
    pub(crate) lease: Lease,
    pub(crate) statuses: StatusStore,
    pub(crate) uplink: Uplink,
    /// Once it is in force.
    pub(crate) told: watch::Sender<Told>,
}

impl Node {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// The folder of a task's log.
    pub(crate) fn log_dir(&self, task: &str) -> PathBuf {
        self.data_dir.join("logs").join(task)
    }

    /// A task's log.
    pub(crate) fn log_path(&self, task: &str) -> PathBuf {
        self.log_dir(task).join("log")
    }

    /// Files made for a task: hosts, resolv.conf.
    pub(crate) fn files_dir(&self, task: &str) -> PathBuf {
        self.run_dir.join("files").join(task)
    }
}

impl std::ops::Deref for Node {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}
