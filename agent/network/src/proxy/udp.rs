//! UDP: a flow for each client address, which ends when it has been quiet for a while.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use super::Targets;
use crate::ports::PortKey;

/// As long as the kernel remembers an answered flow (nf_conntrack_udp_timeout_stream).
const IDLE: Duration = Duration::from_secs(120);
/// Flows at the same time; packets of further clients are dropped.
const MAX_FLOWS: usize = 4096;
/// Packets of one flow that wait for its socket.
const BACKLOG: usize = 64;

pub(super) async fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(address).await
}

pub(super) async fn serve(socket: UdpSocket, key: PortKey, targets: watch::Receiver<Targets>) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut turn: usize = 0;
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let packet = buffer[..length].to_vec();
        if let Some(flow) = flows.get(&client)
            && !flow.is_closed()
        {
            // A flow that can't keep up loses packets, as UDP may.
            let _ = flow.try_send(packet);
            continue;
        }
        let endpoints = targets.borrow().get(&key).cloned().unwrap_or_default();
        if endpoints.is_empty() {
            continue;
        }
        if flows.len() >= MAX_FLOWS {
            flows.retain(|_, flow| !flow.is_closed());
        }
        if flows.len() >= MAX_FLOWS {
            continue;
        }
        turn = turn.wrapping_add(1);
        let target = endpoints[turn % endpoints.len()];
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let _ = sender.try_send(packet);
        flows.insert(client, sender);
        tokio::spawn(flow(Arc::clone(&socket), client, target, receiver));
    }
}

/// Ends after a quiet time, or when the endpoint refuses.
async fn flow(
    outside: Arc<UdpSocket>,
    client: SocketAddr,
    target: SocketAddr,
    mut packets: mpsc::Receiver<Vec<u8>>,
) {
    let Ok(inside) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { return };
    if inside.connect(target).await.is_err() {
        return;
    }
    let mut buffer = vec![0; 65_536];
    loop {
        let step = tokio::time::timeout(IDLE, async {
            tokio::select! {
                packet = packets.recv() => match packet {
                    Some(packet) => inside.send(&packet).await.map(drop),
                    None => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
                },
                received = inside.recv(&mut buffer) => match received {
                    Ok(length) => outside.send_to(&buffer[..length], client).await.map(drop),
                    Err(error) => Err(error),
                },
            }
        });
        if !matches!(step.await, Ok(Ok(()))) {
            return;
        }
    }
}
