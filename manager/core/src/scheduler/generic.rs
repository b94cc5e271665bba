//! What the slots hold of a node's generic resources, and what a task gets of the rest.

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::ServiceId;
use shoal_proto::v1::GenericResource;

use crate::store::Slot;

type Holder = (ServiceId, Slot);

/// All that is held of one node, by kind.
#[derive(Default)]
pub(super) struct Held {
    kinds: BTreeMap<String, Kind>,
}

#[derive(Default)]
struct Kind {
    /// Of those without names.
    count: u64,
    /// The same, for each slot that has a part in it.
    by_slot: BTreeMap<Holder, u64>,
    /// Those with names.
    names: BTreeMap<String, Holder>,
}

impl Held {
    pub(super) fn add(&mut self, resources: &[GenericResource], holder: Holder) {
        for resource in resources {
            let kind = self.kinds.entry(resource.kind.clone()).or_default();
            for count in [&mut kind.count, kind.by_slot.entry(holder).or_default()] {
                *count = count.saturating_add(resource.count);
            }
            kind.names.extend(resource.names.iter().map(|name| (name.clone(), holder)));
        }
    }

    /// So many of what the node has of a kind, the lowest names first; none when too few are free.
    /// What `handed_over` holds counts as free.
    pub(super) fn pick(
        &self,
        total: &GenericResource,
        count: u64,
        handed_over: Option<Holder>,
    ) -> Option<GenericResource> {
        let held = self.kinds.get(&total.kind);
        let kind = total.kind.clone();
        if total.names.is_empty() {
            let others = held.map_or(0, |held| held.count_of_others(handed_over));
            let is_enough = count <= total.count.saturating_sub(others);
            return is_enough.then(|| GenericResource { kind, count, names: Vec::new() });
        }
        let is_free = |name: &&String| {
            let holder = held.and_then(|held| held.names.get(*name));
            holder.is_none_or(|holder| Some(*holder) == handed_over)
        };
        let free: BTreeSet<&String> = total.names.iter().filter(is_free).collect();
        let wanted = usize::try_from(count).ok().filter(|wanted| *wanted <= free.len())?;
        let names = free.into_iter().take(wanted).cloned().collect();
        Some(GenericResource { kind, count: 0, names })
    }
}

impl Kind {
    fn count_of_others(&self, holder: Option<Holder>) -> u64 {
        let own = holder.and_then(|holder| self.by_slot.get(&holder));
        self.count.saturating_sub(own.copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
