//! This node's place in its cluster: how it came to it, what is kept of it on disk, and what it
//! starts with.

mod folder;
mod found;
mod join;
mod keep;

use std::num::NonZeroU64;

use anyhow::{Context, bail};
use shoal_manager::Founding;
use shoal_manager::ca::NodeCertificate;
use shoal_manager::keys::{self, KeyError, UnlockKey};
use shoal_manager::raft::{Begin, DataKey};
use shoal_proto::v1::NodeRole;

use crate::config::Config;
use crate::identity::Identity;

pub(crate) use folder::NodeFolder;
pub(crate) use found::check;
pub(crate) use keep::Keeper;

/// What a node knows of its cluster.
pub(crate) struct Membership {
    pub(crate) certificate: NodeCertificate,
    /// Where managers listen.
    pub(crate) managers: Vec<String>,
    /// None on a worker.
    pub(crate) manager: Option<ManagerPart>,
}

/// What a manager starts with.
pub(crate) struct ManagerPart {
    pub(crate) raft_id: NonZeroU64,
    pub(crate) key: DataKey,
    pub(crate) unlock: Option<UnlockKey>,
    pub(crate) begin: Begin,
    /// Not known to be carried out yet.
    pub(crate) founding: Option<Founding>,
}

/// What a start finds.
pub(crate) enum Found {
    /// All that it needs.
    Member(Box<Membership>),
    /// A manager whose data key is sealed.
    Locked,
}

/// Makes this host a node, if it is none: the first of a cluster, or one more of another.
pub(crate) async fn establish(config: &Config, address: &str) -> anyhow::Result<Identity> {
    let folder = NodeFolder::new(&config.data_dir);
    if !Identity::exists(&config.data_dir) {
        if let Some(file) = &config.restore {
            return found::restore(config, &folder, file, address);
        }
        if let Some((addresses, token)) = &config.join {
            return join::join(config, &folder, addresses, token, address).await;
        }
    } else if config.restore.is_some() && !folder.restore_file().exists() {
        bail!(
            "{} belongs to a cluster already; to restore a backup, give a --data-dir that is empty",
            config.data_dir.display()
        );
    } else if config.join.is_some() && folder.is_founders()? {
        bail!(
            "{} belongs to a cluster of its own already; to join another, give a --data-dir that \
             is empty",
            config.data_dir.display()
        );
    }
    let identity = Identity::load_or_create(&config.data_dir)?;
    if !folder.has_certificate() {
        found::found(config, &folder, &identity, address)?;
    }
    Ok(identity)
}

/// Reads what is kept of the membership.
pub(crate) fn load(
    config: &Config,
    identity: &Identity,
    address: &str,
    unlock: Option<&UnlockKey>,
) -> anyhow::Result<Found> {
    let folder = NodeFolder::new(&config.data_dir);
    let managers = folder.managers()?;
    if !keys::exist(folder.path()) {
        if config.force_new_cluster {
            bail!("--force-new-cluster is for managers, and this node is a worker");
        }
        let certificate = folder.certificate(&identity.cluster, None)?;
        if certificate.identity().role == NodeRole::Manager {
            bail!("{} lacks a manager's key; restore it from a backup", folder.path().display());
        }
        return Ok(Found::Member(Box::new(Membership { certificate, managers, manager: None })));
    }
    let key = match keys::load_or_create(folder.path(), unlock) {
        Ok(key) => key,
        Err(KeyError::Locked) => return Ok(Found::Locked),
        Err(error) => return Err(error.into()),
    };
    let certificate = folder.certificate(&identity.cluster, Some(&key))?;
    if certificate.identity().role == NodeRole::Worker {
        // It was made a worker, and stopped before everything was taken away.
        folder.leave_managers()?;
        return Ok(Found::Member(Box::new(Membership { certificate, managers, manager: None })));
    }
    let raft_id = folder.raft_id()?.context("the folder does not say which manager it is")?;
    let founding = found::pending(config, &folder, identity, address, raft_id)?;
    let (begin, founding) = match founding {
        Some((begin, founding)) => (begin, Some(founding)),
        None if folder.is_going_alone() => {
            found::alone(config, identity, address, raft_id, &folder)?
        }
        None if !config.force_new_cluster => {
            folder.forget_alone();
            (Begin::Join, None)
        }
        None if folder.was_alone() => {
            tracing::warn!("--force-new-cluster has been done; start the agent without it");
            (Begin::Join, None)
        }
        None => found::alone(config, identity, address, raft_id, &folder)?,
    };
    if matches!(begin, Begin::Join | Begin::Alone) && !folder.raft_dir().exists() {
        bail!(
            "{} is missing, but the node is a manager; restore it, or take the node out of the \
             cluster and let it join again with an empty --data-dir",
            folder.raft_dir().display()
        );
    }
    // A key that was given and not needed is not the cluster's.
    let unlock = unlock.filter(|_| keys::are_sealed(folder.path())).cloned();
    let manager = Some(ManagerPart { raft_id, key, unlock, begin, founding });
    Ok(Found::Member(Box::new(Membership { certificate, managers, manager })))
}
