//! Between the store's objects and the messages of `shoal.v1`.

use std::num::NonZeroU64;
use std::sync::Arc;

use shoal_proto::v1;
use shoal_proto::{IdError, StackId};

use super::change::Change;
use super::object::{
    Attachment, Cluster, Container, Key, Meta, Network, Node, Object, Payload, Service, Slot,
    Stack, Task, Vip,
};

/// A message that is not a whole object or change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// An id that is none.
    #[error(transparent)]
    Id(#[from] IdError),
    /// An address or a range that is none.
    #[error("{text:?} is not an address")]
    Address {
        /// The text as given.
        text: String,
    },
    /// A kind of object or change that this version does not know.
    #[error("unknown {what}; it was written by a newer version")]
    Unknown {
        /// Object or change.
        what: &'static str,
    },
}

fn address<T: std::str::FromStr>(text: &str) -> Result<T, ConvertError> {
    text.parse().map_err(|_| ConvertError::Address { text: text.to_owned() })
}

fn optional<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, ConvertError>,
) -> Result<Option<T>, ConvertError> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn text_of<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn stack_id(text: &str) -> Result<Option<StackId>, ConvertError> {
    optional(text, |text| Ok(text.parse()?))
}

impl From<&Meta> for v1::Meta {
    fn from(meta: &Meta) -> Self {
        Self {
            version: meta.version,
            created_at: Some(meta.created_at),
            updated_at: Some(meta.updated_at),
        }
    }
}

impl From<Option<v1::Meta>> for Meta {
    fn from(meta: Option<v1::Meta>) -> Self {
        let meta = meta.unwrap_or_default();
        Self {
            version: meta.version,
            created_at: meta.created_at.unwrap_or_default(),
            updated_at: meta.updated_at.unwrap_or_default(),
        }
    }
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            meta: Some((&node.meta).into()),
            spec: Some(node.spec.clone()),
            description: Some(node.description.clone()),
            status: Some(node.status.clone()),
            leader: false,
            raft_id: node.raft_id.map_or(0, NonZeroU64::get),
            manager: v1::ManagerState::None.into(),
        }
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = ConvertError;

    fn try_from(node: v1::Node) -> Result<Self, ConvertError> {
        Ok(Self {
            id: node.id.parse()?,
            meta: node.meta.into(),
            spec: node.spec.unwrap_or_default(),
            description: node.description.unwrap_or_default(),
            status: node.status.unwrap_or_default(),
            raft_id: NonZeroU64::new(node.raft_id),
        })
    }
}

impl From<&Vip> for v1::Vip {
    fn from(vip: &Vip) -> Self {
        Self { network_id: vip.network.to_string(), address: vip.address.to_string() }
    }
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        Self {
            id: service.id.to_string(),
            meta: Some((&service.meta).into()),
            spec: Some((*service.spec).clone()),
            stack_id: text_of(&service.stack),
            short_name: service.short_name.to_string(),
            spec_version: service.spec_version,
            vips: service.vips.iter().map(Into::into).collect(),
            ports: service.ports.clone(),
            removing: service.removing,
            revisions: service.revisions.to_vec(),
            last_spec_version: service.last_spec_version,
            update: Some(service.update.clone()),
            job: Some(service.job.clone()),
        }
    }
}

impl TryFrom<v1::Service> for Service {
    type Error = ConvertError;

    fn try_from(service: v1::Service) -> Result<Self, ConvertError> {
        let vip = |vip: v1::Vip| {
            Ok(Vip { network: vip.network_id.parse()?, address: address(&vip.address)? })
        };
        Ok(Self {
            id: service.id.parse()?,
            meta: service.meta.into(),
            spec: Arc::new(service.spec.unwrap_or_default()),
            stack: stack_id(&service.stack_id)?,
            short_name: service.short_name.into(),
            spec_version: service.spec_version,
            vips: service.vips.into_iter().map(vip).collect::<Result<_, ConvertError>>()?,
            ports: service.ports,
            removing: service.removing,
            revisions: service.revisions.into(),
            // Of before there were several: none was ever taken back.
            last_spec_version: service.last_spec_version.max(service.spec_version),
            update: service.update.unwrap_or_default(),
            job: service.job.unwrap_or_default(),
        })
    }
}

impl From<&Attachment> for v1::NetworkAttachment {
    fn from(attachment: &Attachment) -> Self {
        Self {
            network_id: attachment.network.to_string(),
            address: attachment.address.to_string(),
            aliases: attachment.aliases.clone(),
        }
    }
}

impl TryFrom<v1::NetworkAttachment> for Attachment {
    type Error = ConvertError;

    fn try_from(attachment: v1::NetworkAttachment) -> Result<Self, ConvertError> {
        Ok(Self {
            network: attachment.network_id.parse()?,
            address: address(&attachment.address)?,
            aliases: attachment.aliases,
        })
    }
}

