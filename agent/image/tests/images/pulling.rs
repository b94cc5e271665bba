//! What a pull promises when the registry behaves.

use shoal_image::{Credentials, HostConfig, ImageError, LayerState, PullEvent, RegistryConfig};

use crate::build::{INDEX, Packed, image, image_for, index, layer, with_config};
use crate::server::{Access, Server};
use crate::{Store, amd64, no_root, read, reference};

#[tokio::test]
async fn an_image_comes_whole_with_layers_of_every_kind() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let built = image(&[
        layer(&[("etc/", ""), ("etc/a", "lower"), ("etc/b", "x")], Packed::Gzip),
        layer(&[("etc/a", "middle"), ("etc/.wh.b", "")], Packed::Zstd),
        layer(&[("top", "plain")], Packed::Plain),
    ]);
    server.push("app", "1", &built);
    let mut events = Vec::new();
    let image = store
        .store
        .pull(&reference(&server.name("app:1")), &amd64(), |event| events.push(event))
        .await
        .unwrap();
    assert_eq!((&image.id, &image.manifest_digest), (&built.id(), &built.digest()));
    assert_eq!(image.layers.len(), 3);
    assert_eq!(image.size, 5 + 1 + 6 + 5);
    assert_eq!(image.tags, [server.name("app:1")]);
    assert_eq!(image.digests, [format!("{}@{}", server.name("app"), built.digest())]);
    assert_eq!(image.config.config().as_ref().unwrap().cmd().as_ref().unwrap(), &["/bin/serve"]);
    let layers = store.layers(&image).await;
    assert_eq!(read(layers[0].join("top")), "plain");
    assert_eq!(read(layers[1].join("etc/a")), "middle");
    assert_eq!(read(layers[2].join("etc/a")), "lower");
    assert_eq!(events[0], PullEvent::Resolved(built.digest()));
    let done = events.iter().filter(|event| {
        matches!(event, PullEvent::Layer(l) if l.state == LayerState::Done && l.current == l.total)
    });
    assert_eq!(done.count(), 3, "{events:?}");
    // Manifest, configuration, three compressed layers.
    store.settles(3, 5).await;
    let listed = store.store.list().await.unwrap();
    assert_eq!((listed.len(), &listed[0].id, listed[0].size), (1, &image.id, image.size));
    assert!(listed[0].created.is_some());
}

#[tokio::test]
async fn an_index_gives_the_platforms_image_and_its_own_digest() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let amd = image_for("amd64", &[layer(&[("arch", "amd64")], Packed::Gzip)]);
    let arm = image_for("arm64", &[layer(&[("arch", "arm64")], Packed::Gzip)]);
    server.push("app", "amd", &amd);
    server.push("app", "arm", &arm);
    let both = index(&[("arm64", &arm), ("amd64", &amd)]);
    server.manifest("app", "both", INDEX, &both);
    let name = server.name("app:both");
    let image = store.pull(&name).await.unwrap();
    assert_eq!(image.id, amd.id());
    let pinned = format!("{}@{}", server.name("app"), shoal_image::Digest::of(&both));
    assert_eq!(image.digests, [pinned.as_str()]);
    for name in [&pinned, &format!("{}@{}", server.name("app"), amd.digest())] {
        assert_eq!(store.store.resolve(name).await.unwrap().unwrap().id, amd.id(), "{name}");
    }
    let arm64 = "linux/arm64".parse().unwrap();
    let other = store.store.pull(&reference(&name), &arm64, |_| ()).await.unwrap();
    assert_eq!(other.id, arm.id());
    let s390x = "linux/s390x".parse().unwrap();
    let error = store.store.pull(&reference(&name), &s390x, |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/amd64, linux/arm64"), "{error}");
    let error = store.pull(&server.name("app:arm")).await.unwrap_err();
    assert!(matches!(error, ImageError::NoPlatform { .. }), "{error}");
}

#[tokio::test]
async fn a_pinned_image_that_is_here_needs_no_registry() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let built = image(&[layer(&[("a", "x")], Packed::Gzip)]);
    server.push("app", "1", &built);
    let pinned = format!("{}@{}", server.name("app"), built.digest());
    let image = store.pull(&pinned).await.unwrap();
    assert_eq!((image.tags.len(), image.digests), (0, vec![pinned.clone()]));
    drop(server);
    assert_eq!(store.pull(&pinned).await.unwrap().id, built.id());
}

