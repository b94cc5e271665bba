//! The agent's servers: people on a local socket, nodes over mTLS.

use std::convert::Infallible;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Request, Response};
use shoal_manager::ca::{Credentials, NodeCertificate};
use shoal_proto::FILE_DESCRIPTOR_SET;
use shoal_proto::v1::containers_server::ContainersServer;
use shoal_proto::v1::images_server::ImagesServer;
use shoal_proto::v1::lock_server::LockServer;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::{Service, ServiceExt};

use crate::api::{ContainersApi, Control, ImagesApi, LockApi};
use crate::config::Config;
use crate::seat::{Occupant, Seat};

/// Connections that have come and are not served yet.
const BACKLOG: usize = 64;
/// Connections of hosts that have gone without a word are given up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way; more wait.
const HANDSHAKES: usize = 256;
/// A handshake has this long.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// After a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// The group that may use the socket when the settings name none.
const DEFAULT_GROUP: &str = "shoal";

/// Opens the port for nodes. The usual port may be another agent's of this machine: then any
/// will do, unless an operator has asked for it.
pub(crate) async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(config.listen).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse && config.listen_is_default => {
            let any = SocketAddr::new(config.listen.ip(), 0);
            let listener = TcpListener::bind(any).await.context("no free port to listen on")?;
            let port = listener.local_addr()?.port();
            tracing::warn!(port, "port {} is in use, listening on another", config.listen.port());
            Ok(listener)
        }
        bound => bound.with_context(|| {
            format!("can't listen on {}; choose another address with --listen", config.listen)
        }),
    }
}

/// Makes the socket for people. The lock on the run folder has been taken: a socket that is there
/// is a dead agent's.
pub(crate) fn bind_socket(path: &Path, group: Option<&str>) -> anyhow::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't remove {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("can't make the socket {}", path.display()))?;
    let gid = match group {
        Some(name) => match group_id(name) {
            Some(gid) => gid,
            None => bail!("there is no group {name:?}; make it with groupadd, or name another"),
        },
        None => group_id(DEFAULT_GROUP).unwrap_or(0),
    };
    chown(path, Some(0), Some(gid))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o660)))
        .with_context(|| format!("can't set the rights of {}", path.display()))?;
    Ok(listener)
}

fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// What the node offers to people.
pub(crate) struct Apis {
    pub(crate) images: ImagesApi,
    pub(crate) containers: ContainersApi,
    pub(crate) control: Control,
    pub(crate) lock: LockApi,
}

/// Serves people until told to stop.
pub(crate) async fn people(
    listener: UnixListener,
    apis: Apis,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    Server::builder()
        .add_service(apis.control)
        .add_service(LockServer::new(apis.lock))
        .add_service(ImagesServer::new(apis.images))
        .add_service(ContainersServer::new(apis.containers))
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled())
        .await
        .context("the socket's server")
}

/// Serves nodes, which show a certificate of this cluster, and hosts that want one, until told to
/// stop. A node that is no manager says so.
pub(crate) async fn nodes(
    listener: TcpListener,
    seat: Seat,
    mut credentials: watch::Receiver<Option<Credentials>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // Nobody is answered before this node knows who it is.
    let known = tokio::select! {
        known = credentials.wait_for(Option::is_some) => known.ok().and_then(|known| known.clone()),
        () = stop.cancelled() => None,
    };
    let Some(credentials) = known else { return Ok(()) };
    let routes = axum::Router::new().fallback_service(AtSeat(seat));
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_routes(Routes::from(routes))
        .serve_with_incoming_shutdown(handshakes(listener, credentials), stop.cancelled())
        .await
        .context("the nodes' server")
}

/// Connections that have come through their handshake with the certificate of that time.
fn handshakes(
    listener: TcpListener,
    credentials: Credentials,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (accepted, stream) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let mut certificates = credentials.watch();
        let mut acceptor = acceptor(&credentials.current());
        let turns = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let connection = tokio::select! {
                connection = listener.accept() => connection,
                _ = certificates.changed() => {
                    acceptor = self::acceptor(&certificates.borrow_and_update());
                    continue;
                }
                () = accepted.closed() => return,
            };
            let (connection, acceptor) = match (connection, &acceptor) {
                (Ok((connection, _)), Some(acceptor)) => (connection, acceptor.clone()),
                (Ok(_), None) => continue,
                (Err(error), _) => {
                    tracing::warn!(%error, "a connection is not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let accepted = accepted.clone();
            // It is never closed.
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            tokio::spawn(async move {
                let _turn = turn;
                // Small messages of both sides must not wait for each other.
                let _ = connection.set_nodelay(true);
                let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(connection)).await;
                if let Ok(Ok(stream)) = shaken {
                    // The server has stopped: so has the connection.
                    let _ = accepted.send(Ok(stream)).await;
                }
            });
        }
    });
    ReceiverStream::new(stream)
}

fn acceptor(certificate: &NodeCertificate) -> Option<TlsAcceptor> {
    match certificate.server_config() {
        Ok(config) => Some(TlsAcceptor::from(Arc::new(config))),
        Err(error) => {
            tracing::error!(%error, "no node can connect");
            None
        }
    }
}

/// What the manager on this node serves, as long as there is one.
#[derive(Clone)]
struct AtSeat(Seat);

impl Service<Request<axum::body::Body>> for AtSeat {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<axum::body::Body>) -> Self::Future {
        let seat = self.0.clone();
        Box::pin(async move {
            let Occupant::Manager(running) = seat.occupant().await else {
                return Ok(Status::unavailable("this node is not a manager").into_http());
            };
            match running.routes.clone().oneshot(request.map(Body::new)).await {
                Ok(answer) => Ok(answer),
                Err(error) => Ok(Status::internal(error.to_string()).into_http()),
            }
        })
    }
}
