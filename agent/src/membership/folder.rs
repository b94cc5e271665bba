//! The files of a node's membership: `identity` names it and is written last, `node/` holds the
//! rest, `raft/` is a manager's own.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use shoal_manager::ca::NodeCertificate;
use shoal_manager::keys;
use shoal_manager::raft::DataKey;

/// A node's folder.
#[derive(Debug, Clone)]
pub(crate) struct NodeFolder {
    data_dir: PathBuf,
    path: PathBuf,
}

impl NodeFolder {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), path: data_dir.join("node") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn raft_dir(&self) -> PathBuf {
        self.data_dir.join("raft")
    }

    /// The root of a cluster that is not known to be founded yet.
    pub(crate) fn ca_dir(&self) -> PathBuf {
        self.data_dir.join("ca")
    }

    /// The backup that is not known to be restored yet.
    pub(crate) fn restore_file(&self) -> PathBuf {
        self.path.join("restore")
    }

    pub(crate) fn has_certificate(&self) -> bool {
        self.path.join("node.pem").exists()
    }

    pub(crate) fn certificate(
        &self,
        cluster: &str,
        key: Option<&DataKey>,
    ) -> anyhow::Result<NodeCertificate> {
        NodeCertificate::load(&self.path, cluster, key)?
            .with_context(|| format!("{} holds no certificate", self.path.display()))
    }

    /// Where managers were last said to be; none on the first manager of a cluster.
    pub(crate) fn managers(&self) -> anyhow::Result<Vec<String>> {
        let file = self.path.join("managers");
        match fs::read_to_string(&file) {
            Ok(text) => {
                let lines = text.lines().filter(|line| !line.is_empty());
                Ok(lines.map(str::to_owned).collect())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
        }
    }

    pub(crate) fn keep_managers(&self, addresses: &[String]) -> anyhow::Result<()> {
        self.write("managers", &(addresses.join("\n") + "\n"))
    }

    pub(crate) fn raft_id(&self) -> anyhow::Result<Option<NonZeroU64>> {
        let file = self.path.join("raft-id");
        match fs::read_to_string(&file) {
            Ok(text) => text
                .trim()
                .parse()
                .map(Some)
                .with_context(|| format!("{} is damaged; restore it", file.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
        }
    }

    /// Makes the folder ready for a manager of that number that knows nothing yet. What another
    /// one has left goes.
    pub(crate) fn become_manager(&self, raft_id: NonZeroU64) -> anyhow::Result<()> {
        let raft = self.raft_dir();
        remove(fs::remove_dir_all(&raft))?;
        DirBuilder::new()
            .mode(0o700)
            .create(&raft)
            .with_context(|| format!("can't make {}", raft.display()))?;
        self.write("raft-id", &format!("{raft_id}\n"))
    }

    /// Takes away what a manager keeps, the key first: from then on the rest is noise.
    pub(crate) fn leave_managers(&self) -> anyhow::Result<()> {
        keys::remove(&self.path).context("can't remove the manager's key")?;
        remove(fs::remove_dir_all(self.raft_dir()))?;
        remove(fs::remove_file(self.path.join("raft-id")))
    }

    /// Whether this node has begun a cluster of its own.
    pub(crate) fn is_founders(&self) -> anyhow::Result<bool> {
        Ok(!self.has_certificate() || self.raft_id()? == Some(NonZeroU64::MIN))
    }

    /// It begins to go on alone.
    pub(crate) fn go_alone(&self) -> anyhow::Result<()> {
        self.write("going-alone", "")
    }

    pub(crate) fn is_going_alone(&self) -> bool {
        self.path.join("going-alone").exists()
    }

    /// It goes on alone: the next start must not throw out those that have joined since.
    pub(crate) fn note_alone(&self) -> anyhow::Result<()> {
        self.write("alone", "")
    }

    pub(crate) fn was_alone(&self) -> bool {
        self.path.join("alone").exists()
    }

    pub(crate) fn forget_alone(&self) {
        // Missing is the rule; what stays makes the next --force-new-cluster do nothing, and say so.
        let _ = fs::remove_file(self.path.join("alone"));
    }

    /// The cluster is founded: what it was founded with is in the managers' store.
    pub(crate) fn is_founded(&self) {
        let ca = fs::remove_dir_all(self.ca_dir());
        let restore = fs::remove_file(self.restore_file());
        let alone = fs::remove_file(self.path.join("going-alone"));
        for error in [ca, restore, alone].into_iter().filter_map(Result::err) {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(%error, "can't remove what the cluster was founded with");
            }
        }
    }

    /// All of it or nothing.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        self.write_bytes(name, text.as_bytes())
    }

    pub(crate) fn write_bytes(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.path.join(name);
        shoal_manager::file::write(&path, bytes)
            .with_context(|| format!("can't write {}", path.display()))
    }
}

/// What is not there need not go.
fn remove(gone: std::io::Result<()>) -> anyhow::Result<()> {
    match gone {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("can't remove what the manager has kept")
        }
        _ => Ok(()),
    }
}