#[tokio::test]
async fn a_tag_that_moves_is_followed_and_only_new_layers_are_fetched() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let base = layer(&[("base", "x")], Packed::Gzip);
    let old = image(&[base.clone(), layer(&[("app", "1")], Packed::Gzip)]);
    let new = image(&[base.clone(), layer(&[("app", "2")], Packed::Gzip)]);
    server.push("app", "latest", &old);
    store.pull(&server.name("app")).await.unwrap();
    server.push("app", "latest", &new);
    let image = store.pull(&server.name("app")).await.unwrap();
    assert_eq!(image.id, new.id());
    let base_blob = format!("app/blobs/{}", shoal_image::Digest::of(&base.blob));
    assert_eq!(server.asked(&base_blob), 1);
    assert_eq!(store.count("layers"), 3);
    let old = store.store.resolve(old.id().short()).await.unwrap().unwrap();
    assert!(old.tags.is_empty(), "{:?}", old.tags);
}

#[tokio::test]
async fn the_same_layer_twice_and_no_layers_at_all_are_images_too() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let twice = layer(&[("a", "x")], Packed::Gzip);
    server.push("twice", "1", &image(&[twice.clone(), twice]));
    server.push("none", "1", &image(&[]));
    let image = store.pull(&server.name("twice:1")).await.unwrap();
    assert_eq!((image.layers.len(), store.layers(&image).await.len()), (2, 1));
    let image = store.pull(&server.name("none:1")).await.unwrap();
    assert_eq!(store.layers(&image).await, [store.path("empty")]);
}

#[tokio::test]
async fn tokens_and_passwords_are_given_when_asked_for() {
    if no_root() {
        return;
    }
    let server = Server::start().await;
    let built = image(&[layer(&[("a", "x")], Packed::Gzip)]);
    server.push("app", "1", &built);
    let name = server.name("app:1");
    let with = |password: &str| {
        let mut config = RegistryConfig::default();
        let credentials = Credentials { username: "user".into(), password: password.into() };
        let host = HostConfig {
            credentials: Some(credentials),
            plain_http: true,
            ..HostConfig::default()
        };
        config.hosts.insert(server.address.to_string(), host);
        config
    };
    for access in
        [Access::Token { anonymous: true }, Access::Token { anonymous: false }, Access::Basic]
    {
        server.access(access.clone());
        let anonymous = Store::new().await.pull(&name).await;
        let is_open = access == Access::Token { anonymous: true };
        assert_eq!(anonymous.is_ok(), is_open, "{access:?}");
        if let Err(error) = anonymous {
            assert!(error.to_string().contains("denies access"), "{error}");
        }
        assert!(Store::with(with("pass")).await.pull(&name).await.is_ok(), "{access:?}");
        let error = Store::with(with("wrong")).await.pull(&name).await.unwrap_err().to_string();
        assert!(error.contains("refused the user name and password"), "{access:?}: {error}");
    }
}

#[tokio::test]
async fn a_token_that_runs_out_on_the_way_is_replaced() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let built = image(&[layer(&[("a", "x")], Packed::Gzip)]);
    server.push("app", "1", &built);
    server.access(Access::Token { anonymous: true });
    let mut first = true;
    let image = store
        .store
        .pull(&reference(&server.name("app:1")), &amd64(), |_| {
            if std::mem::take(&mut first) {
                server.expire_tokens();
            }
        })
        .await;
    assert_eq!(image.unwrap().id, built.id());
}

#[tokio::test]
async fn an_image_without_a_platform_is_taken_as_it_is() {
    if no_root() {
        return;
    }
    let (server, store) = (Server::start().await, Store::new().await);
    let config = br#"{"os":"","architecture":"","rootfs":{"type":"layers","diff_ids":[]}}"#;
    server.push("app", "1", &with_config(config.to_vec(), &[]));
    let image = store.pull(&server.name("app:1")).await.unwrap();
    assert_eq!(image.platform, amd64());
}
