//! Containers of tasks that are fenced: each runs on a lease that follows the node's, and is killed
//! when no manager has been reached for too long, by its shim when the agent is not there to do it.

use std::time::Duration;

use shoal_runtime::{RuntimeError, uptime};

use super::container::blocking;
use crate::node::Node;

/// Gives a container that was created its first lease; waits until the node has one.
pub(super) async fn begin(node: &Node, id: &str) -> Result<(), RuntimeError> {
    let mut lease = node.lease.watch();
    let good = lease.wait_for(|until| until.is_some_and(|until| until > uptime())).await;
    // The node, and with it the sender, outlives this.
    let until = good.ok().and_then(|until| *until).unwrap_or_default();
    set(node, id, until).await
}

/// Keeps a container's lease up with the node's; never ends.
pub(super) async fn follow(node: &Node, id: &str) {
    let mut lease = node.lease.watch();
    loop {
        let until = *lease.borrow_and_update();
        if let Some(until) = until
            && let Err(error) = set(node, id, until).await
        {
            // It has ended, or will when its lease runs out.
            tracing::debug!(task.id = id, %error, "a lease");
        }
        // The node, and with it the sender, outlives this.
        let _ = lease.changed().await;
    }
}

/// Whether a container that was killed ended because no manager was reached.
pub(super) fn has_run_out(node: &Node) -> bool {
    node.lease.until().is_none_or(|until| until <= uptime())
}

async fn set(node: &Node, id: &str, until: Duration) -> Result<(), RuntimeError> {
    let (runtime, id) = (node.runtime.clone(), id.to_owned());
    blocking(move || runtime.set_lease(&id, until)).await
}
