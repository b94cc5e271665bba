//! From nothing, from a backup, or from what one manager has left: the first node of a cluster.

use std::num::NonZeroU64;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use shoal_core::node::raft_id;
use shoal_core::settings::{CERTIFICATE_VALIDITY, Settings};
use shoal_manager::backup::Backup;
use shoal_manager::ca::{ClusterCa, RootCa};
use shoal_manager::keys;
use shoal_manager::raft::Begin;
use shoal_manager::{Founder, Founding};
use shoal_proto::NodeId;
use shoal_proto::v1::NodeRole;

use super::NodeFolder;
use crate::config::Config;
use crate::host;
use crate::identity::{Identity, random_bits};

/// The number of a group's first member.
const FIRST: NonZeroU64 = NonZeroU64::MIN;

/// Begins a cluster of its own.
pub(super) fn found(
    config: &Config,
    folder: &NodeFolder,
    identity: &Identity,
    address: &str,
) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let ca = match &config.root {
        None => ClusterCa::open_or_create(&folder.ca_dir(), &identity.cluster, now)?,
        Some((cert, key)) => {
            let read = |path: &Path| {
                std::fs::read_to_string(path)
                    .with_context(|| format!("can't read {}", path.display()))
            };
            let root = RootCa { cert_pem: read(cert)?, key_pem: read(key)? };
            ClusterCa::adopt(&folder.ca_dir(), root, &identity.cluster, now)?
        }
    };
    settle(folder, &ca, identity.node, &[address.to_owned()], CERTIFICATE_VALIDITY, FIRST)
}

/// Writes what makes the folder that of a cluster's first manager; the certificate last.
fn settle(
    folder: &NodeFolder,
    ca: &ClusterCa,
    node: NodeId,
    managers: &[String],
    validity: Duration,
    raft_id: NonZeroU64,
) -> anyhow::Result<()> {
    folder.become_manager(raft_id)?;
    folder.keep_managers(managers)?;
    let key = keys::load_or_create(folder.path(), None)?;
    let now = SystemTime::now();
    let certificate = ca.issue(node, NodeRole::Manager, validity, now)?;
    Ok(certificate.store(folder.path(), Some(&key))?)
}

/// Begins with what a backup holds: a cluster of one manager, this host, with all that the other
/// had. Workers find it when it is where a manager was.
pub(super) fn restore(
    config: &Config,
    folder: &NodeFolder,
    file: &Path,
    address: &str,
) -> anyhow::Result<Identity> {
    let bytes = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    let backup = Backup::open(&bytes, config.unlock_key.as_ref())
        .with_context(|| format!("can't restore {}", file.display()))?;
    let identity = Identity {
        node: NodeId::from_bits(random_bits()?),
        cluster: backup.ca.cluster().to_owned(),
    };
    let validity = Settings::of(&backup.store).certificate_validity;
    // Managers of the lost cluster may come back where this one is: it has none of their numbers.
    let raft_id = raft_id(random_bits()?);
    settle(folder, &backup.ca, identity.node, &[address.to_owned()], validity, raft_id)?;
    folder.write_bytes("restore", &bytes)?;
    identity.save(&config.data_dir)?;
    Ok(identity)
}

/// What the manager has to write first, when it is not known to have done so.
pub(super) fn pending(
    config: &Config,
    folder: &NodeFolder,
    identity: &Identity,
    address: &str,
    raft_id: NonZeroU64,
) -> anyhow::Result<Option<(Begin, Founding)>> {
    let founder = founder(config, identity, address, raft_id);
    let file = folder.restore_file();
    if file.exists() {
        let bytes = std::fs::read(&file);
        let bytes = bytes.with_context(|| format!("can't read {}", file.display()))?;
        let backup = Backup::open(&bytes, config.unlock_key.as_ref())
            .with_context(|| format!("can't restore {}", file.display()))?;
        let founding = Founding { founder, ca: None, alone: true };
        return Ok(Some((Begin::Restore(Box::new(backup.store)), founding)));
    }
    if folder.ca_dir().exists() {
        let now = SystemTime::now();
        let ca = ClusterCa::open_or_create(&folder.ca_dir(), &identity.cluster, now)?;
        return Ok(Some((Begin::Found, Founding { founder, ca: Some(ca), alone: false })));
    }
    Ok(None)
}

/// Goes on without the other managers.
pub(super) fn alone(
    config: &Config,
    identity: &Identity,
    address: &str,
    raft_id: NonZeroU64,
    folder: &NodeFolder,
) -> anyhow::Result<(Begin, Option<Founding>)> {
    // Until it is done: a start without the flag goes on with it.
    folder.go_alone()?;
    let founder = founder(config, identity, address, raft_id);
    Ok((Begin::Alone, Some(Founding { founder, ca: None, alone: true })))
}

fn founder(config: &Config, identity: &Identity, address: &str, raft_id: NonZeroU64) -> Founder {
    Founder {
        node: identity.node,
        name: config.name.clone().unwrap_or_else(host::name),
        address: address.to_owned(),
        raft_id,
    }
}

/// Flags that make no sense together.
pub(crate) fn check(config: &Config) -> anyhow::Result<()> {
    if config.force_new_cluster && !Identity::exists(&config.data_dir) {
        bail!(
            "--force-new-cluster is for a manager that has lost the others; {} belongs to no cluster",
            config.data_dir.display()
        );
    }
    Ok(())
}
