//! The agent from start to stop: wiring.

use std::convert::Infallible;
use std::fs::DirBuilder;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use shoal_image::ImageStore;
use shoal_manager::NodeInfo;
use shoal_manager::ca::Credentials;
use shoal_manager::keys::UnlockKey;
use shoal_network::{Engine, EngineConfig};
use shoal_runtime::{Runtime, RuntimeConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::api::{Attempt, ContainersApi, Control, ImagesApi, LockApi};
use crate::config::Config;
use crate::container::Users;
use crate::identity::Identity;
use crate::membership::{self, Found, Keeper, Membership, NodeFolder};
use crate::node::{Fabric, Lease, Node, Payloads, Reports, Shared, StatusStore, Uplink, Volumes};
use crate::seat::{Seat, Setup};
use crate::session::{self, Managers};
use crate::single::Singles;
use crate::task::{Tasks, collect_garbage, outer_address};
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

    membership::check(&config)?;
    let listener = serve::listen(&config).await?;
    let listen = listener.local_addr()?;
    let address = advertise(&config, listen);
    let identity = membership::establish(&config, &address).await?;
    let node = open_node(&config, &identity, &address).await?;
    let managers = Managers::new(address.clone());
    let setup = Setup {
        data_dir: config.data_dir.clone(),
        node: identity.node,
        info: node_info(&config, &node, listen, &address),
        address: address.clone(),
        election_timeout: config.election_timeout,
    };
    let seat = Seat::new(setup, managers.clone());

    let stop = CancellationToken::new();
    let socket = serve::bind_socket(&config.run_dir.join("shoal.sock"), config.group.as_deref())?;
    let singles = Singles::open(node.clone()).context("can't read the containers' records")?;
    let (attempts, mut attempted) = mpsc::channel(1);
    let apis = serve::Apis {
        images: ImagesApi::new(node.images.clone()),
        containers: ContainersApi::new(singles.clone()),
        control: Control::new(seat.clone(), managers.clone()),
        lock: LockApi::new(seat.clone(), attempts),
    };
    let (known, credentials) = watch::channel(None);
    let people = serve::people(socket, apis, stop.clone());
    let nodes = serve::nodes(listener, seat.clone(), credentials, stop.clone());
    let (mut people, mut nodes) = (tokio::spawn(people), tokio::spawn(nodes));

    let mut tasks = Tasks::new(node.clone());
    let ids = tasks.kept().into_iter().chain(singles.all().into_iter().map(|one| one.id.clone()));
    collect_garbage(&node, &ids.collect()).await;
    tasks.resume().await;
    singles.resume().await;
    tokio::spawn(singles.clone().keep_told());

    let part = async {
        let membership = unlocked(&config, &identity, &address, &seat, &mut attempted).await?;
        take_part(&config, membership, &node, &mut tasks, &seat, &managers, known).await
    };
    let ended = tokio::select! {
        ended = &mut people => ended.map_err(anyhow::Error::from).flatten(),
        ended = &mut nodes => ended.map_err(anyhow::Error::from).flatten(),
        failed = part => failed.map(|never| match never {}),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    stop.cancel();
    seat.leave().await;
    // Other nodes find out at once, and go to another manager.
    nodes.abort();
    // A watch that somebody leaves open must not hold the agent up.
    if !people.is_finished() {
        let _ = tokio::time::timeout(DRAIN, people).await;
    }
    close(&config, &node, &tasks, &singles).await;
    ended
}

/// What is kept of the membership; a manager that is locked waits for its key.
async fn unlocked(
    config: &Config,
    identity: &Identity,
    address: &str,
    seat: &Seat,
    attempts: &mut mpsc::Receiver<Attempt>,
) -> anyhow::Result<Membership> {
    let load = |key: Option<&UnlockKey>| membership::load(config, identity, address, key);
    if let Found::Member(membership) = load(config.unlock_key.as_ref())? {
        return Ok(*membership);
    }
    tracing::warn!("this manager is locked; unlock it with \"ctl cluster unlock\"");
    seat.lock();
    loop {
        // The service lives as long as the agent.
        let Some((key, reply)) = attempts.recv().await else { std::future::pending().await };
        let answer = match load(Some(&key)) {
            Ok(Found::Member(membership)) => {
                seat.unlock();
                // Whoever gave the key may have gone.
                let _ = reply.send(Ok(()));
                return Ok(*membership);
            }
            Ok(Found::Locked) => "the manager is locked still".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        let _ = reply.send(Err(answer));
    }
}

/// Works for the cluster, as a worker or a manager, until it can't.
async fn take_part(
    config: &Config,
    membership: Membership,
    node: &Node,
    tasks: &mut Tasks,
    seat: &Seat,
    managers: &Managers,
    known: watch::Sender<Option<Credentials>>,
) -> anyhow::Result<Infallible> {
    let Membership { certificate, managers: addresses, manager } = membership;
    let folder = NodeFolder::new(&config.data_dir);
    let credentials = Credentials::new(certificate);
    managers.set_addresses(addresses);
    match manager {
        Some(part) => seat.start(&folder, &credentials, part).await?,
        None => seat.leave_to_others(),
    }
    known.send_replace(Some(credentials.clone()));
    tracing::info!(node.id = %node.id, manager = seat.raft_id().is_some(), "ready");
    let keeper =
        Keeper { folder: folder.clone(), credentials: credentials.clone(), managers, seat };
    tokio::select! {
        () = session::run(node.clone(), tasks, managers, &credentials, &folder) => {}
        () = keeper.run() => {}
        () = seat.fails() => {}
    }
    // Whoever started the agent starts it again.
    bail!("the manager on this node has stopped; the log says why")
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
    if let Err(error) = node.payloads.close() {
        tracing::warn!(%error, "can't take the tmpfs for secrets away");
    }
    if let Err(error) = node.network.remove_all().await {
        tracing::warn!(%error, "can't take the network apart");
    }
    node.runtime.close();
    tracing::info!("stopping; nothing is left on the host");
}

async fn open_node(config: &Config, identity: &Identity, address: &str) -> anyhow::Result<Node> {
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
        address: outer_address(address),
        data_dir: config.data_dir.clone(),
        run_dir: config.run_dir.clone(),
        runtime,
        images,
        network,
        fabric,
        generic_resources: config.generic_resources.clone(),
        labels: config.labels.clone(),
        users: Users::of(config.userns_remap.as_deref())
            .map_err(|error| anyhow::anyhow!("userns-remap: {error}"))?,
        volumes: Volumes::open(config.data_dir.join("volumes"))?,
        payloads: Payloads::open(config.run_dir.join("payloads"))
            .context("can't make the tmpfs for secrets")?,
        reports: Reports::default(),
        lease: Lease::default(),
        statuses,
        uplink: Uplink::default(),
        told: watch::Sender::default(),
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
        description: host::describe(&config.generic_resources, &config.labels),
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
