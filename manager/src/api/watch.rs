//! A stream of what there is and what becomes of it.

use std::collections::BTreeSet;
use std::pin::Pin;

use shoal_core::lookup::{self, LookupError};
use shoal_core::store::{Event, Key, Object, Store};
use shoal_proto::v1::watch_event::Event as Wire;
use shoal_proto::v1::{RemovedObject, WatchEvent, WatchRequest};
use shoal_proto::{NodeId, ServiceId, StackId};
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tonic::Status;

use super::view;
use crate::raft::Raft;

/// Which objects a watch is about. Services are remembered, so that the end of a task is told
/// even when its service went with it.
struct Filter {
    all: bool,
    stack: Option<StackId>,
    services: BTreeSet<ServiceId>,
    node: Option<NodeId>,
}

impl Filter {
    fn parse(store: &Store, request: &WatchRequest) -> Result<Self, LookupError> {
        let stack = match request.stack.as_str() {
            "" => None,
            name => Some(lookup::stack(store, name)?.id),
        };
        let mut services = BTreeSet::new();
        if !request.service.is_empty() {
            services.insert(lookup::service(store, &request.service)?.id);
        }
        let node = match request.node.as_str() {
            "" => None,
            name => Some(lookup::node(store, name)?.id),
        };
        let all = stack.is_none() && services.is_empty() && node.is_none();
        Ok(Self { all, stack, services, node })
    }

    fn wants(&mut self, object: &Object) -> bool {
        if self.all {
            return true;
        }
        match object {
            Object::Service(service) => {
                if self.stack.is_some() && service.stack == self.stack {
                    self.services.insert(service.id);
                }
                self.services.contains(&service.id)
            }
            Object::Task(task) => {
                self.services.contains(&task.service)
                    || (self.node.is_some() && task.node == self.node)
            }
            Object::Network(network) => self.stack.is_some() && network.stack == self.stack,
            Object::Stack(stack) => self.stack == Some(stack.id),
            Object::Node(node) => self.node == Some(node.id),
            Object::Cluster(_) | Object::Payload(_) | Object::Container(_) => false,
        }
    }
}

/// None for what is the managers' own: the cluster's object holds the secrets of its tokens,
/// payloads are asked for one by one, and single containers at their nodes.
fn wire(object: &Object) -> Option<WatchEvent> {
    let event = match object {
        Object::Node(object) => Wire::Node((&**object).into()),
        Object::Service(object) => Wire::Service(view::brief(object)),
        Object::Task(object) => Wire::Task((&**object).into()),
        Object::Network(object) => Wire::Network((&**object).into()),
        Object::Stack(object) => Wire::Stack((&**object).into()),
        Object::Cluster(_) | Object::Payload(_) | Object::Container(_) => return None,
    };
    Some(WatchEvent { event: Some(event) })
}

fn removed(object: &Object) -> Option<WatchEvent> {
    let (kind, id) = match object.key() {
        Key::Node(id) => ("node", id.to_string()),
        Key::Service(id) => ("service", id.to_string()),
        Key::Task(id) => ("task", id.to_string()),
        Key::Network(id) => ("network", id.to_string()),
        Key::Stack(id) => ("stack", id.to_string()),
        Key::Cluster | Key::Payload(_) | Key::Container(_) => return None,
    };
    let object = RemovedObject { kind: kind.to_owned(), id };
    Some(WatchEvent { event: Some(Wire::Removed(object)) })
}

type Events = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

pub(super) fn stream(raft: Raft, request: WatchRequest) -> Result<Events, LookupError> {
    let (store, mut commits) = raft.commits();
    let mut filter = Filter::parse(&store, &request)?;
    Ok(Box::pin(async_stream::try_stream! {
        for object in store.objects() {
            if filter.wants(&object) && let Some(event) = wire(&object) {
                yield event;
            }
        }
        yield WatchEvent { event: Some(Wire::Synced(true)) };
        let first = store.version();
        drop(store);
        loop {
            let commit = match commits.recv().await {
                Ok(commit) => commit,
                Err(RecvError::Closed) => return,
                Err(RecvError::Lagged(missed)) => Err(Status::data_loss(format!(
                    "{missed} changes came faster than they were read; watch again"
                )))?,
            };
            if commit.index <= first {
                continue;
            }
            if commit.whole {
                Err(Status::data_loss("this manager has caught up all at once; watch again"))?;
            }
            for event in commit.events.iter() {
                let told = match event {
                    Event::Put { new, .. } if filter.wants(new) => wire(new),
                    Event::Deleted(old) if filter.wants(old) => removed(old),
                    _ => None,
                };
                if let Some(told) = told {
                    yield told;
                }
            }
        }
    }))
}
