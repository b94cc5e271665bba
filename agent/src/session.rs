//! The agent's side of its session: the same for the manager in this process as for one on
//! another host.

mod logs;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use shoal_proto::time::std_duration;
use shoal_proto::v1::dispatcher_client::DispatcherClient;
use shoal_proto::v1::manager_message::Message;
use shoal_proto::v1::{
    AgentMessage, AssignmentsAck, Heartbeat, Hello, StatusUpdate, agent_message,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::node::Node;
use crate::task::Tasks;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Messages that wait for the connection.
const BACKLOG: usize = 16;
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Where the managers are and how to be known to them.
pub(crate) struct Managers {
    addresses: Vec<String>,
    tls: Mutex<ClientTlsConfig>,
    advertise: String,
    /// Which to try next.
    turn: AtomicUsize,
}

impl Managers {
    /// `advertise` is where this node is to be found. There is at least one address.
    pub(crate) fn new(addresses: Vec<String>, tls: ClientTlsConfig, advertise: String) -> Self {
        Self { addresses, tls: Mutex::new(tls), advertise, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// For sessions from now on.
    pub(crate) fn set_tls(&self, tls: ClientTlsConfig) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    fn tls(&self) -> ClientTlsConfig {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn next(&self) -> &str {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.addresses[turn % self.addresses.len()]
    }
}

/// Keeps a session, one after the other, for as long as the agent runs.
pub(crate) async fn run(node: Node, tasks: &mut Tasks, managers: &Managers) {
    let mut retry = FIRST_RETRY;
    loop {
        match hold(&node, tasks, managers, &mut retry).await {
            Ok(()) => tracing::info!("the session is over"),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "no session"),
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

async fn connect(managers: &Managers) -> anyhow::Result<Channel> {
    let address = managers.next();
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(managers.tls())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    endpoint.connect().await.with_context(|| format!("can't reach the manager at {address}"))
}

async fn hold(
    node: &Node,
    tasks: &mut Tasks,
    managers: &Managers,
    retry: &mut Duration,
) -> anyhow::Result<()> {
    let channel = connect(managers).await?;
    let mut client = DispatcherClient::new(channel.clone());
    let mut description = crate::host::describe(&node.generic_resources);
    description.host_routes =
        node.network.host_routes().await?.iter().map(ToString::to_string).collect();
    let hello = Hello {
        node_name: node.name.clone(),
        advertise_address: managers.advertise.clone(),
        description: Some(description),
    };
    let (outbound, stream) = mpsc::channel(BACKLOG);
    outbound.send(wrap(agent_message::Message::Hello(hello))).await?;
    let mut inbound = client
        .session(ReceiverStream::new(stream))
        .await
        .context("the manager refuses the session")?
        .into_inner();
    *retry = FIRST_RETRY;
    node.reports.resend_all();
    let mut logs = logs::Publishers::new(node.clone(), channel);
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {
                outbound.send(wrap(agent_message::Message::Heartbeat(Heartbeat {}))).await?;
            }
            updates = node.reports.take() => {
                let update = StatusUpdate { updates };
                outbound.send(wrap(agent_message::Message::Status(update))).await?;
            }
            message = inbound.next() => {
                let Some(message) = message.transpose()? else { return Ok(()) };
                match message.message {
                    Some(Message::Welcome(welcome)) => {
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
                        anyhow::bail!("the manager points to {}", redirect.address);
                    }
                    None => {}
                }
            }
        }
    }
}

fn wrap(message: agent_message::Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}
