//! Single containers: what people make with `run` and `create` on this node. Each has a record on
//! disk, which an agent that starts anew goes on from, and while it runs a keeper, which sees its
//! end and brings it back where its restart policy says so.

mod connect;
mod create;
mod keep;
mod name;
mod network;
mod place;
mod remove;
mod start;
mod stop;
mod store;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use shoal_proto::time::timestamp;
use shoal_proto::v1::{ContainerRecord, ContainerStateInfo, ContainerStatus};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use network::shown_ports;
pub(crate) use place::Attached;
use store::Store;

use crate::node::Node;

/// A refusal, in the terms of gRPC's codes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SingleError {
    #[error("no such container: {0}")]
    Missing(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Failed(String),
}

/// All single containers of the node. Clones share them.
#[derive(Clone)]
pub(crate) struct Singles {
    shared: Arc<Shared>,
}

struct Shared {
    node: Node,
    store: Store,
    list: Mutex<BTreeMap<String, Arc<Single>>>,
    /// One at a time makes, renames or removes: names are unique.
    naming: tokio::sync::Mutex<()>,
    /// Ids of those that are being made: the managers may know them already.
    being_made: Mutex<BTreeSet<String>>,
    /// What the managers are to know has changed.
    placing: tokio::sync::Notify,
}

/// One of them.
pub(crate) struct Single {
    pub(crate) id: String,
    record: Mutex<ContainerRecord>,
    /// Tells those who wait of each change of its state.
    changed: watch::Sender<u64>,
    /// Held while it is being started, stopped or removed.
    busy: tokio::sync::Mutex<()>,
    /// Its end is wanted: no restart.
    stopping: AtomicBool,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Single {
    fn new(record: ContainerRecord) -> Arc<Self> {
        Arc::new(Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            changed: watch::Sender::new(0),
            busy: tokio::sync::Mutex::default(),
            stopping: AtomicBool::new(false),
            keeper: Mutex::default(),
        })
    }

    pub(crate) fn record(&self) -> ContainerRecord {
        lock(&self.record).clone()
    }

    pub(crate) fn state(&self) -> ContainerStateInfo {
        lock(&self.record).state.clone().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> String {
        lock(&self.record).config.as_ref().map(|config| config.name.clone()).unwrap_or_default()
    }

    /// It runs, or is between two runs.
    pub(crate) fn is_up(&self) -> bool {
        use ContainerStatus::{Paused, Restarting, Running};
        matches!(self.state().status(), Running | Paused | Restarting)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::SeqCst);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until its state is as wanted.
    pub(crate) async fn until(&self, done: impl Fn(&ContainerStateInfo) -> bool) {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if done(&self.state()) {
                return;
            }
            // The sender is this container's own: it is there as long as `self` is.
            let _ = changes.changed().await;
        }
    }
}

impl Singles {
    /// Reads what an agent before this one has left.
    pub(crate) fn open(node: Node) -> std::io::Result<Self> {
        let store = Store::open(node.data_dir.join("containers"))?;
        let records = store.load()?;
        let list = records.into_iter().map(|record| (record.id.clone(), Single::new(record)));
        let shared = Shared {
            node,
            store,
            list: Mutex::new(list.collect()),
            naming: tokio::sync::Mutex::default(),
            being_made: Mutex::default(),
            placing: tokio::sync::Notify::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn node(&self) -> &Node {
        &self.shared.node
    }

    pub(crate) fn all(&self) -> Vec<Arc<Single>> {
        lock(&self.shared.list).values().cloned().collect()
    }

    /// Whether any of them may still run.
    pub(crate) fn is_idle(&self) -> bool {
        self.all().iter().all(|single| !single.is_up())
    }

    /// The one that a name, an id or the unique beginning of an id means.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Single>, SingleError> {
        let text = text.trim_start_matches('/');
        let all = self.all();
        if let Some(found) = all.iter().find(|one| one.id == text || one.name() == text) {
            return Ok(found.clone());
        }
        let mut matching = all.iter().filter(|one| !text.is_empty() && one.id.starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(found.clone()),
            (Some(_), Some(_)) => Err(SingleError::Invalid(format!(
                "{text:?} is the beginning of several containers' ids; give more of it"
            ))),
            (None, _) => Err(SingleError::Missing(text.to_owned())),
        }
    }

    /// Changes its record, keeps that on disk, and tells those who wait.
    fn change(&self, single: &Single, change: impl FnOnce(&mut ContainerRecord)) {
        let record = {
            let mut record = lock(&single.record);
            change(&mut record);
            record.clone()
        };
        let is_there = lock(&self.shared.list).contains_key(&single.id);
        if is_there && let Err(error) = self.shared.store.save(&record) {
            tracing::warn!(container.id = single.id, %error, "can't keep the container's state");
        }
        single.changed.send_modify(|count| *count += 1);
    }

    fn change_state(&self, single: &Single, change: impl FnOnce(&mut ContainerStateInfo)) {
        let before = single.state().status();
        self.change(single, |record| change(record.state.get_or_insert_default()));
        let after = single.state();
        if after.status() != before {
            tracing::info!(
                container.id = single.id,
                container.name = single.name(),
                state.from = before.as_str_name(),
                state.to = after.status().as_str_name(),
                error = after.error,
                "container"
            );
        }
    }
}

fn now() -> Option<shoal_proto::Timestamp> {
    Some(timestamp(SystemTime::now()))
}
