//! What a pull promises when the registry, the network or the disk doesn't behave.

use shoal_image::{Digest, HostConfig, ImageError, LayerError, RegistryConfig, RegistryError};

use crate::build::{Built, MANIFEST, Packed, big, image, layer, with_config};
use crate::server::{Fault, Server};
use crate::{Store, no_root, read};

/// An image with one layer that takes several pieces, and the path of the layer's blob.
fn app(server: &Server) -> (Built, String) {
    let built = image(&[big(7, 1 << 20)]);
    server.push("app", "1", &built);
    let blob = format!("app/blobs/{}", Digest::of(&built.layers[0].blob));
    (built, blob)
}

async fn fails(server: &Server) -> ImageError {
    let store = Store::new().await;
    let error = store.pull(&server.name("app:1")).await.unwrap_err();
    store.settles(0, 0).await;
    assert!(store.store.list().await.unwrap().is_empty());
    error
}

#[tokio::test]
async fn damaged_blobs_are_refused_and_leave_nothing() {
    if no_root() {
        return;
    }
    let server = Server::start().await;
    let (built, blob) = app(&server);
    for at in [0, 5000, built.layers[0].blob.len() - 1] {
        server.fault(&blob, Fault::Damage(at));
        let error = fails(&server).await;
        let ImageError::Layer { source: LayerError::Digest { want, got }, .. } = &error else {
            panic!("{error}");
        };
        assert!(
            error.to_string().contains(want.as_str()) && error.to_string().contains(got.as_str())
        );
    }
    server.fault(&blob, Fault::Append(b"more"));
    let error = fails(&server).await;
    assert!(
        matches!(error, ImageError::Layer { source: LayerError::TooLong { .. }, .. }),
        "{error}"
    );
    server.fault(&format!("app/blobs/{}", built.id()), Fault::Damage(3));
    let error = fails(&server).await;
    assert!(matches!(error, ImageError::Registry(RegistryError::Digest { .. })), "{error}");
    let manifest = format!("app/manifests/{}", built.digest());
    server.fault(&manifest, Fault::Damage(3));
    let store = Store::new().await;
    let error = store.pull(&server.name(&format!("app@{}", built.digest()))).await.unwrap_err();
    assert!(error.to_string().contains("does not match its digest"), "{error}");
}

#[tokio::test]
async fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    if no_root() {
        return;
    }
    let server = Server::start().await;
    let (right, wrong) = (layer(&[("a", "x")], Packed::Gzip), layer(&[("a", "y")], Packed::Gzip));
    let config = image(&[right]).config;
    server.push("app", "1", &with_config(config.clone(), std::slice::from_ref(&wrong)));
    let error = fails(&server).await;
    assert!(
        matches!(error, ImageError::Layer { source: LayerError::DiffId { .. }, .. }),
        "{error}"
    );
    server.push("app", "1", &with_config(config, &[wrong.clone(), wrong]));
    let error = fails(&server).await.to_string();
    assert!(error.contains("2 layers and its configuration 1"), "{error}");
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_broke() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let (built, blob) = app(&server);
    server.fault(&blob, Fault::Break(100_000));
    server.fault(&blob, Fault::Status(503));
    server.fault(&blob, Fault::Break(50_000));
    let image = store.pull(&server.name("app:1")).await.unwrap();
    assert_eq!(image.id, built.id());
    let ranges: Vec<String> =
        server.requests().into_iter().filter(|r| r.starts_with(&blob)).collect();
    assert_eq!(
        ranges,
        [
            blob.clone(),
            format!("{blob} 100000-"),
            format!("{blob} 100000-"),
            format!("{blob} 150000-")
        ]
    );
    let layers = store.layers(&image).await;
    assert_eq!(read(layers[0].join("big")).len(), 1 << 20);
}

#[tokio::test]
async fn a_server_without_ranges_starts_again() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let (built, blob) = app(&server);
    server.fault(&blob, Fault::Break(100_000));
    server.fault(&blob, Fault::NoRange);
    assert_eq!(store.pull(&server.name("app:1")).await.unwrap().id, built.id());
}

#[tokio::test]
async fn a_transfer_that_never_gets_on_is_given_up() {
    if no_root() {
        return;
    }
    let server = Server::start().await;
    let (_, blob) = app(&server);
    for _ in 0..5 {
        server.fault(&blob, Fault::Break(0));
    }
    let error = fails(&server).await.to_string();
    assert!(error.contains("broke"), "{error}");
    assert_eq!(server.asked(&blob), 5);
}