impl From<&Task> for v1::Task {
    fn from(task: &Task) -> Self {
        Self {
            id: task.id.to_string(),
            meta: Some((&task.meta).into()),
            service_id: task.service.to_string(),
            service_name: task.service_name.to_string(),
            slot: task.slot.0,
            node_id: text_of(&task.node),
            spec: Some((*task.spec).clone()),
            spec_version: task.spec_version,
            desired_state: task.desired.into(),
            status: Some(task.status.clone()),
            networks: task.networks.iter().map(Into::into).collect(),
            ports: task.ports.clone(),
            not_before: task.not_before,
            failures: task.failures,
            waiting_for: task.waiting_for.clone(),
            generic_resources: task.generic_resources.clone(),
            stop_reason: task.stop_reason.clone(),
            only_node_id: text_of(&task.only_node),
            job_iteration: task.job_iteration,
            moving: task.moving,
        }
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = ConvertError;

    fn try_from(task: v1::Task) -> Result<Self, ConvertError> {
        Ok(Self {
            id: task.id.parse()?,
            meta: task.meta.into(),
            service: task.service_id.parse()?,
            service_name: task.service_name.as_str().into(),
            slot: Slot(task.slot),
            node: optional(&task.node_id, |text| Ok(text.parse()?))?,
            spec_version: task.spec_version,
            desired: task.desired_state(),
            spec: Arc::new(task.spec.unwrap_or_default()),
            status: task.status.unwrap_or_default(),
            networks: task
                .networks
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, ConvertError>>()?,
            ports: task.ports,
            not_before: task.not_before,
            failures: task.failures,
            waiting_for: task.waiting_for,
            generic_resources: task.generic_resources,
            stop_reason: task.stop_reason,
            only_node: optional(&task.only_node_id, |text| Ok(text.parse()?))?,
            job_iteration: task.job_iteration,
            moving: task.moving,
        })
    }
}

impl From<&Network> for v1::Network {
    fn from(network: &Network) -> Self {
        Self {
            id: network.id.to_string(),
            meta: Some((&network.meta).into()),
            spec: Some((*network.spec).clone()),
            stack_id: text_of(&network.stack),
            subnet: text_of(&network.subnet),
            gateway: text_of(&network.gateway),
        }
    }
}

impl TryFrom<v1::Network> for Network {
    type Error = ConvertError;

    fn try_from(network: v1::Network) -> Result<Self, ConvertError> {
        Ok(Self {
            id: network.id.parse()?,
            meta: network.meta.into(),
            spec: Arc::new(network.spec.unwrap_or_default()),
            stack: stack_id(&network.stack_id)?,
            subnet: optional(&network.subnet, address)?,
            gateway: optional(&network.gateway, address)?,
        })
    }
}

impl From<&Stack> for v1::Stack {
    fn from(stack: &Stack) -> Self {
        Self {
            id: stack.id.to_string(),
            meta: Some((&stack.meta).into()),
            spec: Some((*stack.spec).clone()),
            revision: stack.revision,
            removing: stack.removing,
        }
    }
}

impl TryFrom<v1::Stack> for Stack {
    type Error = ConvertError;

    fn try_from(stack: v1::Stack) -> Result<Self, ConvertError> {
        Ok(Self {
            id: stack.id.parse()?,
            meta: stack.meta.into(),
            spec: Arc::new(stack.spec.unwrap_or_default()),
            revision: stack.revision,
            removing: stack.removing,
        })
    }
}

impl From<&Cluster> for v1::Cluster {
    fn from(cluster: &Cluster) -> Self {
        Self { meta: Some((&cluster.meta).into()), state: Some(cluster.state.clone()) }
    }
}

impl From<v1::Cluster> for Cluster {
    fn from(cluster: v1::Cluster) -> Self {
        Self { meta: cluster.meta.into(), state: cluster.state.unwrap_or_default() }
    }
}

impl From<&Payload> for v1::Payload {
    fn from(payload: &Payload) -> Self {
        Self {
            id: payload.id.to_string(),
            meta: Some((&payload.meta).into()),
            spec: Some((*payload.spec).clone()),
            number: payload.number,
            data: payload.data.to_vec(),
            stack_id: text_of(&payload.stack),
        }
    }
}

impl TryFrom<v1::Payload> for Payload {
    type Error = ConvertError;

    fn try_from(payload: v1::Payload) -> Result<Self, ConvertError> {
        Ok(Self {
            id: payload.id.parse()?,
            meta: payload.meta.into(),
            spec: Arc::new(payload.spec.unwrap_or_default()),
            number: payload.number,
            data: payload.data.into(),
            stack: stack_id(&payload.stack_id)?,
        })
    }
}

impl From<&Container> for v1::Container {
    fn from(container: &Container) -> Self {
        Self {
            id: container.id.to_string(),
            meta: Some((&container.meta).into()),
            node_id: container.node.to_string(),
            names: container.names.clone(),
            networks: container.networks.iter().map(Into::into).collect(),
            running: container.running,
        }
    }
}

impl TryFrom<v1::Container> for Container {
    type Error = ConvertError;

