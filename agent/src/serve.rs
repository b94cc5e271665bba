//! The agent's servers: people on a local socket, nodes over mTLS.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, bail};
use shoal_manager::Manager;
use shoal_manager::ca::NodeCertificate;
use shoal_proto::FILE_DESCRIPTOR_SET;
use shoal_proto::v1::containers_server::ContainersServer;
use shoal_proto::v1::images_server::ImagesServer;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::api::{ContainersApi, ControlElsewhere, ImagesApi};
use crate::config::Config;

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

/// What the node itself offers, besides the control API.
pub(crate) struct Apis {
    pub(crate) images: ImagesApi,
    pub(crate) containers: ContainersApi,
}

/// Who answers for the cluster.
pub(crate) enum Control<'a> {
    /// The manager on this node.
    Here(&'a Manager),
    /// Those at these addresses.
    Elsewhere(&'a [String]),
}

/// Serves people until told to stop.
pub(crate) async fn people(
    listener: UnixListener,
    control: Control<'_>,
    apis: Apis,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let server = match control {
        Control::Here(manager) => Server::builder().add_service(manager.control_service()),
        Control::Elsewhere(managers) => {
            Server::builder().add_service(ControlElsewhere::new(managers))
        }
    };
    server
        .add_service(ImagesServer::new(apis.images))
        .add_service(ContainersServer::new(apis.containers))
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled())
        .await
        .context("the socket's server")
}

/// Serves nodes, which show a certificate of this cluster, and hosts that want one, until told to
/// stop.
pub(crate) fn nodes(
    listener: TcpListener,
    manager: &Manager,
    certificate: &NodeCertificate,
    stop: CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let (dispatcher, ca) = (manager.dispatcher_service(), manager.node_ca_service());
    let tls = certificate.server_config();
    async move {
        Server::builder()
            .tls_config(tls)?
            .tcp_nodelay(true)
            .add_service(dispatcher)
            .add_service(ca)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled())
            .await
            .context("the nodes' server")
    }
}
