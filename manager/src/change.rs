//! Changes of the store: decided on its newest state, committed, and decided anew when somebody else
//! was faster.

use std::time::SystemTime;

use shoal_core::context::Context;
use shoal_core::store::{Changes, Conflict, Store};

use crate::raft::{Commit, ProposeError, Raft};
use crate::random;

/// Tries to commit a change that others keep overtaking.
const MAX_TRIES: usize = 10;

/// Commits what `decide` makes of `store`, and of a newer one when that has been overtaken. Returns
/// what was decided and the store with it, also when there was nothing to change.
pub(crate) async fn commit<T, E: From<ProposeError>>(
    raft: &Raft,
    mut store: Store,
    decide: impl Fn(&Store, &mut Context<'_>, &mut Changes) -> Result<T, E>,
) -> Result<(T, Store), E> {
    let mut tries = 1;
    loop {
        let mut changes = Changes::default();
        let decided = {
            let mut random = random::bits;
            let mut context = Context { now: SystemTime::now(), random: &mut random };
            decide(&store, &mut context, &mut changes)?
        };
        if changes.is_empty() {
            return Ok((decided, store));
        }
        match raft.propose(changes.into_vec()).await {
            Ok(Commit { store, .. }) => return Ok((decided, store)),
            Err(ProposeError::Conflict(Conflict::Stale { .. } | Conflict::AddressTaken { .. }))
                if tries < MAX_TRIES =>
            {
                tries += 1;
                store = raft.store();
            }
            Err(error) => return Err(error.into()),
        }
    }
}
