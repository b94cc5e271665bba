//! `ctl secret` and `ctl config`: what the two have in common, which is all but their words.

mod change;
mod look;

pub(super) use change::{Create, Remove, Update, create, remove, update};
pub(super) use look::{Inspect, Ls, inspect, ls};
