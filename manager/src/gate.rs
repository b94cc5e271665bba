//! The control API as every manager offers it: reads are answered here, changes go to whoever
//! leads. A request waits while nobody does, and is sent again only when it is known that nothing
//! was done.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use shoal_proto::v1::control_server::{ControlServer, SERVICE_NAME};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Service, ServiceExt};

use crate::api::Api;
use crate::peers::Peers;
use crate::raft::{Leadership, Raft};
use crate::read::{NOT_LEADER, PATIENCE, no_leader};

/// How the names of requests begin that change nothing and need no leader.
const READS: [&str; 4] = ["Get", "List", "Watch", "Backup"];
/// What is named like these, and is a change when it makes the key or the token anew.
const CHANGES: [&str; 2] = ["GetJoinToken", "GetUnlockKey"];
/// Bytes of a request at the most: a stack comes with all of its secrets and configs, and is one entry
/// of the log.
pub(crate) const MAX_REQUEST: usize = 17 << 20;
const RETRY: Duration = Duration::from_millis(50);

/// The service; clones share it.
#[derive(Clone)]
pub struct ControlGate {
    api: ControlServer<Api>,
    raft: Raft,
    peers: Peers,
}

impl ControlGate {
    pub(crate) fn new(api: ControlServer<Api>, raft: Raft, peers: Peers) -> Self {
        Self { api, raft, peers }
    }

    async fn serve(self, request: Request<Body>) -> Response<Body> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let is_read = READS.iter().any(|begin| method.starts_with(begin));
        if is_read && !CHANGES.contains(&method) {
            return self.here(request).await;
        }
        match self.by_leader(request).await {
            Ok(answer) => answer,
            Err(status) => status.into_http(),
        }
    }

    async fn here(&self, request: Request<Body>) -> Response<Body> {
        match self.api.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }

    async fn by_leader(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        // Requests of this API are one message each: they can be sent again.
        let body = Limited::new(body, MAX_REQUEST).collect().await;
        let body =
            body.map_err(|error| Status::invalid_argument(format!("the request: {error}")))?;
        let body = body.to_bytes();
        let again = |uri: http::Uri| {
            let mut request = Request::new(Body::new(Full::new(body.clone())));
            *request.method_mut() = head.method.clone();
            *request.uri_mut() = uri;
            *request.headers_mut() = head.headers.clone();
            *request.version_mut() = head.version;
            request
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = match self.raft.leadership() {
                Leadership::Leader { .. } => Some(self.here(again(head.uri.clone())).await),
                Leadership::Follower { leader: None } => None,
                Leadership::Follower { leader: Some(leader) } => {
                    self.forward(leader, &head.uri, &again).await?
                }
            };
            if let Some(answer) = answer.filter(|answer| !answer.headers().contains_key(NOT_LEADER))
            {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                return Err(no_leader(&self.raft));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// None when nothing was sent.
    async fn forward(
        &self,
        leader: u64,
        uri: &http::Uri,
        again: &impl Fn(http::Uri) -> Request<Body>,
    ) -> Result<Option<Response<Body>>, Status> {
        let Some(address) = self.peers.address(leader) else { return Ok(None) };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = path.parse().map_err(|_| Status::invalid_argument("the request has no path"))?;
        // An election may be over long before a leader that is lost is found not to answer.
        let another = self.raft.leadership_until(|now| match now {
            Leadership::Follower { leader: now } => now != Some(leader),
            Leadership::Leader { .. } => true,
        });
        tokio::pin!(another);
        let ready = async {
            let mut channel = self.peers.kept(&address).await.ok()?;
            let ready = channel.ready().await.is_ok();
            ready.then_some(channel)
        };
        let channel = tokio::select! {
            channel = ready => channel,
            _ = &mut another => None,
        };
        let Some(mut channel) = channel else {
            self.peers.forget(&address);
            return Ok(None);
        };
        let answer = tokio::select! {
            answer = channel.call(again(uri)) => Some(answer),
            _ = &mut another => None,
        };
        let why = match answer {
            Some(Ok(answer)) => return Ok(Some(answer.map(Body::new))),
            Some(Err(error)) if Peers::is_unsent(&error) => {
                self.peers.forget(&address);
                return Ok(None);
            }
            Some(Err(error)) => format!(" ({error})"),
            None => String::new(),
        };
        self.peers.forget(&address);
        Err(Status::unavailable(format!(
            "the leader at {address} was lost while it worked on this{why}; look whether it was \
             done, and try again if not"
        )))
    }
}

impl NamedService for ControlGate {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<Request<Body>> for ControlGate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move { Ok(gate.serve(request).await) })
    }
}
