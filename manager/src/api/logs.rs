//! Logs of a stack, a service or a task, from all nodes that have a part of them.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use shoal_core::lookup::{self, LookupError};
use shoal_core::store::{Store, Task};
use shoal_proto::v1::{LogEntry, LogOptions, LogsRequest, TaskState};
use shoal_proto::{NodeId, ServiceId, StackId, TaskId};
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tonic::Status;

use crate::logs::{LogBroker, Subscription};
use crate::raft::Raft;

/// Whose logs.
pub(super) enum Selection {
    Stack(StackId),
    Service(ServiceId),
    Task(TaskId),
}

impl Selection {
    pub(super) fn parse(store: &Store, request: &LogsRequest) -> Result<Self, LookupError> {
        if !request.stack.is_empty() {
            return Ok(Self::Stack(lookup::stack(store, &request.stack)?.id));
        }
        if !request.task.is_empty() {
            return Ok(Self::Task(lookup::task(store, &request.task)?.id));
        }
        match lookup::service(store, &request.service) {
            Ok(service) => Ok(Self::Service(service.id)),
            // As in Docker, a task will do where a service is asked for.
            Err(error) => match lookup::task(store, &request.service) {
                Ok(task) => Ok(Self::Task(task.id)),
                Err(_) => Err(error),
            },
        }
    }

    fn has(&self, store: &Store, task: &Task) -> bool {
        match self {
            Self::Stack(stack) => {
                store.service(task.service).is_some_and(|s| s.stack == Some(*stack))
            }
            Self::Service(service) => task.service == *service,
            Self::Task(id) => task.id == *id,
        }
    }

    /// Tasks that have or will have a log, by node, without those asked for already.
    fn tasks(&self, store: &Store, asked: &BTreeSet<TaskId>) -> BTreeMap<NodeId, BTreeSet<TaskId>> {
        let mut tasks: BTreeMap<NodeId, BTreeSet<TaskId>> = BTreeMap::new();
        for task in store.tasks() {
            if let Some(node) = task.node
                && task.state() >= TaskState::Starting
                && !asked.contains(&task.id)
                && self.has(store, task)
            {
                tasks.entry(node).or_default().insert(task.id);
            }
        }
        tasks
    }
}

type Entries = Pin<Box<dyn Stream<Item = Result<LogEntry, Status>> + Send>>;

/// When following, tasks that come later are read from their beginning.
pub(super) fn stream(
    raft: Raft,
    broker: Arc<LogBroker>,
    selection: Selection,
    options: LogOptions,
) -> Entries {
    Box::pin(async_stream::try_stream! {
        let mut commits = raft.commits().1;
        let mut subscription = broker.subscribe();
        let mut asked = BTreeSet::new();
        for error in ask(&raft.store(), &selection, &mut asked, &mut subscription, &options) {
            yield error;
        }
        if !options.follow {
            subscription.close();
        }
        let later = LogOptions { tail: -1, ..options };
        loop {
            let entry = tokio::select! {
                entry = subscription.next() => entry,
                () = raft.deposed() => break,
                commit = commits.recv(), if options.follow => {
                    // Lagging is no loss here: the newest state has every task.
                    if matches!(commit, Err(RecvError::Closed)) {
                        return;
                    }
                    let store = raft.store();
                    for error in ask(&store, &selection, &mut asked, &mut subscription, &later) {
                        yield error;
                    }
                    continue;
                }
            };
            match entry {
                Some(entry) => yield entry,
                None => return,
            }
        }
        Err(Status::unavailable("the leader changed; read the logs again"))?;
    })
}

/// Asks the nodes of further tasks; returns what to tell the reader of those out of reach.
fn ask(
    store: &Store,
    selection: &Selection,
    asked: &mut BTreeSet<TaskId>,
    subscription: &mut Subscription<'_>,
    options: &LogOptions,
) -> Vec<LogEntry> {
    let mut errors = Vec::new();
    for (node, tasks) in selection.tasks(store, asked) {
        let ids = tasks.iter().map(ToString::to_string).collect();
        asked.extend(tasks);
        if !subscription.ask(node, &ids, *options) {
            let name = store.node(node).map_or_else(|| node.to_string(), |n| n.spec.name.clone());
            errors.push(LogEntry {
                node_id: node.to_string(),
                error: format!("node {name} can't be reached; its part of the logs is missing"),
                ..LogEntry::default()
            });
        }
    }
    errors
}