#[tokio::test]
async fn documents_that_break_off_are_fetched_again() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let (built, _) = app(&server);
    let config = format!("app/blobs/{}", built.id());
    for path in ["app/manifests/1", &config] {
        server.fault(path, Fault::Break(20));
        server.fault(path, Fault::Status(429));
    }
    assert_eq!(store.pull(&server.name("app:1")).await.unwrap().id, built.id());
    assert_eq!((server.asked("app/manifests/1"), server.asked(&config)), (3, 3));
}

#[tokio::test]
async fn answers_that_are_no_image_say_what_they_are() {
    if no_root() {
        return;
    }
    let server = Server::start().await;
    let (built, blob) = app(&server);
    let manifest = "app/manifests/1";
    server.fault(manifest, Fault::Status(418));
    assert!(fails(&server).await.to_string().contains("answers 418"));
    server.fault(manifest, Fault::Status(403));
    assert!(fails(&server).await.to_string().contains("denies access to app (on purpose)"));
    server.fault(&blob, Fault::Status(404));
    let error = fails(&server).await.to_string();
    assert!(error.contains("has lost the blob") && error.contains(&blob[10..]), "{error}");
    for (content, word) in [
        (&b"<html>"[..], "not valid"),
        (&vec![b' '; 5 << 20], "longer than"),
        (br#"{"schemaVersion": 1}"#, "schema version 1"),
    ] {
        server.put(manifest, MANIFEST, content);
        let error = fails(&server).await.to_string();
        assert!(error.contains(word), "{error}");
    }
    server.push("app", "1", &with_config(b"[]".to_vec(), &built.layers));
    let error = fails(&server).await.to_string();
    assert!(error.contains("configuration of image"), "{error}");
}

#[tokio::test]
async fn an_unknown_image_and_an_absent_registry_are_told_apart() {
    let (server, store) = (Server::start().await, Store::new().await);
    let error = store.pull(&server.name("nothing:here")).await.unwrap_err();
    assert!(matches!(error, ImageError::Registry(RegistryError::NotFound { .. })), "{error}");
    assert!(error.to_string().contains(&server.name("nothing:here")), "{error}");
    let name = server.name("app");
    let address = server.address;
    drop(server);
    // The port is free when the server's task is gone.
    let free = || std::net::TcpStream::connect(address).is_err();
    crate::wait(free, || "the server does not stop".to_owned()).await;
    let error = store.pull(&name).await.unwrap_err();
    assert!(matches!(error, ImageError::Registry(RegistryError::Refused { .. })), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_named_and_cleaned_up() {
    if no_root() {
        return;
    }
    let server = Server::start().await;
    let disk = Disk::new("size=4m");
    let store =
        shoal_image::ImageStore::open(&disk.path(), RegistryConfig::default()).await.unwrap();
    server.push("large", "1", &image(&[big(3, 8 << 20)]));
    server.push("small", "1", &image(&[layer(&[("a", "x")], Packed::Gzip)]));
    let pull = async |name: &str| {
        store.pull(&crate::reference(&server.name(name)), &crate::amd64(), |_| ()).await
    };
    let error = pull("large:1").await.unwrap_err();
    assert!(matches!(&error, ImageError::DiskFull { path } if *path == disk.path()), "{error}");
    let empty = || crate::names(&disk.path().join("tmp")).is_empty();
    let clean = || empty() && crate::names(&disk.path().join("trash")).is_empty();
    crate::wait(clean, || "partial layers stay".to_owned()).await;
    pull("small:1").await.unwrap();
}

#[tokio::test]
async fn an_allowed_plain_registry_is_not_asked_for_tls() {
    if no_root() {
        return;
    }
    let server = Server::start().await;
    let (built, _) = app(&server);
    let mut config = RegistryConfig::default();
    let host = HostConfig { plain_http: true, ..HostConfig::default() };
    config.hosts.insert(server.address.to_string(), host);
    let store = Store::with(config).await;
    assert_eq!(store.pull(&server.name("app:1")).await.unwrap().id, built.id());
}

/// A small file system that goes with the test.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", folder.path(), "tmpfs", flags, &*options).unwrap();
        Self(folder)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}
