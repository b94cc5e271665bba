//! A real registry (Debian's docker-registry) on the loopback of a host, and images written
//! straight into its folder (the layout of the distribution registry's file system storage).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::{Host, until};

const ADDRESS: &str = "127.0.0.1:5998";

/// Ends when dropped, with its images.
pub struct Registry {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

struct Blob {
    digest: String,
    size: u64,
}

impl Registry {
    /// Whether one is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        Path::new("/usr/bin/docker-registry").exists()
    }

    /// A folder without a registry on it yet.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("shoal-registry-").tempdir().unwrap();
        Self { dir, children: Vec::new() }
    }

    /// Serves the folder at [`Self::address`] on this host, over plain HTTP.
    pub fn serve(&mut self, host: &Host) {
        self.start(host, "", "http");
    }

    /// The same over TLS; returns the file of the authority that signed its certificate.
    pub fn serve_tls(&mut self, host: &Host) -> PathBuf {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let script = format!(
            "cd {} && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca \
             -keyout ca.key -out ca.crt && openssl req -newkey rsa:2048 -nodes -subj /CN=registry \
             -keyout server.key -out server.csr && echo subjectAltName=IP:127.0.0.1 >ext && \
             openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
             -extfile ext -out server.crt",
            self.dir.path().display()
        );
        let made = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let tls =
            format!(", tls: {{certificate: {}, key: {}}}", path("server.crt"), path("server.key"));
        self.start(host, &tls, "https");
        self.dir.path().join("ca.crt")
    }

    fn start(&mut self, host: &Host, tls: &str, scheme: &str) {
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {ADDRESS}{tls}}}\n",
            self.data().display(),
        );
        let file = self.dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        let child = host
            .command("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
        let url = format!("{scheme}://{ADDRESS}/v2/");
        until(
            "the registry answers",
            || host.run("curl", &["-fsSk", &url]),
            |text| !text.is_empty(),
        );
    }

    /// As a power cut does.
    pub fn stop(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    #[must_use]
    pub fn address(&self) -> &'static str {
        ADDRESS
    }

    /// A folder for files on their way into the registry.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Makes an image of tar archives, which are compressed and moved into the registry. `config`
    /// is what Docker calls so: Cmd, Env, Healthcheck. Returns the manifest's digest.
    #[must_use]
    pub fn put(&self, name: &str, tag: &str, layers: &[PathBuf], config: &Value) -> String {
        let store = self.data().join("docker/registry/v2");
        let repository = store.join("repositories").join(name);
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let blobs: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let packed = layer.with_extension("tar.gz");
                let status = Command::new("gzip").args(["-6", "-n"]).arg(layer).status().unwrap();
                assert!(status.success());
                let blob = put(&store, &repository, &packed);
                let kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
                json!({"mediaType": kind, "digest": blob.digest, "size": blob.size})
            })
            .collect();
        let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
        let configuration = json!({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let file = self.dir.path().join("document");
        fs::write(&file, configuration.to_string()).unwrap();
        let configuration = put(&store, &repository, &file);
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": configuration.digest,
                "size": configuration.size,
            },
            "layers": blobs,
        });
        fs::write(&file, manifest.to_string()).unwrap();
        let manifest = put(&store, &repository, &file);
        let hex = manifest.digest.trim_start_matches("sha256:");
        let manifests = repository.join("_manifests");
        for folder in [
            manifests.join("revisions/sha256").join(hex),
            manifests.join("tags").join(tag).join("current"),
            manifests.join("tags").join(tag).join("index/sha256").join(hex),
        ] {
            link(&folder, &manifest.digest);
        }
        manifest.digest
    }

    /// The file of a blob, for damaging it.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.data().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// What a manifest says, as JSON.
    #[must_use]
    pub fn manifest(&self, digest: &str) -> Value {
        serde_json::from_slice(&fs::read(self.blob(digest)).unwrap()).unwrap()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn put(store: &Path, repository: &Path, file: &Path) -> Blob {
    let digest = digest(file);
    let size = fs::metadata(file).unwrap().len();
    let hex = digest.trim_start_matches("sha256:");
    let blob = store.join("blobs/sha256").join(&hex[..2]).join(hex);
    fs::create_dir_all(&blob).unwrap();
    fs::rename(file, blob.join("data")).unwrap();
    link(&repository.join("_layers/sha256").join(hex), &digest);
    Blob { digest, size }
}

fn link(folder: &Path, digest: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("link"), digest).unwrap();
}

fn digest(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", text.split(' ').next().unwrap())
}
