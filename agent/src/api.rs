//! What a node offers on its socket besides the control API.

mod containers;
mod control;
mod images;
mod lock;

pub(crate) use containers::ContainersApi;
pub(crate) use control::Control;
pub(crate) use images::ImagesApi;
pub(crate) use lock::{Attempt, LockApi};
