//! The control API as this node offers it to people: by the manager that is here, or with a word
//! about where to ask.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use shoal_proto::v1::control_server::SERVICE_NAME;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Service, ServiceExt};

use crate::seat::{Occupant, Seat};
use crate::session::Managers;

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Control {
    seat: Seat,
    managers: Managers,
}

impl Control {
    pub(crate) fn new(seat: Seat, managers: Managers) -> Self {
        Self { seat, managers }
    }

    async fn serve(self, request: Request<Body>) -> Response<Body> {
        match self.seat.occupant().await {
            Occupant::Manager(running) => match running.control.clone().oneshot(request).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            },
            Occupant::Worker | Occupant::Nobody => {
                let managers = self.managers.addresses().join(", ");
                refuse(format!(
                    "this node is a worker: ask on a manager ({managers}); images and single \
                     containers of this node can be seen to here"
                ))
            }
            Occupant::Locked => refuse(
                "this manager is locked: unlock it with \"ctl cluster unlock\"; the key is shown by \
                 \"ctl cluster unlock-key\" on a manager that runs"
                    .to_owned(),
            ),
        }
    }
}

fn refuse(message: String) -> Response<Body> {
    Status::failed_precondition(message).into_http()
}

impl NamedService for Control {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<Request<Body>> for Control {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let control = self.clone();
        Box::pin(async move { Ok(control.serve(request).await) })
    }
}
