//! Who this node is: made at its first start, the same ever after.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use shoal_proto::NodeId;

/// The node's and its cluster's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) cluster: String,
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("identity")
}

impl Identity {
    /// Whether the folder is some node's.
    pub(crate) fn exists(data_dir: &Path) -> bool {
        file(data_dir).exists()
    }

    /// That of a cluster's first node is made up.
    pub(crate) fn load_or_create(data_dir: &Path) -> anyhow::Result<Self> {
        if Self::exists(data_dir) {
            return Self::load(data_dir);
        }
        let identity = Self {
            node: NodeId::from_bits(random_bits()?),
            cluster: NodeId::from_bits(random_bits()?).to_string(),
        };
        identity.save(data_dir)?;
        Ok(identity)
    }

    pub(crate) fn load(data_dir: &Path) -> anyhow::Result<Self> {
        let path = file(data_dir);
        let text =
            fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is damaged; restore it", path.display()))
    }

    /// Two lines: the node's id and the cluster's.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let node = lines.next().unwrap_or_default().parse()?;
        let cluster = lines.next().context("it names no cluster")?.to_owned();
        Ok(Self { node, cluster })
    }

    pub(crate) fn save(&self, data_dir: &Path) -> anyhow::Result<()> {
        let path = file(data_dir);
        let text = format!("{}\n{}\n", self.node, self.cluster);
        shoal_manager::file::write(&path, text)
            .with_context(|| format!("can't write {}", path.display()))
    }
}

pub(crate) fn random_bits() -> anyhow::Result<u128> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("no random bits from /dev/urandom")?;
    Ok(u128::from_le_bytes(bytes))
}
