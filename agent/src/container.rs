//! What the containers of tasks and single containers have in common: from a configuration and an
//! image to what the runtime is asked for.

mod cdi;
pub(crate) mod files;
pub(crate) mod health;
mod mounts;
mod request;
mod security;
pub(crate) mod signal;
mod users;

pub(crate) use mounts::clean;
pub(crate) use request::{Place, Wanted, build, check, limit, renew_files};
pub(crate) use users::Users;
