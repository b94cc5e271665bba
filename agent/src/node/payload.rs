//! The secrets and configs of this node's tasks. They are in memory alone, in a tmpfs of the agent's
//! own, which outlives the agent and not the host: an agent that starts anew with no manager in reach
//! has them still.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use prost::Message;
use shoal_proto::v1::Payload;

/// A handle to the folder.
pub(crate) struct Payloads {
    dir: PathBuf,
}

impl Payloads {
    /// Mounts the tmpfs, unless an agent before this one has.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        let builder = || DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        builder()?;
        if !is_mounted(&dir)? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            let mount =
                |options: &str| mount(Some("shoal"), &dir, Some("tmpfs"), flags, Some(options));
            // What is swapped out is on a disk; Linux < 6.4 has no word against it.
            match mount("mode=0700,noswap") {
                Err(Errno::EINVAL) => mount("mode=0700")?,
                mounted => mounted?,
            }
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir.join("tasks"))?;
        Ok(Self { dir })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// Keeps one that the managers have sent. One without its data is what was kept on disk of one
    /// that is here.
    pub(crate) fn keep(&self, payload: &Payload) -> io::Result<()> {
        if payload.data.is_empty() {
            return Ok(());
        }
        let partial = self.dir.join("partial");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&partial)?.write_all(&payload.encode_to_vec())?;
        fs::rename(partial, self.path(&payload.id))
    }

    /// None when the managers have not sent it.
    pub(crate) fn get(&self, id: &str) -> Option<Payload> {
        let bytes = fs::read(self.path(id)).ok()?;
        Payload::decode(&*bytes).ok()
    }

    /// Takes away all others.
    pub(crate) fn retain(&self, ids: &BTreeSet<&str>) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if name != "tasks" && !ids.contains(&*name) {
                fs::remove_file(self.path(&name))?;
            }
        }
        Ok(())
    }

    /// Files made for a task.
    pub(crate) fn task_dir(&self, task: &str) -> PathBuf {
        self.dir.join("tasks").join(task)
    }

    /// Takes the tmpfs away: the node has nothing left.
    pub(crate) fn close(&self) -> io::Result<()> {
        umount2(&self.dir, MntFlags::MNT_DETACH)?;
        fs::remove_dir(&self.dir)
    }
}

fn is_mounted(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(Path::new("/"));
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(id: &str, data: &[u8]) -> Payload {
        Payload { id: id.to_owned(), data: data.to_vec(), ..Payload::default() }
    }

    #[test]
    fn what_was_sent_is_kept_for_its_owner_until_it_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let payloads = Payloads { dir: dir.path().to_owned() };
        let task_dir = payloads.task_dir("t");
        fs::create_dir_all(&task_dir).unwrap();
        payloads.keep(&payload("a", b"hush")).unwrap();
        payloads.keep(&payload("b", b"\0")).unwrap();
        // As it comes from the disk, without its data.
        payloads.keep(&payload("a", b"")).unwrap();
        payloads.keep(&payload("c", b"")).unwrap();
        assert_eq!(payloads.get("a"), Some(payload("a", b"hush")));
        assert_eq!(payloads.get("c"), None);
        let mode = fs::metadata(dir.path().join("a")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::write(dir.path().join("partial"), "left by a crash").unwrap();
        payloads.retain(&BTreeSet::from(["b", "elsewhere"])).unwrap();
        assert_eq!(payloads.get("a"), None);
        assert_eq!(payloads.get("b"), Some(payload("b", b"\0")));
        assert!(task_dir.exists() && !dir.path().join("partial").exists());
    }
}
