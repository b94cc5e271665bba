//! The control plane as a library that the agent starts on manager nodes: raft under the store,
//! the control loops on the leader, the agents' sessions, the cluster's certificates and the
//! control API. It never sees containers, images or interfaces.

mod api;
pub mod backup;
pub mod ca;
mod change;
mod dispatcher;
pub mod file;
mod founding;
mod gate;
mod join;
pub mod keys;
mod leader;
mod logs;
mod manager;
mod membership;
mod peers;
pub mod raft;
mod random;
mod read;
mod rotation;
mod transport;

pub use api::NodeInfo;
pub use founding::{Founder, Founding};
pub use gate::ControlGate;
pub use manager::{Manager, ManagerConfig};
