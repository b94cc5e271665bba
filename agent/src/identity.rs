//! Who this node is: made at its first start, the same ever after.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::Context;
use shoal_proto::NodeId;

/// The node's and its cluster's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) cluster: String,
}

impl Identity {
    pub(crate) fn load_or_create(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("identity");
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text)
                .with_context(|| format!("{} is damaged; restore it", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let identity = Self {
                    node: NodeId::from_bits(random_bits()?),
                    cluster: NodeId::from_bits(random_bits()?).to_string(),
                };
                identity.save(&path).with_context(|| format!("can't write {}", path.display()))?;
                Ok(identity)
            }
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    /// Two lines: the node's id and the cluster's.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let node = lines.next().unwrap_or_default().parse()?;
        let cluster = lines.next().context("it names no cluster")?.to_owned();
        Ok(Self { node, cluster })
    }

    fn save(&self, path: &Path) -> std::io::Result<()> {
        let partial = path.with_extension("partial");
        let mut file = fs::File::create(&partial)?;
        writeln!(file, "{}\n{}", self.node, self.cluster)?;
        file.sync_all()?;
        fs::rename(partial, path)
    }
}

pub(crate) fn random_bits() -> anyhow::Result<u128> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("no random bits from /dev/urandom")?;
    Ok(u128::from_le_bytes(bytes))
}
