//! What a node offers on its socket besides the control API.

mod containers;
mod elsewhere;
mod images;

pub(crate) use containers::ContainersApi;
pub(crate) use elsewhere::ControlElsewhere;
pub(crate) use images::ImagesApi;
