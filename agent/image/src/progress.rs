//! What a pull tells whoever waits for it.
//!
//! Numbers are kept in [`Counter`]s that the transfers add to; each waiter looks at them now and
//! then and is told what has changed. A slow waiter holds nothing up, and one that joins a pull
//! under way sees all of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::digest::Digest;

/// A step of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// The name is resolved: the digest that a registry knows it by.
    Resolved(Digest),
    /// A layer has got on.
    Layer(LayerProgress),
}

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// The layer's digest in the manifest.
    pub digest: Digest,
    /// What is going on with it.
    pub state: LayerState,
    /// Compressed bytes that have come.
    pub current: u64,
    /// Compressed bytes that there are.
    pub total: u64,
}

/// What is going on with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LayerState {
    /// Others are downloaded first.
    Waiting,
    /// Downloaded, checked and unpacked at the same time.
    Downloading,
    /// Was here already.
    Exists,
    /// Came, was checked and is unpacked.
    Done,
}

/// A layer's numbers while they change.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    state: AtomicU8,
    current: AtomicU64,
}

impl Counter {
    pub(crate) fn add(&self, bytes: u64) {
        self.current.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, state: LayerState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    fn get(&self) -> (LayerState, u64) {
        let state = match self.state.load(Ordering::Relaxed) {
            0 => LayerState::Waiting,
            1 => LayerState::Downloading,
            2 => LayerState::Exists,
            _ => LayerState::Done,
        };
        (state, self.current.load(Ordering::Relaxed))
    }
}

/// A layer that a pull needs. The counter is replaced when another pull already transfers it.
#[derive(Debug)]
pub(crate) struct Row {
    digest: Digest,
    total: u64,
    counter: std::sync::Mutex<Arc<Counter>>,
}

impl Row {
    pub(crate) fn new(digest: Digest, total: u64) -> Self {
        Self { digest, total, counter: std::sync::Mutex::default() }
    }

    pub(crate) fn counter(&self) -> Arc<Counter> {
        Arc::clone(&self.lock())
    }

    pub(crate) fn follow(&self, counter: Arc<Counter>) {
        *self.lock() = counter;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Counter>> {
        self.counter.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// All of one pull.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) resolved: OnceLock<Digest>,
    pub(crate) rows: OnceLock<Vec<Row>>,
}

/// What one waiter has been told.
#[derive(Default)]
pub(crate) struct Seen {
    resolved: bool,
    rows: HashMap<usize, (LayerState, u64)>,
}

impl Board {
    /// Tells a waiter what is new to it.
    pub(crate) fn tell(&self, seen: &mut Seen, mut tell: impl FnMut(PullEvent)) {
        if let Some(digest) = self.resolved.get().filter(|_| !seen.resolved) {
            seen.resolved = true;
            tell(PullEvent::Resolved(digest.clone()));
        }
        for (number, row) in self.rows.get().into_iter().flatten().enumerate() {
            let now = row.counter().get();
            if seen.rows.insert(number, now) != Some(now) {
                tell(PullEvent::Layer(LayerProgress {
                    digest: row.digest.clone(),
                    state: now.0,
                    current: if now.0 == LayerState::Done { row.total } else { now.1 },
                    total: row.total,
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waiter_hears_every_state_it_has_not_heard_and_no_more() {
        let board = Board::default();
        let (mut early, mut late) = (Seen::default(), Seen::default());
        let hear = |seen: &mut Seen| {
            let mut events = Vec::new();
            board.tell(seen, |event| events.push(event));
            events
        };
        assert!(hear(&mut early).is_empty());
        board.resolved.set(Digest::of(b"m")).unwrap();
        board.rows.set(vec![Row::new(Digest::of(b"l"), 10)]).unwrap();
        assert_eq!(hear(&mut early).len(), 2);
        let counter = board.rows.get().unwrap()[0].counter();
        counter.set(LayerState::Downloading);
        counter.add(4);
        let PullEvent::Layer(layer) = hear(&mut early).remove(0) else { panic!("not a layer") };
        assert_eq!((layer.state, layer.current, layer.total), (LayerState::Downloading, 4, 10));
        assert!(hear(&mut early).is_empty());
        assert_eq!(hear(&mut late).len(), 2);
    }
}
