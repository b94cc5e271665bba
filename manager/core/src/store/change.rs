//! Changes as control loops and the API propose them, and what the store answers.

use shoal_proto::TaskId;
use shoal_proto::v1::TaskStatus;

use super::object::{Key, Meta, Object, Task};
use crate::context::Context;

/// One step of a change set.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Makes the object, or replaces the version that the writer had read.
    Put {
        /// The version read; 0 for an object that must not exist yet.
        expected: u64,
        /// The new content; its version is set when it commits.
        object: Object,
    },
    /// Takes the object away.
    Delete {
        /// The version read.
        expected: u64,
        /// Which.
        key: Key,
    },
    /// Does nothing; the object must still be of that version.
    Expect {
        /// The version read.
        version: u64,
        /// Which.
        key: Key,
    },
    /// An agent's report of a task. One that would lower the state, or of a task that is gone, is dropped.
    Report {
        /// Which task.
        task: TaskId,
        /// What its agent saw.
        status: TaskStatus,
    },
}

/// Why a change set was refused. Nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Someone else changed the object first. Read again and retry.
    #[error("{key} changed meanwhile: expected version {expected}, found {found}")]
    Stale {
        /// The object.
        key: Key,
        /// The version the writer had read.
        expected: u64,
        /// The version there is; 0 for none.
        found: u64,
    },
    /// Two objects of a kind may not have the same name.
    #[error("the name {name:?} is taken by {holder}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        holder: Key,
    },
    /// Two holders of one address on one network.
    #[error("address {address} of network {network} is held by {holder}")]
    AddressTaken {
        /// The address.
        address: std::net::IpAddr,
        /// The network's id.
        network: shoal_proto::NetworkId,
        /// Who has it.
        holder: Key,
    },
}

/// What a committed change did.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An object is new or has changed.
    Put {
        /// Before; none for a new object.
        old: Option<Object>,
        /// Now.
        new: Object,
    },
    /// An object is gone.
    Deleted(Object),
}

impl Event {
    /// Which object it is about.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Put { new, .. } => new.key(),
            Self::Deleted(object) => object.key(),
        }
    }

    /// The task before and after, when it is about a task.
    #[must_use]
    pub fn task(&self) -> Option<(Option<&Task>, Option<&Task>)> {
        match self {
            Self::Put { old, new: Object::Task(new) } => {
                let old = match old {
                    Some(Object::Task(task)) => Some(&**task),
                    _ => None,
                };
                Some((old, Some(new)))
            }
            Self::Deleted(Object::Task(task)) => Some((Some(task), None)),
            _ => None,
        }
    }
}

/// Gathers changes and stamps their times.
#[derive(Debug, Default)]
pub struct Changes {
    list: Vec<Change>,
}

/// An object whose version and times can be set.
pub trait Stamped: Into<Object> {
    /// Version and times.
    fn meta_mut(&mut self) -> &mut Meta;
}

macro_rules! stamped {
    ($($name:ident)*) => {$(
        impl Stamped for super::object::$name {
            fn meta_mut(&mut self) -> &mut Meta {
                &mut self.meta
            }
        }
    )*};
}

stamped! { Node Service Task Network Stack Cluster Payload Container }

impl Changes {
    /// Makes an object that must not exist yet.
    pub fn create<T: Stamped>(&mut self, context: &Context<'_>, mut object: T) {
        let meta = object.meta_mut();
        meta.created_at = context.stamp();
        meta.updated_at = context.stamp();
        self.list.push(Change::Put { expected: 0, object: object.into() });
    }

    /// Replaces the version that `object.meta.version` names.
    pub fn update<T: Stamped>(&mut self, context: &Context<'_>, mut object: T) {
        let meta = object.meta_mut();
        meta.updated_at = context.stamp();
        let expected = meta.version;
        self.list.push(Change::Put { expected, object: object.into() });
    }

    /// Takes away the version that was read.
    pub fn delete(&mut self, object: &Object) {
        self.list.push(Change::Delete { expected: object.meta().version, key: object.key() });
    }

    /// States what the changes rest on without changing it.
    pub fn expect(&mut self, object: &Object) {
        self.list.push(Change::Expect { version: object.meta().version, key: object.key() });
    }

    /// Nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The changes in the order they were made.
    #[must_use]
    pub fn as_slice(&self) -> &[Change] {
        &self.list
    }

    /// The changes in the order they were made.
    #[must_use]
    pub fn into_vec(self) -> Vec<Change> {
        self.list
    }
}
