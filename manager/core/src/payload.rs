//! Secrets and configs: named data that tasks are given. A version's data never change; new data are
//! a new version, which the services that use the name are updated to. A version that nothing uses
//! any more goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_proto::v1::{PayloadKind, PayloadReference, PayloadSpec, ServiceSpec};
use shoal_proto::{PayloadId, StackId};

use crate::context::Context;
use crate::deploy::is_name;
use crate::revision;
use crate::store::{Changes, Meta, Object, Payload, Service, Store};

/// Bytes of a secret at the most: 500 KiB, as in Swarm.
pub const SECRET_MOST: usize = 500 * 1024;
/// Bytes of a config at the most: 1,000 KiB, as in Swarm.
pub const CONFIG_MOST: usize = 1000 * 1024;

/// Why a secret or config can't be made so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not a name.
    #[error(
        "{kind} {name:?}: a name has up to 128 letters, digits, '_', '.' and '-', a letter or digit \
         first"
    )]
    Name {
        /// Secret or config.
        kind: PayloadKind,
        /// As given.
        name: String,
    },
    /// Nothing in it.
    #[error("{kind} {name} is empty; it has 1 byte at the least")]
    Empty {
        /// Secret or config.
        kind: PayloadKind,
        /// Its name.
        name: String,
    },
    /// Too much in it.
    #[error("{kind} {name} has {size} bytes; a {kind} has {most} bytes at the most")]
    TooLarge {
        /// Secret or config.
        kind: PayloadKind,
        /// Its name.
        name: String,
        /// Its size.
        size: usize,
        /// The bound.
        most: usize,
    },
    /// There is one of that name.
    #[error(
        "the {kind} {name} exists; give it new data with \"ctl {kind} update {name} FILE\", which \
         updates the services that use it"
    )]
    Taken {
        /// Secret or config.
        kind: PayloadKind,
        /// Its name.
        name: String,
    },
    /// There is none of that name.
    #[error("no such {kind}: {name}")]
    Missing {
        /// Secret or config.
        kind: PayloadKind,
        /// As typed.
        name: String,
    },
    /// Services use it.
    #[error("the {kind} {name} is used by {}; remove it from them first", services.join(", "))]
    InUse {
        /// Secret or config.
        kind: PayloadKind,
        /// Its name.
        name: String,
        /// Full names of the services.
        services: Vec<String>,
    },
    /// A label without a name.
    #[error("{label:?} is not a label; write it as name=value, with a name that is not empty")]
    Label {
        /// As given.
        label: String,
    },
}

/// Whether there may be such a secret or config.
///
/// # Errors
/// Its name or size breaks a rule.
pub fn check(spec: &PayloadSpec, data: &[u8]) -> Result<(), PayloadError> {
    let (kind, name) = (spec.kind(), spec.name.clone());
    let most = match kind {
        PayloadKind::Secret => SECRET_MOST,
        PayloadKind::Config => CONFIG_MOST,
    };
    if !is_name(&name) {
        return Err(PayloadError::Name { kind, name });
    }
    match data.len() {
        0 => Err(PayloadError::Empty { kind, name }),
        size if size > most => Err(PayloadError::TooLarge { kind, name, size, most }),
        _ => Ok(()),
    }
}

/// States the change that makes a new secret or config.
///
/// # Errors
/// Its name or size breaks a rule, or the name is taken.
pub fn create(
    store: &Store,
    spec: PayloadSpec,
    data: &[u8],
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Result<PayloadId, PayloadError> {
    check(&spec, data)?;
    if store.newest_payload(spec.kind(), &spec.name).is_some() {
        return Err(PayloadError::Taken { kind: spec.kind(), name: spec.name });
    }
    if spec.labels.contains_key("") {
        return Err(PayloadError::Label { label: "=".to_owned() });
    }
    Ok(add_version(store, spec, data, None, context, changes))
}

/// States the change that makes the next version under the name.
pub(crate) fn add_version(
    store: &Store,
    spec: PayloadSpec,
    data: &[u8],
    stack: Option<StackId>,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> PayloadId {
    let newest = store.newest_payload(spec.kind(), &spec.name);
    let id = PayloadId::from_bits(context.bits());
    let payload = Payload {
        id,
        meta: Meta::default(),
        number: newest.map_or(0, |newest| newest.number) + 1,
        data: data.into(),
        stack,
        spec: Arc::new(spec),
    };
    changes.create(context, payload);
    id
}

/// The newest version of what goes by a name or an id.
///
/// # Errors
/// Nothing does.
pub fn find<'a>(
    store: &'a Store,
    kind: PayloadKind,
    name: &str,
) -> Result<&'a Arc<Payload>, PayloadError> {
    let by_id = || {
        let payload = store.payload(name.parse().ok()?)?;
        (payload.kind() == kind).then(|| store.newest_payload(kind, &payload.spec.name)).flatten()
    };
    let missing = || PayloadError::Missing { kind, name: name.to_owned() };
    store.newest_payload(kind, name).or_else(by_id).ok_or_else(missing)
}

/// What an operator wants different.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PayloadUpdate {
    /// New data.
    pub data: Option<Vec<u8>>,
    /// Labels to set.
    pub add_labels: BTreeMap<String, String>,
    /// Labels to take away; fine when they are not there.
    pub remove_labels: Vec<String>,
}