    fn try_from(container: v1::Container) -> Result<Self, ConvertError> {
        let networks = container.networks.into_iter().map(TryInto::try_into);
        Ok(Self {
            id: container.id.parse()?,
            meta: container.meta.into(),
            node: container.node_id.parse()?,
            names: container.names,
            networks: networks.collect::<Result<_, ConvertError>>()?,
            running: container.running,
        })
    }
}

impl From<&Object> for v1::Object {
    fn from(object: &Object) -> Self {
        use v1::object::Object as Wire;
        let object = match object {
            Object::Node(object) => Wire::Node((&**object).into()),
            Object::Service(object) => Wire::Service((&**object).into()),
            Object::Task(object) => Wire::Task((&**object).into()),
            Object::Network(object) => Wire::Network((&**object).into()),
            Object::Stack(object) => Wire::Stack((&**object).into()),
            Object::Cluster(object) => Wire::Cluster((&**object).into()),
            Object::Payload(object) => Wire::Payload((&**object).into()),
            Object::Container(object) => Wire::Container((&**object).into()),
        };
        Self { object: Some(object) }
    }
}

impl TryFrom<v1::Object> for Object {
    type Error = ConvertError;

    fn try_from(object: v1::Object) -> Result<Self, ConvertError> {
        use v1::object::Object as Wire;
        Ok(match object.object.ok_or(ConvertError::Unknown { what: "object" })? {
            Wire::Node(object) => Node::try_from(object)?.into(),
            Wire::Service(object) => Service::try_from(object)?.into(),
            Wire::Task(object) => Task::try_from(object)?.into(),
            Wire::Network(object) => Network::try_from(object)?.into(),
            Wire::Stack(object) => Stack::try_from(object)?.into(),
            Wire::Cluster(object) => Cluster::from(object).into(),
            Wire::Payload(object) => Payload::try_from(object)?.into(),
            Wire::Container(object) => Container::try_from(object)?.into(),
        })
    }
}

impl From<&Change> for v1::Change {
    fn from(change: &Change) -> Self {
        use v1::change::Change as Wire;
        let (expected_version, change) = match change {
            Change::Put { expected, object } => (*expected, Wire::Put(object.into())),
            Change::Delete { expected, key } => (*expected, Wire::Delete((*key).into())),
            Change::Expect { version, key } => (*version, Wire::Expect((*key).into())),
            Change::Report { task, status } => {
                let report =
                    v1::TaskReport { task_id: task.to_string(), status: Some(status.clone()) };
                (0, Wire::Report(report))
            }
        };
        Self { expected_version, change: Some(change) }
    }
}

impl TryFrom<v1::Change> for Change {
    type Error = ConvertError;

    fn try_from(change: v1::Change) -> Result<Self, ConvertError> {
        use v1::change::Change as Wire;
        let expected = change.expected_version;
        Ok(match change.change.ok_or(ConvertError::Unknown { what: "change" })? {
            Wire::Put(object) => Self::Put { expected, object: object.try_into()? },
            Wire::Delete(key) => Self::Delete { expected, key: key.try_into()? },
            Wire::Expect(key) => Self::Expect { version: expected, key: key.try_into()? },
            Wire::Report(report) => Self::Report {
                task: report.task_id.parse()?,
                status: report.status.unwrap_or_default(),
            },
        })
    }
}

impl From<Key> for v1::ObjectKey {
    fn from(key: Key) -> Self {
        let (kind, id) = match key {
            Key::Node(id) => (v1::ObjectKind::Node, id.to_string()),
            Key::Service(id) => (v1::ObjectKind::Service, id.to_string()),
            Key::Task(id) => (v1::ObjectKind::Task, id.to_string()),
            Key::Network(id) => (v1::ObjectKind::Network, id.to_string()),
            Key::Stack(id) => (v1::ObjectKind::Stack, id.to_string()),
            Key::Cluster => (v1::ObjectKind::Cluster, String::new()),
            Key::Payload(id) => (v1::ObjectKind::Payload, id.to_string()),
            Key::Container(id) => (v1::ObjectKind::Container, id.to_string()),
        };
        Self { kind: kind.into(), id }
    }
}

impl TryFrom<v1::ObjectKey> for Key {
    type Error = ConvertError;

    fn try_from(key: v1::ObjectKey) -> Result<Self, ConvertError> {
        Ok(match key.kind() {
            v1::ObjectKind::Node => Self::Node(key.id.parse()?),
            v1::ObjectKind::Service => Self::Service(key.id.parse()?),
            v1::ObjectKind::Task => Self::Task(key.id.parse()?),
            v1::ObjectKind::Network => Self::Network(key.id.parse()?),
            v1::ObjectKind::Stack => Self::Stack(key.id.parse()?),
            v1::ObjectKind::Cluster => Self::Cluster,
            v1::ObjectKind::Payload => Self::Payload(key.id.parse()?),
            v1::ObjectKind::Container => Self::Container(key.id.parse()?),
            v1::ObjectKind::Unspecified => return Err(ConvertError::Unknown { what: "object" }),
        })
    }
}
