//! Who reaches whom, how fast, and what gets lost.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{HostId, Rng, Time};

pub(super) struct Network {
    /// Cut off from all others.
    cut: BTreeSet<HostId>,
    /// Of a hundred messages that are not of a stream.
    loss: u64,
    slowest: u64,
}

impl Network {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let slowest = [3, 20, 80][rng.below(3) as usize];
        Self { cut: BTreeSet::new(), loss: rng.below(5), slowest }
    }

    pub(super) fn reaches(&self, from: HostId, to: HostId) -> bool {
        from == to || !(self.cut.contains(&from) || self.cut.contains(&to))
    }

    pub(super) fn cut(&mut self, host: HostId, cut: bool) {
        match cut {
            true => self.cut.insert(host),
            false => self.cut.remove(&host),
        };
    }

    pub(super) fn join_all(&mut self) {
        self.cut.clear();
    }

    pub(super) fn set_loss(&mut self, percent: u64) {
        self.loss = percent;
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
    }

    /// When each copy of a message arrives: none when it is lost, two when it is doubled.
    pub(super) fn datagram(&self, rng: &mut Rng, from: HostId, to: HostId) -> Vec<Time> {
        if !self.reaches(from, to) || rng.chance(self.loss) {
            return Vec::new();
        }
        let copies = if self.loss > 0 && rng.chance(2) { 2 } else { 1 };
        (0..copies).map(|_| self.delay(rng)).collect()
    }

    /// How long a part of a stream takes; none when it never arrives.
    pub(super) fn stream(&self, rng: &mut Rng, from: HostId, to: HostId) -> Option<Time> {
        self.reaches(from, to).then(|| self.delay(rng))
    }

    fn delay(&self, rng: &mut Rng) -> Time {
        Duration::from_micros(200 + rng.below(self.slowest * 1000))
    }
}
