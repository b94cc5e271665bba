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

struct Flow {
    target: SocketAddr,
    packets: mpsc::Sender<Vec<u8>>,
}

pub(super) async fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(address).await
}

pub(super) async fn serve(socket: UdpSocket, key: PortKey, targets: watch::Receiver<Targets>) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut turn: usize = 0;
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let packet = buffer[..length].to_vec();
        let choice = targets.borrow().get(&key).cloned().unwrap_or_default();
        if let Some(flow) = flows.get(&client)
            && !flow.packets.is_closed()
            && choice.contains(flow.target)
        {
            // A flow that can't keep up loses packets, as UDP may.
            let _ = flow.packets.try_send(packet);
            continue;
        }
        turn = turn.wrapping_add(1);
        let order = choice.order(client.ip().to_canonical(), turn);
        let Some(target) = order.first().copied() else { continue };
        if flows.len() >= MAX_FLOWS {
            flows.retain(|_, flow| !flow.packets.is_closed());
        }
        if flows.len() >= MAX_FLOWS {
            continue;
        }
        let (packets, receiver) = mpsc::channel(BACKLOG);
        let _ = packets.try_send(packet);
        // One that leads to an endpoint that has gone ends with this.
        flows.insert(client, Flow { target, packets });
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
