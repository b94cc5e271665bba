//! What the managers know of this node's single containers, kept true: names, whether they run, and
//! that they are gone.

use std::time::Duration;

use shoal_proto::v1::{NetworkAttachment, NetworkAttachmentSpec, PlaceContainerRequest};

use super::place::request;
use super::{Singles, lock};

/// After a word to the managers that did not reach them.
const RETRY: Duration = Duration::from_secs(1);

impl Singles {
    /// Keeps what the managers know of this node's containers true. Never ends.
    pub(crate) async fn keep_told(self) {
        let mut told = self.node().told.subscribe();
        loop {
            told.mark_unchanged();
            let changed = self.shared.placing.notified();
            let all_told = self.tell().await;
            tokio::select! {
                _ = told.changed() => {}
                () = changed => {}
                () = tokio::time::sleep(RETRY), if !all_told => {}
            }
        }
    }

    /// Whether they have heard all.
    async fn tell(&self) -> bool {
        let known = self.node().told.borrow().containers.clone();
        let mut all_told = true;
        for single in self.all() {
            let record = single.record();
            // One that they don't know is told of when it starts.
            let Some(told) = known.get(&single.id) else { continue };
            let mut wanted = request(&record, record.attached);
            if told.running == wanted.running && told.names == wanted.names {
                continue;
            }
            // The places are as they are: a network may have gone with its stack.
            wanted.networks = told.networks.iter().map(same_place).collect();
            // Not while somebody else is about to.
            let Ok(_busy) = single.busy.try_lock() else {
                all_told = false;
                continue;
            };
            all_told &= self.node().uplink.place(&wanted).await.is_ok();
        }
        let is_here = |id: &String| lock(&self.shared.list).contains_key(id);
        for id in known.into_keys() {
            if is_here(&id) || lock(&self.shared.being_made).contains(&id) {
                continue;
            }
            let gone =
                PlaceContainerRequest { container_id: id, ..PlaceContainerRequest::default() };
            all_told &= self.node().uplink.place(&gone).await.is_ok();
        }
        all_told
    }
}

fn same_place(held: &NetworkAttachment) -> NetworkAttachmentSpec {
    NetworkAttachmentSpec {
        network_id: held.network_id.clone(),
        aliases: held.aliases.clone(),
        address: String::new(),
    }
}
