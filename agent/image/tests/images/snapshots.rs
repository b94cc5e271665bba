//! Snapshots, and what a store finds when it is opened again.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use shoal_image::{ImageError, ImageStore, ImportOptions, RegistryConfig, Snapshot};

use crate::build::{Packed, image, layer, tar};
use crate::server::Server;
use crate::{Store, names, no_root, read, reference};

/// An overlay mounted as a container's root is.
struct Mounted(PathBuf);

impl Mounted {
    fn new(folder: &Path, snapshot: &Snapshot) -> Self {
        let lower: Vec<_> = snapshot.lower.iter().map(|path| path.to_str().unwrap()).collect();
        let (upper, work) = (snapshot.upper.display(), snapshot.work.display());
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        let options = std::ffi::CString::new(options).unwrap();
        let place = folder.join("mounted");
        fs::create_dir_all(&place).unwrap();
        mount("overlay", &place, "overlay", MountFlags::empty(), &*options).unwrap();
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_snapshot_shows_the_image_and_keeps_what_is_written() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let built = image(&[
        layer(
            &[("etc/", ""), ("etc/gone", "x"), ("etc/kept", "x"), ("var/", ""), ("var/old", "x")],
            Packed::Gzip,
        ),
        layer(&[("etc/.wh.gone", ""), ("var/.wh..wh..opq", ""), ("var/new", "y")], Packed::Gzip),
    ]);
    server.push("app", "1", &built);
    let image = store.pull(&server.name("app:1")).await.unwrap();
    let snapshot = store.store.prepare_snapshot("task-1", &image).await.unwrap();
    let mounted = Mounted::new(store.folder.path(), &snapshot);
    let set = |path: &Path| names(path).into_iter().collect::<Vec<_>>();
    assert_eq!(set(&mounted.0), ["etc", "var"]);
    assert_eq!(set(&mounted.0.join("etc")), ["kept"]);
    assert_eq!(set(&mounted.0.join("var")), ["new"]);
    fs::write(mounted.0.join("written"), "by the container").unwrap();
    fs::write(mounted.0.join("etc/kept"), "changed").unwrap();
    drop(mounted);
    assert_eq!(store.store.prepare_snapshot("task-1", &image).await.unwrap(), snapshot);
    assert_eq!(read(snapshot.upper.join("written")), "by the container");
    assert_eq!(read(snapshot.lower[1].join("etc/kept")), "x", "a layer was written to");
    assert_eq!(store.store.snapshots().await.unwrap(), ["task-1"]);
    for _ in 0..2 {
        store.store.remove_snapshot("task-1").await.unwrap();
    }
    assert!(store.store.snapshots().await.unwrap().is_empty());
    assert_eq!(store.count("snapshots"), 0);
}

#[tokio::test]
async fn a_snapshots_root_is_the_images() {
    if no_root() {
        return;
    }
    let store = Store::new().await;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o750);
    header.set_uid(5);
    header.set_gid(6);
    header.set_size(0);
    archive.append_data(&mut header, "./", &b""[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    let options = ImportOptions::new(reference("a"));
    let image = store.store.import(&archive[..], options).await.unwrap();
    let snapshot = store.store.prepare_snapshot("s", &image).await.unwrap();
    let upper = fs::metadata(&snapshot.upper).unwrap();
    assert_eq!((upper.permissions().mode() & 0o7777, upper.uid(), upper.gid()), (0o750, 5, 6));
}

#[tokio::test]
async fn snapshot_names_and_owners_are_checked() {
    if no_root() {
        return;
    }
    let store = Store::new().await;
    let import = async |name: &str| {
        let archive = tar(&[(name, "x")]);
        store.store.import(&archive[..], ImportOptions::new(reference(name))).await.unwrap()
    };
    let (a, b) = (import("a").await, import("b").await);
    for id in ["", "..", "a/b", ".hidden", "a:b", &"x".repeat(129)] {
        let error = store.store.prepare_snapshot(id, &a).await.unwrap_err();
        assert!(matches!(error, ImageError::SnapshotName(_)), "{id}: {error}");
    }
    store.store.prepare_snapshot("s", &a).await.unwrap();
    let error = store.store.prepare_snapshot("s", &b).await.unwrap_err();
    assert!(matches!(error, ImageError::SnapshotTaken { .. }), "{error}");
}

#[tokio::test]
async fn a_store_opened_again_has_what_was_finished_and_nothing_else() {
    if no_root() {
        return;
    }
    let store = Store::new().await;
    let archive = tar(&[("a", "x")]);
    let image = store.store.import(&archive[..], ImportOptions::new(reference("a"))).await.unwrap();
    let snapshot = store.store.prepare_snapshot("s", &image).await.unwrap();
    fs::write(snapshot.upper.join("written"), "x").unwrap();
    // What a crash can leave: half a layer, a layer and a blob that no image names, trash.
    let layer = &snapshot.lower[0];
    for folder in
        ["tmp/99/fs/deep", "layers/77/fs", "layers/78/fs", "trash/1/deep", "snapshots/broken"]
    {
        fs::create_dir_all(store.path(folder)).unwrap();
    }
    let orphan = format!(r#"{{"diff_id":"{}","size":1}}"#, shoal_image::Digest::of(b"orphan"));
    fs::write(store.path("layers/78/layer.json"), orphan).unwrap();
    let blob = shoal_image::Digest::of(b"blob");
    fs::write(store.path(&format!("blobs/sha256/{}", blob.hex())), "blob").unwrap();
    fs::write(store.path("blobs/sha256/rubbish"), "x").unwrap();
    let store = store.reopen().await;
    store.settles(1, 3).await;
    assert_eq!(store.store.resolve("a").await.unwrap().unwrap().id, image.id);
    assert_eq!(store.store.snapshots().await.unwrap(), ["s"]);
    let again = store.store.prepare_snapshot("s", &image).await.unwrap();
    assert_eq!((&again.lower[0], read(again.upper.join("written")).as_str()), (layer, "x"));
    // An image whose layer is gone can't be used: it must be pulled again.
    fs::remove_dir_all(store.path("layers").join(layer.parent().unwrap().file_name().unwrap()))
        .unwrap();
    let store = store.reopen().await;
    assert!(store.store.resolve("a").await.unwrap().is_none());
    assert!(store.store.snapshots().await.unwrap().is_empty());
    store.settles(0, 0).await;
}

#[tokio::test]
async fn a_damaged_index_is_not_taken_for_an_empty_one() {
    let store = Store::new().await;
    fs::write(store.path("index.json"), "{\"version\":1,").unwrap();
    let folder = store.folder;
    let opened = ImageStore::open(folder.path(), RegistryConfig::default()).await;
    let Err(error) = opened else { panic!("a damaged index was opened") };
    assert!(matches!(&error, ImageError::Index { .. }), "{error}");
    assert!(error.to_string().contains("index.json"), "{error}");
}
