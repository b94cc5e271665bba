//! Sends the logs that a manager has subscribed to.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_proto::time::{system_time, timestamp};
use shoal_proto::v1::dispatcher_client::DispatcherClient;
use shoal_proto::v1::{LogEntry, LogOptions, LogStream, LogSubscription, PublishLogsRequest};
use shoal_runtime::{LogQuery, LogReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::node::Node;

/// Entries in one message.
const BATCH: usize = 200;
/// Messages that wait for the connection.
const BACKLOG: usize = 4;
/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The subscriptions of a session; they end with it.
pub(super) struct Publishers {
    node: Node,
    channel: Channel,
    running: BTreeMap<String, JoinHandle<()>>,
}

impl Publishers {
    pub(super) fn new(node: Node, channel: Channel) -> Self {
        Self { node, channel, running: BTreeMap::new() }
    }

    pub(super) fn take(&mut self, subscription: LogSubscription) {
        self.running.retain(|_, publisher| !publisher.is_finished());
        if subscription.close {
            if let Some(publisher) = self.running.remove(&subscription.id) {
                publisher.abort();
            }
            return;
        }
        let id = subscription.id.clone();
        let publisher = publish(self.node.clone(), self.channel.clone(), subscription);
        self.running.insert(id, tokio::spawn(publisher));
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.running.values().for_each(JoinHandle::abort);
    }
}

async fn publish(node: Node, channel: Channel, subscription: LogSubscription) {
    let (sender, stream) = mpsc::channel(BACKLOG);
    let read = tokio::spawn(read(node, subscription, sender));
    let mut client = DispatcherClient::new(channel);
    if let Err(error) = client.publish_logs(ReceiverStream::new(stream)).await {
        // The reader has gone, mostly.
        tracing::debug!(%error, "log subscription");
    }
    read.abort();
}

/// One task's log.
struct Source {
    task: String,
    service: String,
    slot: u64,
    reader: LogReader,
}

async fn read(node: Node, subscription: LogSubscription, sender: mpsc::Sender<PublishLogsRequest>) {
    let options = subscription.options.unwrap_or_default();
    let assigned = node.statuses.assignments();
    let mut sources: Vec<Source> = subscription
        .task_ids
        .iter()
        .filter_map(|task| open(&node, &assigned, task, &options))
        .collect();
    let send = async |entries: Vec<LogEntry>| {
        let subscription_id = subscription.id.clone();
        let part = PublishLogsRequest { subscription_id, entries, error: String::new() };
        sender.send(part).await.is_ok()
    };
    loop {
        let mut entries = Vec::new();
        for source in &mut sources {
            entries.extend(source.take(&node));
        }
        entries.sort_by_key(|entry| entry.time.map(|time| (time.seconds, time.nanos)));
        let more = entries.len() >= BATCH;
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len().min(BATCH));
            if !send(std::mem::replace(&mut entries, rest)).await {
                return;
            }
        }
        if more {
            continue;
        }
        if !options.follow {
            // Also says that there was nothing, when there was nothing.
            send(Vec::new()).await;
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

fn open(
    node: &Node,
    assigned: &shoal_proto::v1::Assignments,
    id: &str,
    options: &LogOptions,
) -> Option<Source> {
    use shoal_proto::v1::assignment_change::Change;
    let task = assigned.changes.iter().find_map(|change| match &change.change {
        Some(Change::Task(task)) if task.id == id => Some(task),
        _ => None,
    })?;
    let query = LogQuery {
        tail: usize::try_from(options.tail).ok(),
        since: options.since.as_ref().map(system_time),
        until: options.until.as_ref().map(system_time),
    };
    match LogReader::open(&node.log_path(id), query) {
        Ok(reader) => Some(Source {
            task: id.to_owned(),
            service: task.service_name.clone(),
            slot: task.slot,
            reader,
        }),
        Err(error) => {
            tracing::warn!(task.id = id, %error, "can't read the log");
            None
        }
    }
}

impl Source {
    /// What is there now, at most a batch.
    fn take(&mut self, node: &Node) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        while entries.len() < BATCH {
            let Ok(Some(entry)) = self.reader.next_ready() else { break };
            let stream = if entry.stderr { LogStream::Stderr } else { LogStream::Stdout };
            entries.push(LogEntry {
                task_id: self.task.clone(),
                service_name: self.service.clone(),
                slot: self.slot,
                node_id: node.id.to_string(),
                time: Some(timestamp(entry.time)),
                stream: stream.into(),
                line: entry.line,
                error: String::new(),
            });
        }
        entries
    }
}
