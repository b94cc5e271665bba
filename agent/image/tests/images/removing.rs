//! Removal of images, and of what they leave unneeded.

use shoal_image::ImageError;

use crate::build::{Packed, image, layer};
use crate::server::Server;
use crate::{Store, no_root};

#[tokio::test]
async fn layers_go_with_the_last_image_that_has_them() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let base = layer(&[("base", "x")], Packed::Gzip);
    server.push("one", "1", &image(&[base.clone(), layer(&[("a", "1")], Packed::Gzip)]));
    server.push("two", "1", &image(&[base, layer(&[("a", "2")], Packed::Gzip)]));
    let one = store.pull(&server.name("one:1")).await.unwrap();
    store.pull(&server.name("two:1")).await.unwrap();
    store.settles(3, 7).await;
    let removed = store.store.remove(&server.name("one:1"), false).await.unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (2, vec![one.id]));
    store.settles(2, 4).await;
    store.store.remove(&server.name("two:1"), false).await.unwrap();
    store.settles(0, 0).await;
    let error = store.store.remove("two:1", false).await.unwrap_err();
    assert!(matches!(error, ImageError::NotHere(_)), "{error}");
}

#[tokio::test]
async fn an_image_in_use_stays_until_forced_and_its_layers_until_unused() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    server.push("app", "1", &image(&[layer(&[("a", "x")], Packed::Gzip)]));
    let name = server.name("app:1");
    let pulled = store.pull(&name).await.unwrap();
    let snapshot = store.store.prepare_snapshot("task-1", &pulled).await.unwrap();
    let error = store.store.remove(&name, false).await.unwrap_err();
    assert!(error.to_string().contains("task-1"), "{error}");
    store.store.remove(&name, true).await.unwrap();
    assert!(store.store.resolve(&name).await.unwrap().is_none());
    store.settles(1, 0).await;
    assert!(snapshot.lower[0].join("a").exists());
    let store = store.reopen().await;
    store.settles(1, 0).await;
    assert_eq!(store.store.snapshots().await.unwrap(), ["task-1"]);
    let other = store.store.prepare_snapshot("task-2", &pulled).await.unwrap();
    assert_eq!(other.lower, snapshot.lower);
    store.store.remove_snapshot("task-1").await.unwrap();
    store.settles(1, 0).await;
    store.store.remove_snapshot("task-2").await.unwrap();
    store.settles(0, 0).await;
    let error = store.store.prepare_snapshot("task-3", &pulled).await.unwrap_err();
    assert!(matches!(error, ImageError::ContentGone { .. }), "{error}");
}

#[tokio::test]
async fn ids_and_their_starts_are_names_too() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    server.push("app", "1", &image(&[layer(&[("a", "x")], Packed::Gzip)]));
    let pulled = store.pull(&server.name("app:1")).await.unwrap();
    let found = store.store.resolve(pulled.id.short()).await.unwrap().unwrap();
    assert_eq!(found.id, pulled.id);
    let removed = store.store.remove(pulled.id.as_str(), false).await.unwrap();
    assert_eq!(removed.untagged.len(), 2);
    store.settles(0, 0).await;
}
