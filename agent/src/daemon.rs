//! The agent from start to stop: wiring.

use std::fs::DirBuilder;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use shoal_image::ImageStore;
use shoal_manager::ca::{ClusterCa, NODE_VALIDITY, NodeCertificate};
use shoal_manager::{Manager, ManagerConfig, NodeInfo};
use shoal_network::{Engine, EngineConfig};
use shoal_proto::v1::NodeRole;
use shoal_runtime::{Runtime, RuntimeConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::{ContainersApi, ImagesApi};
use crate::config::Config;
use crate::container::Users;
use crate::identity::Identity;
use crate::join::{self, Membership};
use crate::node::{Fabric, Node, Reports, Shared, StatusStore, Volumes};
use crate::session::{self, Managers};
use crate::single::Singles;
use crate::task::{Tasks, collect_garbage};
use crate::{host, lock, serve};

/// Connections that are open when the agent stops have this long to end by themselves.
const DRAIN: Duration = Duration::from_secs(2);

pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("it must run as root: it makes namespaces, mounts and firewall rules; try sudo");
    }
    // Fails only when another part of the program has set one, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let _data = lock::take(&config.data_dir, 0o711, "--data-dir and --run-dir")?;
    let _run = lock::take(&config.run_dir, 0o755, "--run-dir")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let membership = member(&config).await?;
    let identity = match &membership {
        Some(membership) => membership.identity.clone(),
        None => Identity::load_or_create(&config.data_dir)?,
    };
    let node = open_node(&config, &identity).await?;
    let plane = match membership {
        Some(membership) => Plane::worker(&config, membership),
        None => Plane::manager(&config, &identity, &node).await?,
    };

    let stop = CancellationToken::new();
    let socket = serve::bind_socket(&config.run_dir.join("shoal.sock"), config.group.as_deref())?;
    let singles = Singles::open(node.clone()).context("can't read the containers' records")?;
    let apis = serve::Apis {
        images: ImagesApi::new(node.images.clone()),
        containers: ContainersApi::new(singles.clone()),
    };
    let Plane { part, managers } = plane;
    let (manager, nodes, certificate) = match part {
        Part::Manager { manager, listener, certificate } => {
            let nodes = serve::nodes(listener, &manager, &certificate, stop.clone());
            (Some(manager), Some(nodes), None)
        }
        Part::Worker { certificate } => (None, None, Some(certificate)),
    };
    let control = match &manager {
        Some(manager) => serve::Control::Here(manager),
        None => serve::Control::Elsewhere(managers.addresses()),
    };
    let people = serve::people(socket, control, apis, stop.clone());
    let mut tasks = Tasks::new(node.clone());
    let known = tasks.kept().into_iter().chain(singles.all().into_iter().map(|one| one.id.clone()));
    collect_garbage(&node, &known.collect()).await;
    tasks.resume().await;
    singles.resume().await;
    tracing::info!(node.id = %identity.node, manager = manager.is_some(), "ready");

    let nodes = async {
        match nodes {
            Some(nodes) => nodes.await,
            None => std::future::pending().await,
        }
    };
    let renewal = async {
        match certificate {
            Some(certificate) => {
                join::keep_certificate(&config.data_dir, certificate, &managers).await;
            }
            None => std::future::pending().await,
        }
    };
    let served = async { tokio::try_join!(people, nodes).map(drop) };
    tokio::pin!(served);
    tokio::select! {
        ended = &mut served => ended?,
        () = session::run(node.clone(), &mut tasks, &managers) => {}
        () = renewal => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    // A watch that somebody leaves open must not hold the agent up.
    let _ = tokio::time::timeout(DRAIN, served).await;
    if let Some(manager) = &manager {
        manager.shutdown().await;
    }
    close(&config, &node, &tasks, &singles).await;
    Ok(())
}

/// What this host has joined, or joins now; none when it is, or begins, a cluster of its own.
async fn member(config: &Config) -> anyhow::Result<Option<Membership>> {
    let joined = join::load(&config.data_dir)?;
    let (None, Some((addresses, token))) = (&joined, &config.join) else { return Ok(joined) };
    let name = config.name.clone().unwrap_or_else(host::name);
    join::join(&config.data_dir, &name, addresses, token).await.map(Some)
}

/// This node's part in the cluster, and where its agent finds the managers.
struct Plane {
    part: Part,
    managers: Managers,
}

enum Part {
    Manager { manager: Manager, listener: TcpListener, certificate: NodeCertificate },
    Worker { certificate: NodeCertificate },
}

impl Plane {
    fn worker(config: &Config, membership: Membership) -> Self {
        let Membership { certificate, managers, .. } = membership;
        let tls = certificate.client_config();
        let managers = Managers::new(managers, tls, advertise(config, config.listen));
        Self { part: Part::Worker { certificate }, managers }
    }

