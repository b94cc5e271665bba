//! Removes a container with its files and log.

use std::sync::Arc;
use std::time::Duration;

use super::{Single, SingleError, Singles, lock};

impl Singles {
    /// `force`: also one that runs, which is killed. `volumes`: its anonymous volumes too.
    pub(crate) async fn remove(
        &self,
        single: &Arc<Single>,
        force: bool,
        volumes: bool,
    ) -> Result<(), SingleError> {
        let _busy = single.busy.lock().await;
        if !lock(&self.shared.list).contains_key(&single.id) {
            return Ok(());
        }
        if single.is_up() {
            if !force {
                return Err(SingleError::Conflict(format!(
                    "container {} is running; stop it first, or remove it with --force",
                    single.name()
                )));
            }
            self.stop_now(single, Some(Duration::ZERO), None).await?;
        }
        let node = self.node();
        let failed = |what: &str, error: String| SingleError::Failed(format!("{what}: {error}"));
        node.images
            .remove_snapshot(&single.id)
            .await
            .map_err(|error| failed("its files", error.to_string()))?;
        lock(&self.shared.list).remove(&single.id);
        let record = self.shared.store.remove(&single.id);
        self.shared.placing.notify_one();
        crate::task::forget_files(node, &single.id, volumes).await;
        // Those who wait for its removal.
        single.changed.send_modify(|count| *count += 1);
        record.map_err(|error| failed("its record", error.to_string()))
    }

    /// Waits until the end of its run is recorded and, where it is to be, it is removed: whoever
    /// hears of the end finds things as they are to be.
    pub(crate) async fn until_settled(&self, single: &Single) {
        let removed = single.record().config.is_some_and(|config| config.auto_remove);
        single
            .until(|state| self.is_gone(single) || (!removed && state.finished_at.is_some()))
            .await;
    }

    /// Whether it has been removed.
    pub(crate) fn is_gone(&self, single: &Single) -> bool {
        !lock(&self.shared.list).contains_key(&single.id)
    }
}
