//! What the slots hold of a node's generic resources, and what a task gets of the rest.

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::ServiceId;
use shoal_proto::v1::GenericResource;

use crate::store::Slot;

/// A slot.
pub(super) type Holder = (ServiceId, Slot);

/// All that is held of one node, by kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Held {
    kinds: BTreeMap<String, Kind>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Kind {
    /// Of those without names.
    count: u64,
    /// The same, for each slot that has a part in it.
    by_slot: BTreeMap<Holder, u64>,
    /// Those with names.
    names: BTreeMap<String, (Holder, usize)>,
}

impl Held {
    pub(super) fn add(&mut self, resources: &[GenericResource], holder: Holder) {
        for resource in resources {
            let kind = self.kinds.entry(resource.kind.clone()).or_default();
            for count in [&mut kind.count, kind.by_slot.entry(holder).or_default()] {
                *count = count.saturating_add(resource.count);
            }
            for name in &resource.names {
                // One that takes over has it together with the one before it.
                let held = kind.names.entry(name.clone()).or_insert((holder, 0));
                *held = (holder, held.1 + 1);
            }
        }
    }

    /// Undoes [`Self::add`].
    pub(super) fn remove(&mut self, resources: &[GenericResource], holder: Holder) {
        for resource in resources {
            let Some(kind) = self.kinds.get_mut(&resource.kind) else { continue };
            kind.count = kind.count.saturating_sub(resource.count);
            if let Some(own) = kind.by_slot.get_mut(&holder) {
                *own = own.saturating_sub(resource.count);
                if *own == 0 {
                    kind.by_slot.remove(&holder);
                }
            }
            for name in &resource.names {
                if let Some((_, count)) = kind.names.get_mut(name) {
                    *count -= 1;
                    if *count == 0 {
                        kind.names.remove(name);
                    }
                }
            }
        }
    }

    /// How many of what the node has of a kind nobody holds; less than none when it has fewer by now.
    pub(super) fn free(&self, total: &GenericResource) -> i64 {
        let held = self.kinds.get(&total.kind);
        let held = held.map_or(0, |held| held.count + held.names.len() as u64);
        (total.count + total.names.len() as u64) as i64 - held as i64
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
            holder.is_none_or(|(holder, _)| Some(*holder) == handed_over)
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