    async fn manager(config: &Config, identity: &Identity, node: &Node) -> anyhow::Result<Self> {
        let listener = serve::listen(config).await?;
        let listen = listener.local_addr()?;
        let advertise = advertise(config, listen);
        let now = SystemTime::now();
        let ca = ClusterCa::open_or_create(&config.data_dir.join("ca"), &identity.cluster, now)?;
        let certificate = ca.issue(identity.node, NodeRole::Manager, NODE_VALIDITY, now)?;
        let manager = Manager::start(ManagerConfig {
            data_dir: config.data_dir.clone(),
            cluster: identity.cluster.clone(),
            node: identity.node,
            info: node_info(config, node, listen, &advertise),
            ca,
        })
        .await?;
        let own = local(listen).to_string();
        let managers = Managers::new(vec![own], certificate.client_config(), advertise);
        Ok(Self { part: Part::Manager { manager, listener, certificate }, managers })
    }
}

/// With containers left, everything stays for them; without, the host is as it was before.
async fn close(config: &Config, node: &Node, tasks: &Tasks, singles: &Singles) {
    if let Err(error) = std::fs::remove_file(config.run_dir.join("shoal.sock")) {
        tracing::warn!(%error, "can't remove the socket");
    }
    let left = node.runtime.list().unwrap_or_default();
    if !left.is_empty() || !tasks.is_idle() || !singles.is_idle() {
        tracing::info!(containers = left.len(), "stopping; containers go on");
        return;
    }
    if let Err(error) = node.network.remove_all().await {
        tracing::warn!(%error, "can't take the network apart");
    }
    node.runtime.close();
    tracing::info!("stopping; nothing is left on the host");
}

async fn open_node(config: &Config, identity: &Identity) -> anyhow::Result<Node> {
    let instance = config.instance();
    let cgroup_parent = match instance.as_str() {
        "" => "shoal".to_owned(),
        instance => format!("shoal-{instance}"),
    };
    let runtime =
        Runtime::open(RuntimeConfig { run_dir: config.run_dir.join("containers"), cgroup_parent })?;
    let network = Engine::open(EngineConfig {
        instance,
        state_dir: config.run_dir.join("network"),
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
    })
    .await?;
    let images = ImageStore::open(&config.data_dir.join("images"), registries(config)).await?;
    let statuses = StatusStore::open(config.data_dir.join("agent"))?;
    let subnet = config.data_dir.join("agent/subnet");
    let fabric = Fabric::open(network.clone(), &subnet).await?;
    let logs = config.data_dir.join("logs");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&logs)
        .with_context(|| format!("can't make {}", logs.display()))?;
    Ok(Node::new(Shared {
        id: identity.node,
        name: config.name.clone().unwrap_or_else(host::name),
        data_dir: config.data_dir.clone(),
        run_dir: config.run_dir.clone(),
        runtime,
        images,
        network,
        fabric,
        generic_resources: config.generic_resources.clone(),
        users: Users::of(config.userns_remap.as_deref())
            .map_err(|error| anyhow::anyhow!("userns-remap: {error}"))?,
        volumes: Volumes::open(config.data_dir.join("volumes"))?,
        reports: Reports::default(),
        statuses,
    }))
}

fn registries(config: &Config) -> shoal_image::RegistryConfig {
    let host = |registry: &crate::config::Registry| shoal_image::HostConfig {
        plain_http: registry.http,
        ca_files: registry.ca.iter().cloned().collect(),
        credentials: None,
    };
    shoal_image::RegistryConfig {
        hosts: config.registries.iter().map(|(name, one)| (name.clone(), host(one))).collect(),
        certs_dir: Some(config.certs_dir.clone()),
        ..shoal_image::RegistryConfig::default()
    }
}

fn node_info(config: &Config, node: &Node, listen: SocketAddr, advertise: &str) -> NodeInfo {
    NodeInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: node.name.clone(),
        description: host::describe(&config.generic_resources),
        data_dir: config.data_dir.display().to_string(),
        listen_address: listen.to_string(),
        advertise_address: advertise.to_owned(),
        cgroups: node.runtime.cgroup_mode().to_string(),
        firewall: node.network.driver().to_owned(),
    }
}

/// With the port that the agent listens on, unless another is given.
fn advertise(config: &Config, listen: SocketAddr) -> String {
    let port = listen.port();
    match &config.advertise {
        Some(address) if address.parse::<SocketAddr>().is_ok() => address.clone(),
        Some(address) => match address.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) if address.contains(':') => address.clone(),
            Err(_) => format!("{address}:{port}"),
        },
        None if listen.ip().is_unspecified() => {
            SocketAddr::new(host::outward_address(), port).to_string()
        }
        None => listen.to_string(),
    }
}

/// How the agent reaches its own manager: through the same port as everyone else.
fn local(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        return SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.port());
    }
    listen
}
