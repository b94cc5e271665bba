//! What is taken away when a task ends, is forgotten, or was left behind by a crash. Each step
//! goes on when the one before has failed; what failed is logged.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::Path;

use crate::node::Node;

fn note<E: Display>(task: &str, what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        tracing::warn!(task.id = task, %error, "can't take away the {what}");
    }
}

/// The container with all it holds of the host's: interfaces, ports, mounts, its writable layer.
/// The log stays.
pub(super) async fn release(node: &Node, task: &str) {
    release_run(node, task).await;
    note(task, "writable layer", node.images.remove_snapshot(task).await);
}

/// The same without its writable layer.
pub(crate) async fn release_run(node: &Node, task: &str) {
    let (runtime, id) = (node.runtime.clone(), task.to_owned());
    match tokio::task::spawn_blocking(move || runtime.delete(&id)).await {
        Ok(result) => note(task, "container", result),
        Err(error) => note(task, "container", Err(error)),
    }
    note(task, "interfaces", node.network.detach(task).await);
    node.network.release_ports(task).await;
    note(task, "files", remove_dir(&node.files_dir(task)));
    note(task, "secrets", remove_dir(&node.payloads.task_dir(task)));
}

/// Everything else of a task that the managers have forgotten.
pub(super) async fn forget(node: &Node, task: &str) {
    forget_files(node, task, true).await;
    note(task, "status", node.statuses.forget(task));
    node.reports.forget(task);
}

/// The log and, where asked, the volumes that have no name.
pub(crate) async fn forget_files(node: &Node, task: &str, volumes: bool) {
    note(task, "log", remove_dir(&node.log_dir(task)));
    if volumes {
        note(task, "anonymous volumes", node.volumes.remove_anonymous(task));
    }
}

/// What belongs to no task that the node has: left behind by a crash.
pub(crate) async fn collect_garbage(node: &Node, known: &BTreeSet<String>) {
    let mut found: BTreeSet<String> = BTreeSet::new();
    match node.runtime.list() {
        Ok(containers) => found.extend(containers),
        Err(error) => tracing::warn!(%error, "can't list the containers"),
    }
    match node.network.containers() {
        Ok(containers) => found.extend(containers),
        Err(error) => tracing::warn!(%error, "can't list the interfaces"),
    }
    match node.images.snapshots().await {
        Ok(snapshots) => found.extend(snapshots),
        Err(error) => tracing::warn!(%error, "can't list the writable layers"),
    }
    for id in found.iter().filter(|id| !known.contains(*id)) {
        tracing::info!(container.id = id, "left behind by a crash");
        release(node, id).await;
    }
    let mut forgotten: BTreeSet<String> =
        node.statuses.tasks().unwrap_or_default().into_iter().collect();
    let logs = fs::read_dir(node.data_dir.join("logs")).into_iter().flatten();
    forgotten.extend(logs.filter_map(|entry| entry.ok()?.file_name().into_string().ok()));
    for id in forgotten.iter().filter(|id| !known.contains(*id)) {
        forget(node, id).await;
    }
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
