//! Queries for the rest of the world: handed to the host's resolvers as they are, and the answer
//! handed back as it is.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// For one try with one resolver.
const PATIENCE: Duration = Duration::from_secs(2);
/// Resolvers that are asked one after the other, as the C library does.
const MAX_SERVERS: usize = 3;

pub(super) struct Forwarder {
    resolv_conf: PathBuf,
}

impl Forwarder {
    pub(super) fn new(resolv_conf: PathBuf) -> Self {
        Self { resolv_conf }
    }

    /// The first answer that a resolver gives; none when all are silent. The file is read each
    /// time: hosts change networks.
    pub(super) async fn ask(&self, query: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let text = fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        for server in servers(&text) {
            let asked = async {
                if datagram { ask_udp(server, query).await } else { ask_tcp(server, query).await }
            };
            if let Ok(Some(response)) = timeout(PATIENCE, asked).await {
                return Some(response);
            }
        }
        None
    }
}

fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let lines = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    lines.take(MAX_SERVERS).map(|address| SocketAddr::from((address, 53))).collect()
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let own: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((own, 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(query).await.ok()?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.ok()?;
        // Another id is a stray or forged packet (RFC 5452).
        if length >= 12 && buffer.get(..2) == query.get(..2) {
            buffer.truncate(length);
            return Some(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.ok()?;
    let length = u16::try_from(query.len()).ok()?;
    stream.write_all(&length.to_be_bytes()).await.ok()?;
    stream.write_all(query).await.ok()?;
    let length = stream.read_u16().await.ok()?;
    let mut response = vec![0; length.into()];
    stream.read_exact(&mut response).await.ok()?;
    Some(response)
}
