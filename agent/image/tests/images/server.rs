//! A registry that does as it is told: wrong bytes, broken connections, errors, tokens, delays.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use shoal_image::Digest;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::build::Built;

/// What happens to the next request of a path.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Answers this status.
    Status(u16),
    /// Sends this many bytes of the content and breaks the connection.
    Break(usize),
    /// Inverts the byte at this place.
    Damage(usize),
    /// Sends the content with this behind it.
    Append(&'static [u8]),
    /// Sends half of the content, and the rest when [`Server::release`] says so.
    Hold,
    /// Knows nothing of ranges.
    NoRange,
}

/// How the registry wants to be talked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    #[default]
    Open,
    /// A token from its own token server, which takes `user` and `pass` or, if allowed, nobody.
    Token { anonymous: bool },
    /// `user` and `pass`.
    Basic,
}

#[derive(Default)]
struct State {
    /// By path below `/v2/`; with a media type.
    content: BTreeMap<String, (String, Vec<u8>)>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    /// Paths asked for, with the range if there was one.
    requests: Vec<String>,
    access: Access,
    tokens: usize,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    gate: Arc<tokio::sync::watch::Sender<bool>>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let gate = Arc::new(tokio::sync::watch::channel(false).0);
        let (shared, opened) = (Arc::clone(&state), gate.subscribe());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (shared, opened) = (Arc::clone(&shared), opened.clone());
                let service = service_fn(move |request| {
                    let response = answer(&shared, &opened, address, &request);
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // Broken connections are part of the game.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Self { address, state, gate, task: task.abort_handle() }
    }

    /// `127.0.0.1:PORT/NAME`
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Holds an image under a repository and tag.
    pub(crate) fn push(&self, repository: &str, tag: &str, built: &Built) {
        for blob in built.blobs() {
            self.put(
                &format!("{repository}/blobs/{}", Digest::of(blob)),
                "application/octet-stream",
                blob,
            );
        }
        self.manifest(repository, tag, crate::build::MANIFEST, &built.manifest);
    }

    pub(crate) fn manifest(&self, repository: &str, tag: &str, kind: &str, manifest: &[u8]) {
        for version in [tag, Digest::of(manifest).as_str()] {
            self.put(&format!("{repository}/manifests/{version}"), kind, manifest);
        }
    }

    pub(crate) fn put(&self, path: &str, kind: &str, bytes: &[u8]) {
        let content = (kind.to_owned(), bytes.to_vec());
        self.state.lock().unwrap().content.insert(path.to_owned(), content);
    }

    pub(crate) fn fault(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().faults.entry(path.to_owned()).or_default().push_back(fault);
    }

    pub(crate) fn access(&self, access: Access) {
        self.state.lock().unwrap().access = access;
    }

    /// Tokens given out so far are no longer good.
    pub(crate) fn expire_tokens(&self) {
        self.state.lock().unwrap().tokens += 1;
    }

    /// Lets held contents go on, now and from now on.
    pub(crate) fn release(&self) {
        self.gate.send_replace(true);
    }

    /// How often a path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|request| request.split(' ').next() == Some(path)).count()
    }

    /// All requests for content so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn answer(
    state: &Mutex<State>,
    gate: &tokio::sync::watch::Receiver<bool>,
    address: SocketAddr,
    request: &Request<Incoming>,
) -> Response<Body> {
    let mut state = state.lock().unwrap();
    let get = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let authorization = get(header::AUTHORIZATION).unwrap_or_default();
    // `user:pass`.
    let is_user = authorization == "Basic dXNlcjpwYXNz";
    if request.uri().path() == "/token" {
        let scope = request.uri().query().unwrap_or_default().contains("pull");
        let anonymous = state.access == Access::Token { anonymous: true };
        if !scope || !(is_user || anonymous && authorization.is_empty()) {
            return plain(401, r#"{"details": "incorrect username or password"}"#);
        }
        state.tokens += 1;
        return plain(200, &format!(r#"{{"token": "t{}"}}"#, state.tokens));
    }
    let allowed = match &state.access {
        Access::Open => true,
        Access::Token { .. } => authorization == format!("Bearer t{}", state.tokens),
        Access::Basic => is_user,
    };
    if !allowed {
        let challenge = match &state.access {
            Access::Basic => "Basic realm=\"test\"".to_owned(),
            _ => format!("Bearer realm=\"http://{address}/token\",service=\"test\""),
        };
        let mut response = plain(401, r#"{"errors": [{"message": "authentication required"}]}"#);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        return response;
    }
    let path = request.uri().path().strip_prefix("/v2/").unwrap_or_default().to_owned();
    if path.is_empty() {
        return plain(200, "{}");
    }
    let range = get(header::RANGE).map(|range| range.replace("bytes=", " ")).unwrap_or_default();
    state.requests.push(format!("{path}{range}"));
    let fault = state.faults.get_mut(&path).and_then(VecDeque::pop_front);
    let Some((kind, content)) = state.content.get(&path).cloned() else {
        return plain(404, r#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]}"#);
    };
    if let Some(Fault::Status(status)) = fault {
        return plain(status, r#"{"errors": [{"message": "on purpose"}]}"#);
    }
    let offset = range.trim().trim_end_matches('-').parse().unwrap_or(0);
    let partial = offset > 0 && !matches!(fault, Some(Fault::NoRange));
    let mut bytes = content[if partial { offset } else { 0 }..].to_vec();
    let mut response = Response::builder().header(header::CONTENT_TYPE, kind);
    if partial {
        let range = format!("bytes {offset}-{}/{}", content.len() - 1, content.len());
        response = response.status(206).header(header::CONTENT_RANGE, range);
    }
    match fault {
        Some(Fault::Damage(at)) => bytes[at] ^= 0xff,
        Some(Fault::Append(more)) => bytes.extend_from_slice(more),
        _ => {}
    }
    response = response.header(header::CONTENT_LENGTH, bytes.len());
    let body = match fault {
        Some(Fault::Break(at)) => {
            pieces(vec![Ok(bytes[..at].to_vec()), Err(io::Error::other("broken on purpose"))])
        }
        Some(Fault::Hold) => held(bytes, gate.clone()),
        _ => pieces(vec![Ok(bytes)]),
    };
    response.body(body).unwrap()
}

fn plain(status: u16, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    Response::builder()
        .status(status)
        .body(body.map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

fn pieces(pieces: Vec<io::Result<Vec<u8>>>) -> Body {
    let stream = futures_util::stream::unfold(pieces.into_iter(), |mut pieces| async move {
        let piece = pieces.next()?;
        if piece.is_err() {
            // What was sent before has to arrive before the connection breaks.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some((piece.map(|bytes| Frame::data(Bytes::from(bytes))), pieces))
    });
    BodyExt::boxed_unsync(StreamBody::new(stream))
}

fn held(bytes: Vec<u8>, gate: tokio::sync::watch::Receiver<bool>) -> Body {
    let half = bytes.len() / 2;
    let pieces = [bytes[..half].to_vec(), bytes[half..].to_vec()];
    let stream = futures_util::stream::unfold(
        (pieces.into_iter(), gate),
        |(mut pieces, mut gate)| async move {
            let piece = pieces.next()?;
            if pieces.len() == 0 {
                gate.wait_for(|open| *open).await.ok()?;
            }
            Some((Ok(Frame::data(Bytes::from(piece))), (pieces, gate)))
        },
    );
    BodyExt::boxed_unsync(StreamBody::new(stream))
}
