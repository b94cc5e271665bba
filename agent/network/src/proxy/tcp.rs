//! TCP: a connection in, a connection out, bytes both ways.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Targets;
use crate::ports::PortKey;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Out of file descriptors: wait for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

pub(super) async fn serve(listener: TcpListener, key: PortKey, targets: watch::Receiver<Targets>) {
    let mut turn: usize = 0;
    loop {
        let client = match listener.accept().await {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(port = key.port, %error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        turn = turn.wrapping_add(1);
        let (client, address) = client;
        let choice = targets.borrow().get(&key).cloned().unwrap_or_default();
        tokio::spawn(forward(client, choice.order(address.ip().to_canonical(), turn)));
    }
}

/// Tries each endpoint once. With none to be had, the client's connection is closed.
async fn forward(mut client: TcpStream, endpoints: Vec<SocketAddr>) {
    for target in endpoints {
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target));
        let Ok(Ok(mut server)) = connect.await else { continue };
        // Small writes go out at once; a socket that can't is only slower.
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        // Either side breaking off ends both; there is nobody to tell.
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return;
    }
}
