//! The way to one other manager.

use std::time::Duration;

use shoal_proto::v1::RaftPart;
use shoal_proto::v1::raft_client::RaftClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{PART, Sender, lose};
use crate::peers::Peers;
use crate::raft::Outgoing;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// Parts that wait for the connection.
const BACKLOG: usize = 8;

/// Sends what comes until raft has gone.
pub(super) async fn run(
    to: u64,
    sender: Sender,
    peers: Peers,
    mut inbox: mpsc::Receiver<Outgoing>,
) {
    let mut retry = FIRST_RETRY;
    let mut told = false;
    while let Some(first) = inbox.recv().await {
        match peers.connect(to).await {
            Ok(channel) => {
                retry = FIRST_RETRY;
                if told {
                    tracing::info!(raft.peer = to, "the manager is back");
                    told = false;
                }
                let error = stream(to, &sender, &peers, channel, first, &mut inbox).await;
                if let Some(error) = error {
                    tracing::info!(raft.peer = to, error, "the connection to a manager is over");
                }
            }
            Err(error) => {
                if !told {
                    tracing::warn!(raft.peer = to, %error, "a manager can't be reached");
                    told = true;
                }
                lose(&peers, &first);
            }
        }
        // What waits meanwhile would be old when it arrived.
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
        while let Ok(message) = inbox.try_recv() {
            lose(&peers, &message);
        }
    }
}

/// Sends over one connection until it breaks; why it did, when that is to be told.
async fn stream(
    to: u64,
    sender: &Sender,
    peers: &Peers,
    channel: Channel,
    first: Outgoing,
    inbox: &mut mpsc::Receiver<Outgoing>,
) -> Option<String> {
    let (parts, outbound) = mpsc::channel(BACKLOG);
    let mut client = RaftClient::new(channel.clone());
    let call = client.step(ReceiverStream::new(outbound));
    tokio::pin!(call);
    let mut next = Some(first);
    let feed = async {
        let hello = RaftPart {
            from: sender.raft_id,
            address: sender.address.clone(),
            ..RaftPart::default()
        };
        if parts.send(hello).await.is_err() {
            return;
        }
        while let Some(message) = match next.take() {
            Some(first) => Some(first),
            None => inbox.recv().await,
        } {
            // What has come meanwhile goes along.
            let mut batch = Vec::new();
            let mut size = 0;
            let mut more = Some(message);
            while let Some(message) = more {
                if message.is_snapshot {
                    tokio::spawn(send_snapshot(peers.clone(), channel.clone(), message));
                } else if message.bytes.len() > PART {
                    for piece in pieces(&message.bytes) {
                        if parts.send(piece).await.is_err() {
                            return;
                        }
                    }
                } else {
                    size += message.bytes.len();
                    batch.push(message.bytes);
                }
                more = if size < PART { inbox.try_recv().ok() } else { None };
            }
            let part = RaftPart { messages: batch, ..RaftPart::default() };
            if !part.messages.is_empty() && parts.send(part).await.is_err() {
                return;
            }
        }
    };
    let ended = tokio::select! {
        answer = &mut call => answer.err().map(|status| status.message().to_owned()),
        () = feed => None,
    };
    if let Some(raft) = peers.raft() {
        raft.unreachable(to);
    }
    ended
}

fn pieces(bytes: &[u8]) -> impl Iterator<Item = RaftPart> + '_ {
    let count = bytes.len().div_ceil(PART);
    bytes.chunks(PART).enumerate().map(move |(index, piece)| RaftPart {
        piece: piece.to_vec(),
        is_last: index + 1 == count,
        ..RaftPart::default()
    })
}

/// A call of its own; raft is told how it went.
async fn send_snapshot(peers: Peers, channel: Channel, snapshot: Outgoing) {
    let Outgoing { to, bytes, .. } = snapshot;
    let parts = async_stream::stream! {
        for part in pieces(&bytes) {
            yield part;
        }
    };
    let sent = RaftClient::new(channel).step(parts).await;
    if let Err(status) = &sent {
        tracing::warn!(raft.peer = to, error = status.message(), "a snapshot did not arrive");
    }
    if let Some(raft) = peers.raft() {
        raft.sent_snapshot(to, sent.is_ok());
    }
}
