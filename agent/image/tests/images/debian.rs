//! Debian's `docker-registry`: a real one, over plain HTTP and over TLS.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::StatusCode;
use shoal_image::{Digest, HostConfig, ImageError, RegistryConfig, RegistryError};
use tempfile::TempDir;

use crate::build::{Built, INDEX, MANIFEST, Packed, big, image, image_for, index, layer};
use crate::{Store, no_root, read, skip};

const BINARY: &str = "/usr/bin/docker-registry";

/// A registry process with a folder of its own.
struct Registry {
    child: Child,
    folder: TempDir,
    port: u16,
    scheme: &'static str,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    async fn start(tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free now; the registry can't be told to choose one itself.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = folder.path();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            root.join("data").display(),
        );
        if tls {
            certificates(root);
            let (certificate, key) = (root.join("server.crt"), root.join("server.key"));
            config += &format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                certificate.display(),
                key.display()
            );
        }
        let file = root.join("config.yml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(root.join("log")).unwrap();
        let child = Command::new(BINARY)
            .args(["serve".as_ref(), file.as_os_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let scheme = if tls { "https" } else { "http" };
        let registry = Self { child, folder, port, scheme };
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        crate::wait(listens, || read(root_log(&registry))).await;
        registry
    }

    /// `localhost:PORT/NAME`
    fn name(&self, name: &str) -> String {
        format!("localhost:{}/{name}", self.port)
    }

    fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn client(&self) -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder().no_proxy();
        if self.scheme == "https" {
            let pem = fs::read(self.folder.path().join("ca.crt")).unwrap();
            builder = builder.add_root_certificate(reqwest::Certificate::from_pem(&pem).unwrap());
        }
        builder.build().unwrap()
    }

    /// Pushes as distribution-spec's "Pushing a blob monolithically" says.
    async fn push(&self, repository: &str, tag: &str, built: &Built) {
        let client = self.client();
        let base = format!("{}://localhost:{}", self.scheme, self.port);
        for blob in built.blobs() {
            let url = format!("{base}/v2/{repository}/blobs/uploads/");
            let response = client.post(url).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::ACCEPTED);
            let place = response.headers()["location"].to_str().unwrap().to_owned();
            let mut url = response.url().join(&place).unwrap();
            url.query_pairs_mut().append_pair("digest", Digest::of(blob).as_str());
            let response = client.put(url).body(blob.clone()).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::CREATED);
        }
        self.manifest(repository, tag, MANIFEST, &built.manifest).await;
    }

    async fn manifest(&self, repository: &str, tag: &str, kind: &str, manifest: &[u8]) {
        let url =
            format!("{}://localhost:{}/v2/{repository}/manifests/{tag}", self.scheme, self.port);
        let request = self.client().put(url).header("content-type", kind).body(manifest.to_vec());
        let response = request.send().await.unwrap();
        let status = response.status();
        assert_eq!(status, StatusCode::CREATED, "{}", response.text().await.unwrap());
    }
}

fn root_log(registry: &Registry) -> std::path::PathBuf {
    registry.folder.path().join("log")
}

/// An authority, and a server's certificate for this machine.
fn certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(folder.join("ca.crt"), authority_certificate.pem()).unwrap();
    fs::write(folder.join("server.crt"), certificate.pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

fn cannot_run() -> bool {
    no_root() || skip((!Path::new(BINARY).exists()).then_some("docker-registry is not installed"))
}

#[tokio::test]
async fn images_come_by_tag_and_digest_over_plain_http() {
    if cannot_run() {
        return;
    }
    let (registry, store) = (Registry::start(false).await, Store::new().await);
    let base = layer(&[("etc/", ""), ("etc/base", "x")], Packed::Gzip);
    let built =
        image(&[base.clone(), big(5, 2 << 20), layer(&[("etc/.wh.base", "")], Packed::Zstd)]);
    let arm = image_for("arm64", &[layer(&[("arm", "x")], Packed::Gzip)]);
    registry.push("team/app", "1.0", &built).await;
    registry.push("team/app", "arm", &arm).await;
    let both = index(&[("amd64", &built), ("arm64", &arm)]);
    registry.manifest("team/app", "both", INDEX, &both).await;
    for name in ["team/app:1.0", &format!("team/app@{}", built.digest()), "team/app:both"] {
        let image = store.pull(&registry.name(name)).await.unwrap();
        assert_eq!(image.id, built.id(), "{name}");
        let layers = store.layers(&image).await;
        assert_eq!(read(layers[2].join("etc/base")), "x");
        assert_eq!(read(layers[1].join("big")).len(), 2 << 20);
    }
    assert_eq!(store.count("layers"), 3);
    for name in ["team/app:none", "team/none:1.0", &format!("team/app@{}", Digest::of(b"none"))] {
        let error = store.pull(&registry.name(name)).await.unwrap_err();
        assert!(
            matches!(error, ImageError::Registry(RegistryError::NotFound { .. })),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn tls_needs_the_authoritys_certificate_and_says_where() {
    if cannot_run() {
        return;
    }
    let registry = Registry::start(true).await;
    let built = image(&[layer(&[("a", "x")], Packed::Gzip)]);
    registry.push("app", "1", &built).await;
    let name = registry.name("app:1");

    let certs = tempfile::tempdir().unwrap();
    let config =
        RegistryConfig { certs_dir: Some(certs.path().to_owned()), ..RegistryConfig::default() };
    let store = Store::with(config.clone()).await;
    let error = store.pull(&name).await.unwrap_err();
    let place = certs.path().join(registry.host()).join("ca.crt");
    assert!(
        matches!(&error, ImageError::Registry(RegistryError::UnknownAuthority { put_at: Some(path), .. }) if *path == place),
        "{error}"
    );

    // Put there, it is used at once: no restart.
    fs::create_dir(place.parent().unwrap()).unwrap();
    fs::copy(registry.folder.path().join("ca.crt"), &place).unwrap();
    assert_eq!(store.pull(&name).await.unwrap().id, built.id());

    let host = HostConfig { ca_files: vec![place.clone()], ..HostConfig::default() };
    let mut config = RegistryConfig::default();
    config.hosts.insert(registry.host(), host);
    assert_eq!(Store::with(config).await.pull(&name).await.unwrap().id, built.id());

    fs::write(&place, "no certificate").unwrap();
    let error = Store::with(RegistryConfig {
        certs_dir: Some(certs.path().to_owned()),
        ..RegistryConfig::default()
    })
    .await
    .pull(&name)
    .await
    .unwrap_err();
    assert!(error.to_string().contains("no PEM certificate"), "{error}");
}
