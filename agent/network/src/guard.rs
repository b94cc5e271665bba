//! Looks after the rules: when somebody else has taken them away or changed them, they are made anew.

use std::time::Duration;

use crate::engine::Engine;
use crate::nft;

/// Between two looks. One costs a system call while nobody changes any rules of the host's.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of the rules as they were put in force.
#[derive(Debug, Default)]
pub(crate) struct Seal {
    /// The host's number of changes since when nobody has touched anything.
    generation: Option<u32>,
    /// What the table looked like then.
    listing: Option<String>,
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    AsItWas,
    Changed,
}

impl Seal {
    /// The engine itself has just changed the rules.
    pub(crate) fn renew(&mut self) {
        self.generation = nft::generation().ok();
        self.listing = None;
    }

    async fn look(&mut self, table: &str) -> Found {
        let Ok(now) = nft::generation() else { return Found::AsItWas };
        let untouched = self.generation == Some(now);
        if untouched && self.listing.is_some() {
            return Found::AsItWas;
        }
        let listing = nft::list(table).await;
        // Else it is of another time.
        let is_of_now = nft::generation().is_ok_and(|then| then == now);
        if listing.is_some() && is_of_now && (untouched || listing == self.listing) {
            self.generation = Some(now);
            self.listing = listing;
            return Found::AsItWas;
        }
        if is_of_now { Found::Changed } else { Found::AsItWas }
    }
}

/// Never ends.
pub(crate) async fn run(engine: Engine) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        engine.guard().await;
    }
}

/// Whether the rules have to be made anew.
pub(crate) async fn is_broken(seal: &mut Seal, table: &str) -> bool {
    seal.look(table).await == Found::Changed
}
