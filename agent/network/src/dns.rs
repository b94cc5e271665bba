//! DNS for containers: the names of their networks from what the node was told, everything else
//! from the host's resolvers. One pair of sockets on each network's gateway address; the firewall
//! leads port 53 there, so that nothing on the host is in the way.

mod answer;
mod forward;
mod zone;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::desired::Desired;
use answer::Answer;
use forward::Forwarder;
use zone::Zones;

/// The port on the gateway addresses; away from 53, which belongs to the host.
pub(crate) const PORT: u16 = 5453;
/// A TCP client may be quiet for this long (RFC 7766, section 6.2.3: a few seconds).
const TCP_IDLE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);

/// The servers of a node.
pub(crate) struct Dns {
    zones: watch::Sender<Arc<Zones>>,
    forwarder: Arc<Forwarder>,
    servers: BTreeMap<Ipv4Addr, Server>,
}

struct Server {
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// What a server answers from.
#[derive(Clone)]
struct Source {
    zones: watch::Receiver<Arc<Zones>>,
    forwarder: Arc<Forwarder>,
}

impl Dns {
    pub(crate) fn new(resolv_conf: PathBuf) -> Self {
        let (zones, _) = watch::channel(Arc::new(Zones::default()));
        Self { zones, forwarder: Arc::new(Forwarder::new(resolv_conf)), servers: BTreeMap::new() }
    }

    /// Answers from that state from now on.
    pub(crate) fn apply(&mut self, desired: &Desired) {
        self.zones.send_replace(Arc::new(Zones::of(desired)));
        let gateways: Vec<Ipv4Addr> =
            desired.networks.iter().map(|network| network.gateway).collect();
        self.servers.retain(|gateway, _| gateways.contains(gateway));
        for gateway in gateways {
            let source =
                Source { zones: self.zones.subscribe(), forwarder: Arc::clone(&self.forwarder) };
            self.servers.entry(gateway).or_insert_with(|| {
                let address = SocketAddr::from((gateway, PORT));
                let udp = tokio::spawn(serve_udp(address, source.clone()));
                Server { tasks: [udp, tokio::spawn(serve_tcp(address, source))] }
            });
        }
    }
}

/// An agent that goes may hold the socket for a moment while the next one starts.
async fn bind<S, F: Future<Output = io::Result<S>>>(
    address: SocketAddr,
    open: impl Fn(SocketAddr) -> F,
) -> S {
    loop {
        match open(address).await {
            Ok(socket) => return socket,
            Err(error) => tracing::warn!(%address, %error, "no DNS socket yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn serve_udp(address: SocketAddr, source: Source) {
    let socket = Arc::new(bind(address, UdpSocket::bind).await);
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let query = buffer[..length].to_vec();
        let (source, socket) = (source.clone(), Arc::clone(&socket));
        tokio::spawn(async move {
            if let Some(response) = respond(&source, client, &query, true).await {
                // A client that went away asks again if it is still interested.
                let _ = socket.send_to(&response, client).await;
            }
        });
    }
}

async fn serve_tcp(address: SocketAddr, source: Source) {
    let listener = bind(address, TcpListener::bind).await;
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        tokio::spawn(serve_stream(stream, client, source.clone()));
    }
}

/// Messages with two bytes of length before each (RFC 1035, section 4.2.2).
async fn serve_stream(mut stream: TcpStream, client: SocketAddr, source: Source) {
    loop {
        let next = tokio::time::timeout(TCP_IDLE, async {
            let length = stream.read_u16().await?;
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await?;
            Ok::<_, io::Error>(query)
        });
        let Ok(Ok(query)) = next.await else { return };
        let Some(response) = respond(&source, client, &query, false).await else { return };
        let Ok(length) = u16::try_from(response.len()) else { return };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(response);
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

/// The response to send; none for what is no query.
async fn respond(
    source: &Source,
    client: SocketAddr,
    query: &[u8],
    datagram: bool,
) -> Option<Vec<u8>> {
    let zones = source.zones.borrow().clone();
    match answer::answer(&zones, client.ip(), query, datagram) {
        Answer::Response(response) => Some(response),
        Answer::Forward => Some(match source.forwarder.ask(query, datagram).await {
            Some(response) => response,
            None => answer::server_failure(query)?,
        }),
        Answer::Ignore => None,
    }
}
