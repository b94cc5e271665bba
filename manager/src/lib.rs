//! The control plane as a library that the agent starts on manager nodes: raft under the store,
//! the control loops on the leader, the agents' sessions, the cluster's certificates and the
//! control API. It never sees containers, images or interfaces.

mod api;
pub mod ca;
mod dispatcher;
mod join;
mod leader;
mod logs;
mod manager;
pub mod raft;
mod random;

pub use api::NodeInfo;
pub use manager::{Manager, ManagerConfig, ManagerError};
