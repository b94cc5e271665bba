//! What the cluster thinks: the store and the control loops over it.
//!
//! Pure: no clock, no sockets, no files, no randomness. Times and random bits come in as
//! arguments, changes go out, and nothing here waits. The loops never call each other; they meet
//! in the store ([`control`] runs them one after the other over a view that each one updates).

pub mod allocator;
pub mod assignment;
pub mod container;
pub mod context;
pub mod control;
pub mod deploy;
pub mod liveness;
pub mod lookup;
pub mod managers;
pub mod network;
pub mod node;
pub mod orchestrator;
pub mod payload;
pub mod placement;
pub mod revision;
pub mod schedule;
pub mod scheduler;
pub mod settings;
pub mod store;

#[cfg(test)]
mod testing;
