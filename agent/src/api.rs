//! What a node offers on its socket besides the control API.

mod containers;
mod images;

pub(crate) use containers::ContainersApi;
pub(crate) use images::ImagesApi;
