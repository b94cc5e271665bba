//! Records on disk: a file each.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use prost::Message;
use shoal_proto::v1::ContainerRecord;

pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        // Specs hold what is nobody else's to read.
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    /// All that can be read; what can't is told of and left.
    pub(super) fn load(&self) -> io::Result<Vec<ContainerRecord>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some() {
                // Not finished when an agent before this one ended.
                fs::remove_file(&path)?;
                continue;
            }
            match ContainerRecord::decode(&*fs::read(&path)?) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "unreadable container record");
                }
            }
        }
        Ok(records)
    }

    /// The old record or the new one is there, whatever happens.
    pub(super) fn save(&self, record: &ContainerRecord) -> io::Result<()> {
        let path = self.dir.join(&record.id);
        let partial = path.with_extension("partial");
        fs::write(&partial, record.encode_to_vec())?;
        fs::rename(partial, path)
    }

    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
