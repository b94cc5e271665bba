//! What is asked for by many at once is done once, and given up only when nobody wants it.

use std::sync::Arc;

use shoal_image::Digest;

use crate::build::{Built, Packed, big, image, layer};
use crate::server::{Fault, Server};
use crate::{Store, no_root};

fn app(server: &Server) -> (Built, String) {
    let built = image(&[big(1, 300_000), big(2, 300_000)]);
    server.push("app", "1", &built);
    let blob = format!("app/blobs/{}", Digest::of(&built.layers[0].blob));
    (built, blob)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_pulls_of_an_image_fetch_it_once() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Arc::new(Store::new().await));
    let (built, blob) = app(&server);
    server.fault(&blob, Fault::Hold);
    let pulls: Vec<_> = (0..50)
        .map(|_| {
            let (store, name) = (Arc::clone(&store), server.name("app:1"));
            tokio::spawn(async move { store.pull(&name).await })
        })
        .collect();
    crate::wait(|| server.asked(&blob) > 0, || "the layer is not asked for".to_owned()).await;
    server.release();
    for pull in pulls {
        assert_eq!(pull.await.unwrap().unwrap().id, built.id());
    }
    let mut requests = server.requests();
    requests.sort();
    let all = requests.len();
    requests.dedup();
    assert_eq!((all, requests.len()), (4, 4), "manifest, configuration, two layers: {requests:?}");
    store.settles(2, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_images_share_a_layer_that_is_under_way() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Arc::new(Store::new().await));
    let (_, blob) = app(&server);
    let other = image(&[big(1, 300_000), layer(&[("own", "x")], Packed::Gzip)]);
    server.push("app", "2", &other);
    server.fault(&blob, Fault::Hold);
    let pull = |tag: &str| {
        let (store, name) = (Arc::clone(&store), server.name(&format!("app:{tag}")));
        tokio::spawn(async move { store.pull(&name).await })
    };
    let first = pull("1");
    crate::wait(|| server.asked(&blob) > 0, || "the layer is not asked for".to_owned()).await;
    let second = pull("2");
    let config = format!("app/blobs/{}", other.id());
    crate::wait(|| server.asked(&config) > 0, || "the second pull does not start".to_owned()).await;
    server.release();
    first.await.unwrap().unwrap();
    assert_eq!(second.await.unwrap().unwrap().id, other.id());
    assert_eq!(server.asked(&blob), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_given_up_by_all_leaves_nothing_and_by_one_goes_on() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Arc::new(Store::new().await));
    let (built, blob) = app(&server);
    server.fault(&blob, Fault::Hold);
    server.fault(&blob, Fault::Hold);
    let pull = || {
        let (store, name) = (Arc::clone(&store), server.name("app:1"));
        tokio::spawn(async move { store.pull(&name).await })
    };
    let only = pull();
    let other_layer = || store.count("layers") == 1;
    crate::wait(other_layer, || "the layer that is not held does not come".to_owned()).await;
    only.abort();
    store.settles(0, 0).await;

    let first = pull();
    crate::wait(|| server.asked(&blob) == 2, || "no second attempt".to_owned()).await;
    let (joined, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let second = tokio::spawn({
        let (store, name) = (Arc::clone(&store), crate::reference(&server.name("app:1")));
        async move {
            let tell = move |event| drop(joined.send(event));
            store.store.pull(&name, &crate::amd64(), tell).await
        }
    });
    // It hears of the first one's work: it has joined it.
    assert!(heard.recv().await.is_some());
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    server.release();
    assert_eq!(second.await.unwrap().unwrap().id, built.id());
    assert_eq!(server.asked(&blob), 2, "the second waiter did not begin again");
}
