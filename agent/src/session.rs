//! The agent's side of its session: the same for the manager in this process as for one on
//! another host.

mod logs;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use shoal_manager::ca::Credentials;
use shoal_proto::PROTOCOL;
use shoal_proto::time::std_duration;
use shoal_proto::v1::dispatcher_client::DispatcherClient;
use shoal_proto::v1::manager_message::Message;
use shoal_proto::v1::{
    AgentMessage, Assignments, AssignmentsAck, Heartbeat, Hello, Inventory, NodeRole, Standing,
    StatusUpdate, agent_message,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::membership::NodeFolder;
use crate::node::Node;
use crate::task::Tasks;

/// A leader that is lost is noticed, and the next one found, well within the time that the next one
/// gives its nodes.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);
const KEEP_ALIVE: Duration = Duration::from_millis(500);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_millis(700);
/// A manager that acknowledges nothing for so long can't do its work.
const SILENCE: Duration = Duration::from_millis(2500);
/// Everything that a node is to know may come in one message, its configs with it.
const MAX_MESSAGE: usize = 256 << 20;
const MAX_REDIRECTS: usize = 3;
/// Messages that wait for the connection.
const BACKLOG: usize = 16;
const RUN_OUT: &str = "this node's certificate has run out; if its clock is right, take it out with \
                       \"ctl node rm\" and let it join anew with an empty --data-dir";
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Where the managers are, and what they make of this node. Clones share it.
#[derive(Clone)]
pub(crate) struct Managers {
    shared: Arc<Shared>,
}

struct Shared {
    addresses: Mutex<Addresses>,
    standing: watch::Sender<Option<Standing>>,
    /// Where this node is to be found.
    advertise: String,
}

#[derive(Default)]
struct Addresses {
    known: Vec<String>,
    /// This node is a manager itself: it is asked too, where it is now.
    own: Option<String>,
    /// Which to try next.
    turn: usize,
    /// Where a manager has sent this node.
    redirect: Option<String>,
}

impl Addresses {
    fn all(&self) -> Vec<String> {
        let own = self.own.iter().filter(|own| !self.known.contains(own));
        own.chain(&self.known).cloned().collect()
    }
}

impl Managers {
    /// `advertise` is where this node is to be found.
    pub(crate) fn new(advertise: String) -> Self {
        let (addresses, standing) = (Mutex::default(), watch::channel(None).0);
        Self { shared: Arc::new(Shared { addresses, standing, advertise }) }
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.lock().all()
    }

    /// Whether this node is a manager itself.
    pub(crate) fn set_own(&self, is_manager: bool) {
        self.lock().own = is_manager.then(|| self.shared.advertise.clone());
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<String>) {
        self.lock().known = addresses;
    }

    /// What the managers have last said of this node.
    pub(crate) fn standing(&self) -> watch::Receiver<Option<Standing>> {
        self.shared.standing.subscribe()
    }

    /// Takes in what they say now; true when there are other addresses to keep.
    fn take(&self, standing: &Standing) -> bool {
        let mut addresses = self.lock();
        let differ = !standing.managers.is_empty() && addresses.known != standing.managers;
        if differ {
            addresses.known.clone_from(&standing.managers);
        }
        drop(addresses);
        self.shared.standing.send_replace(Some(standing.clone()));
        differ
    }

    /// Where a manager has sent this node, else the next of those that are known.
    fn next(&self) -> Option<String> {
        let mut addresses = self.lock();
        if let Some(address) = addresses.redirect.take() {
            return Some(address);
        }
        let turn = addresses.turn;
        addresses.turn = turn.wrapping_add(1);
        let all = addresses.all();
        (!all.is_empty()).then(|| all[turn % all.len()].clone())
    }

    fn point_to(&self, address: String) {
        self.lock().redirect = Some(address);
    }
}

/// How a session ended that did not fail.
enum End {
    /// The manager has ended it.
    Over,
    /// Another manager is to be asked, at once.
    Redirected,
    /// This node has a new certificate to show.
    Renewed,
}

/// Keeps a session, one after the other, for as long as the agent runs.
pub(crate) async fn run(
    node: Node,
    tasks: &mut Tasks,
    managers: &Managers,
    credentials: &Credentials,
    folder: &NodeFolder,
) {
    let mut retry = FIRST_RETRY;
    // A manager may send a node on to one that has just lost its part: not for ever at once.
    let mut redirects = 0;
    let mut tries = 0;
    loop {
        match hold(&node, tasks, managers, credentials, folder, &mut retry).await {
            Ok(End::Redirected) if redirects < MAX_REDIRECTS => {
                redirects += 1;
                continue;
            }
            Ok(End::Redirected) => {}
            Ok(End::Renewed) => continue,
            Ok(End::Over) => tracing::info!("the session is over"),
            Err(error) => {
                let expired = has_run_out(credentials).then_some(RUN_OUT);
                tracing::warn!(error = format!("{error:#}"), hint = expired, "no session");
            }
        }
        redirects = 0;
        tries += 1;
        // The next may be the one that leads: a pause comes when all have been asked.
        if tries < managers.addresses().len() {
            continue;
        }
        tries = 0;
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// Whether no manager can accept this node any more. A manager signs itself a new certificate.
fn has_run_out(credentials: &Credentials) -> bool {
    let certificate = credentials.current();
    certificate.identity().role == NodeRole::Worker && certificate.expires_at() <= SystemTime::now()
}

async fn connect(managers: &Managers, credentials: &Credentials) -> anyhow::Result<Channel> {
    let address = managers.next().context("no manager is known")?;
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(credentials.current().client_config())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    endpoint.connect().await.with_context(|| format!("can't reach the manager at {address}"))
}

async fn hold(
    node: &Node,
    tasks: &mut Tasks,
    managers: &Managers,
    credentials: &Credentials,
    folder: &NodeFolder,
    retry: &mut Duration,
) -> anyhow::Result<End> {
    let mut renewed = credentials.watch();
    renewed.mark_unchanged();
    let channel = connect(managers, credentials).await?;
    let mut client = DispatcherClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    let mut volumes = node.volumes.names();
    let mut description = crate::host::describe(&node.generic_resources, &node.labels);
    description.volumes = volumes.borrow_and_update().iter().cloned().collect();
    description.host_routes =
        node.network.host_routes().await?.iter().map(ToString::to_string).collect();
    description.trusted_roots = credentials.current().trusted_roots();
    let hello = Hello {
        node_name: node.name.clone(),
        advertise_address: managers.shared.advertise.clone(),
        description: Some(description),
        protocol: PROTOCOL,
    };
    let (outbound, stream) = mpsc::channel(BACKLOG);
    outbound.send(wrap(agent_message::Message::Hello(hello))).await?;
    let begun = client.session(ReceiverStream::new(stream));
    let begun = tokio::time::timeout(SILENCE, begun).await;
    let mut inbound = match begun.context("the manager does not answer")? {
        Ok(inbound) => inbound.into_inner(),
        Err(status) => {
            if is_removed(&status) {
                // What it ran runs elsewhere.
                tasks.apply(Assignments { full: true, ..Assignments::default() }).await;
            }
            bail!("the manager refuses the session: {}", status.message());
        }
    };
    node.reports.resend_all();
    let _uplink = node.uplink.open(channel.clone());
    let mut logs = logs::Publishers::new(node.clone(), channel);
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0;
    node.lease.begin();
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {
                if heard.elapsed() > SILENCE {
                    bail!("the manager has been silent for too long");
                }
                number += 1;
                node.lease.sent(number, shoal_runtime::uptime());
                let beat = Heartbeat { number };
                outbound.send(wrap(agent_message::Message::Heartbeat(beat))).await?;
            }
            updates = node.reports.take() => {
                let update = StatusUpdate { updates };
                outbound.send(wrap(agent_message::Message::Status(update))).await?;
            }
            _ = volumes.changed() => {
                let volumes = volumes.borrow_and_update().iter().cloned().collect();
                let inventory = Inventory { volumes };
                outbound.send(wrap(agent_message::Message::Inventory(inventory))).await?;
            }
            message = inbound.next() => {
                let Some(message) = message.transpose()? else { return Ok(End::Over) };
                match message.message {
                    Some(Message::Welcome(welcome)) => {
                        *retry = FIRST_RETRY;
                        take_standing(managers, folder, node, welcome.standing);
                        if let Some(period) = &welcome.heartbeat_period {
                            heartbeat = tokio::time::interval(std_duration(period).max(Duration::from_millis(100)));
                        }
                    }
                    Some(Message::Assignments(assignments)) => {
                        let sequence = assignments.sequence;
                        tasks.apply(assignments).await;
                        let ack = AssignmentsAck { sequence };
                        outbound.send(wrap(agent_message::Message::Ack(ack))).await?;
                    }
                    Some(Message::LogSubscription(subscription)) => logs.take(subscription),
                    Some(Message::Redirect(redirect)) => {
                        managers.point_to(redirect.address);
                        return Ok(End::Redirected);
                    }
                    Some(Message::Standing(standing)) => {
                        take_standing(managers, folder, node, Some(standing));
                    }
                    Some(Message::HeartbeatAck(ack)) => {
                        heard = Instant::now();
                        node.lease.heard(ack.number);
                    }
                    None => {}
                }
            }
            _ = renewed.changed() => return Ok(End::Renewed),
        }
    }
}

/// Whether a manager says that the cluster does not have this node any more.
fn is_removed(status: &tonic::Status) -> bool {
    status.metadata().contains_key("shoal-removed")
}

fn take_standing(
    managers: &Managers,
    folder: &NodeFolder,
    node: &Node,
    standing: Option<Standing>,
) {
    let Some(standing) = standing else { return };
    node.lease.set_length(standing.lease.as_ref().map(std_duration));
    if managers.take(&standing)
        && let Err(error) = folder.keep_managers(&standing.managers)
    {
        tracing::warn!(error = format!("{error:#}"), "can't keep where the managers are");
    }
}

fn wrap(message: agent_message::Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}
