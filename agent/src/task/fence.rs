//! Containers of tasks that are fenced: each runs on a lease that follows the node's, and is killed
//! when no manager has been reached for too long, by its shim when the agent is not there to do it.

use std::time::Duration;

use shoal_runtime::{RuntimeError, uptime};

use super::container::blocking;
use crate::node::Node;

/// How often a container's lease follows the node's.
const FOLLOW: Duration = Duration::from_millis(500);
/// How often it is looked whether there is a lease.
const LOOK: Duration = Duration::from_millis(50);

/// Gives a container that was created its first lease; waits until the node has one.
pub(super) async fn begin(node: &Node, id: &str) -> Result<(), RuntimeError> {
    loop {
        match node.lease.until() {
            Some(until) if until > uptime() => return set(node, id, until).await,
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Keeps a container's lease up with the node's; never ends.
pub(super) async fn follow(node: &Node, id: &str) {
    let mut last = None;
    loop {
        let until = node.lease.until();
        if let Some(until) = until
            && Some(until) != last
        {
            match set(node, id, until).await {
                Ok(()) => last = Some(until),
                // It has ended, or will when its lease runs out.
                Err(error) => tracing::debug!(task.id = id, %error, "a lease"),
            }
        }
        tokio::time::sleep(FOLLOW).await;
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
