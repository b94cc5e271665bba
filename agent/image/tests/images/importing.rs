//! Imports of root file systems.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use shoal_image::{ImageError, ImportOptions};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::build::{big, gzip, tar};
use crate::{Store, no_root, read, reference};

fn options(name: &str) -> ImportOptions {
    ImportOptions::new(reference(name))
}

#[tokio::test]
async fn an_archive_becomes_an_image_with_its_settings() {
    if no_root() {
        return;
    }
    let store = Store::new().await;
    let archive = tar(&[("bin/", ""), ("bin/hello", "program")]);
    let zstd = zstd::encode_all(&archive[..], 3).unwrap();
    for bytes in [archive.clone(), gzip(&archive), zstd] {
        let mut options = options("hello:1");
        options.cmd = vec!["--port".into(), "80".into()];
        options.entrypoint = vec!["/bin/hello".into()];
        options.env = vec!["A=b".into()];
        options.expose = vec!["80".into(), "53/udp".into()];
        options.working_dir = Some("/srv".into());
        options.user = Some("1000".into());
        options.labels.insert("k".into(), "v".into());
        let image = store.store.import(&bytes[..], options).await.unwrap();
        let config = image.config.config().clone().unwrap();
        assert_eq!(config.entrypoint().as_ref().unwrap(), &["/bin/hello"]);
        assert_eq!(config.cmd().as_ref().unwrap(), &["--port", "80"]);
        assert_eq!(config.exposed_ports().as_ref().unwrap(), &["53/udp", "80/tcp"]);
        assert_eq!(config.labels().as_ref().unwrap()["k"], "v");
        assert_eq!(
            (config.user().as_deref(), config.working_dir().as_deref()),
            (Some("1000"), Some("/srv"))
        );
        assert_eq!(image.tags, ["hello:1"]);
        assert_eq!(read(store.layers(&image).await[0].join("bin/hello")), "program");
        let found = store.store.resolve("hello:1").await.unwrap().unwrap();
        assert_eq!((found.id, found.size), (image.id, 7));
    }
    // One layer for all of them.
    assert_eq!((store.count("layers"), store.store.list().await.unwrap().len()), (1, 3));
}

#[tokio::test]
async fn an_import_that_fails_leaves_nothing() {
    if no_root() {
        return;
    }
    let store = Store::new().await;
    let archive = gzip(&tar(&[("a", &"x".repeat(100_000))]));
    let cut = &archive[..archive.len() / 2];
    for (bytes, word) in [
        (cut, "damaged"),
        (b"not an archive".repeat(99).as_slice(), "checksum"),
        (b"BZh9", "bzip2"),
    ] {
        let error = store.store.import(bytes, options("a")).await.unwrap_err().to_string();
        assert!(error.contains("can't be imported as a:latest") && error.contains(word), "{error}");
        store.settles(0, 0).await;
    }
    let broken = (&archive[..]).chain(Broken);
    let error = store.store.import(broken, options("a")).await.unwrap_err();
    assert!(matches!(error, ImageError::ImportRead { .. }), "{error}");
    store.settles(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_given_up_leaves_nothing() {
    if no_root() {
        return;
    }
    let store = Store::new().await;
    let blob = big(1, 1 << 20).blob;
    let import = store.store.import((&blob[..]).chain(Silent), options("a"));
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(300), import).await;
    assert!(waiting.is_err());
    store.settles(0, 0).await;
}

/// Ends with an error.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other("the pipe broke")))
    }
}

/// Never says anything.
struct Silent;

impl AsyncRead for Silent {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}