/// States the changes of an update. Returns its newest version and the full names of the services
/// that are updated to it.
///
/// # Errors
/// There is none of that name, or what is wanted breaks a rule.
pub fn update(
    store: &Store,
    kind: PayloadKind,
    name: &str,
    update: &PayloadUpdate,
    context: &mut Context<'_>,
    changes: &mut Changes,
) -> Result<(PayloadId, Vec<String>), PayloadError> {
    let newest = find(store, kind, name)?;
    let mut spec = (*newest.spec).clone();
    for (name, value) in &update.add_labels {
        if name.is_empty() {
            return Err(PayloadError::Label { label: format!("{name}={value}") });
        }
        spec.labels.insert(name.clone(), value.clone());
    }
    update.remove_labels.iter().for_each(|name| drop(spec.labels.remove(name)));
    let data = update.data.as_deref().filter(|data| **data != *newest.data);
    let Some(data) = data else {
        if spec != *newest.spec {
            changes.update(context, Payload { spec: Arc::new(spec), ..(**newest).clone() });
        }
        return Ok((newest.id, Vec::new()));
    };
    check(&spec, data)?;
    let full_name = spec.name.clone();
    let id = add_version(store, spec, data, newest.stack, context, changes);
    let mut updated = Vec::new();
    let origin = format!("{kind} {full_name} updated");
    for service in store.services().filter(|service| !service.removing) {
        let mut spec = (*service.spec).clone();
        let mut is_used = false;
        for used in references_mut(&mut spec) {
            if used.kind() == kind && used.name == full_name {
                used.payload_id = id.to_string();
                is_used = true;
            }
        }
        if is_used {
            updated.push(service.spec.name.clone());
            changes.update(context, revision::with_spec(service, spec, &origin, context));
        }
    }
    Ok((id, updated))
}

/// States the changes that take a secret or config away. Returns its full name.
///
/// # Errors
/// There is none of that name, or a service uses it.
pub fn remove(
    store: &Store,
    kind: PayloadKind,
    name: &str,
    changes: &mut Changes,
) -> Result<String, PayloadError> {
    let name = find(store, kind, name)?.spec.name.clone();
    let services = users(store, kind, &name);
    if !services.is_empty() {
        return Err(PayloadError::InUse { kind, name, services });
    }
    for version in store.payload_versions(kind, &name) {
        changes.delete(&Object::Payload(Arc::clone(version)));
    }
    Ok(name)
}

/// Full names of the services whose specs use any version of a name.
#[must_use]
pub fn users(store: &Store, kind: PayloadKind, name: &str) -> Vec<String> {
    let uses = |service: &&Arc<Service>| {
        references(&service.spec).any(|used| used.kind() == kind && used.name == name)
    };
    let mut users: Vec<String> =
        store.services().filter(uses).map(|service| service.spec.name.clone()).collect();
    users.sort();
    users
}

/// Puts the newest versions where a spec gives names alone.
///
/// # Errors
/// There is none of a name.
pub fn resolve(store: &Store, spec: &mut ServiceSpec) -> Result<(), PayloadError> {
    for used in references_mut(spec) {
        if used.payload_id.is_empty() {
            let newest = find(store, used.kind(), &used.name)?;
            used.payload_id = newest.id.to_string();
            used.name.clone_from(&newest.spec.name);
        }
    }
    Ok(())
}

fn references(spec: &ServiceSpec) -> impl Iterator<Item = &PayloadReference> {
    let container = spec.task.as_ref().and_then(|task| task.container.as_ref());
    container.into_iter().flat_map(|container| &container.payloads)
}

pub(crate) fn references_mut(
    spec: &mut ServiceSpec,
) -> impl Iterator<Item = &mut PayloadReference> {
    let container = spec.task.as_mut().and_then(|task| task.container.as_mut());
    container.into_iter().flat_map(|container| &mut container.payloads)
}

/// States the removal of older versions that nothing uses: no spec, none that an update may go back
/// to, no task that is not over.
pub fn collect(store: &Store, changes: &mut Changes) {
    let mut old = store
        .payloads()
        .filter(|payload| {
            let newest = store.newest_payload(payload.kind(), &payload.spec.name);
            newest.is_some_and(|newest| newest.id != payload.id)
        })
        .peekable();
    if old.peek().is_none() {
        return;
    }
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut note = |reference: &PayloadReference| {
        used.insert(reference.payload_id.clone());
    };
    for service in store.services() {
        references(&service.spec).for_each(&mut note);
        let before = revision::before_update(service).filter(|_| !service.is_updated());
        let before = before.and_then(|revision| revision.spec.as_ref());
        before.into_iter().flat_map(references).for_each(&mut note);
    }
    for task in store.tasks().filter(|task| !task.state().is_terminal()) {
        task.spec.container.iter().flat_map(|container| &container.payloads).for_each(&mut note);
    }
    for payload in old.filter(|payload| !used.contains(&payload.id.to_string())) {
        changes.delete(&Object::Payload(Arc::clone(payload)));
    }
}

#[cfg(test)]
mod tests;
