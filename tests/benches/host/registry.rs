//! A registry with a large image, on the loopback of each side's host, over one folder.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use shoal_tests::Host;

use crate::image;
use crate::measure::wait;

const ADDRESS: &str = "127.0.0.1:5998";

pub(crate) struct Registry {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Registry {
    /// None where it is not installed.
    pub(crate) fn start(own: &Host, peer: Option<&Host>) -> Option<Self> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {ADDRESS}}}\n",
            dir.path().join("data").display(),
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let start = |host: &Host| {
            let log = fs::File::create(dir.path().join("log")).unwrap();
            let child = host
                .command("docker-registry")
                .arg("serve")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            wait("the registry answers", || {
                !host.run("curl", &["-fsS", &format!("http://{ADDRESS}/v2/")]).is_empty()
            });
            child
        };
        let children = std::iter::once(own).chain(peer).map(start).collect();
        Some(Self { dir, children })
    }

    #[allow(clippy::unused_self)] // one can't be named without a registry
    pub(crate) fn image(&self) -> String {
        format!("{ADDRESS}/large:latest")
    }

    /// Puts an image of about 300 MB there; returns how many it has.
    pub(crate) fn push_image(&self) -> u64 {
        image::write(self.dir.path(), &self.dir.path().join("data"), "large", "latest")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = std::process::Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}
