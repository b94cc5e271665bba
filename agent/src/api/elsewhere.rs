//! The control API on a worker: it says who to ask.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Request, Response};
use shoal_proto::v1::control_server::SERVICE_NAME;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// Answers every call of the API.
#[derive(Clone)]
pub(crate) struct ControlElsewhere {
    message: String,
}

impl ControlElsewhere {
    /// `managers` are their addresses.
    pub(crate) fn new(managers: &[String]) -> Self {
        let managers = managers.join(", ");
        let message = format!(
            "this node is a worker: ask on a manager ({managers}); images and single containers \
             of this node can be seen to here"
        );
        Self { message }
    }
}

impl NamedService for ControlElsewhere {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<Request<Body>> for ControlElsewhere {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Status::failed_precondition(self.message.clone()).into_http()))
    }
}
