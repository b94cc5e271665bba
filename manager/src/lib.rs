//! The control plane as a library that the agent starts on manager nodes: raft under the store,
//! the control loops on the leader, the agents' sessions, the cluster's certificates and the
//! control API. It never sees containers, images or interfaces.

pub mod ca;
pub mod raft;
