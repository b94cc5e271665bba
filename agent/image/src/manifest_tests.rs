use proptest::prelude::*;
use serde_json::json;

use super::*;

fn digest(seed: &str) -> String {
    Digest::of(seed.as_bytes()).to_string()
}

fn entry(os: &str, architecture: &str, variant: Option<&str>) -> serde_json::Value {
    let mut platform = json!({"os": os, "architecture": architecture});
    if let Some(variant) = variant {
        platform["variant"] = variant.into();
    }
    json!({
        "mediaType": OCI_MANIFEST,
        "digest": digest(&format!("{os}{architecture}{variant:?}")),
        "size": 7,
        "platform": platform,
    })
}

fn index(entries: Vec<serde_json::Value>) -> Index {
    let text = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    match read(None, text.to_string().as_bytes()).unwrap() {
        Document::Index(index) => index,
        Document::Manifest(_) => panic!("an index was read as a manifest"),
    }
}

fn choose(index: &Index, platform: &str) -> Option<String> {
    index.choose(&platform.parse().unwrap()).map(|blob| blob.digest.to_string())
}

#[test]
fn an_index_gives_the_platform_asked_for() {
    let index = index(vec![
        entry("unknown", "unknown", None),
        entry("linux", "arm", Some("v6")),
        entry("linux", "arm", Some("v7")),
        entry("linux", "arm64", Some("v8")),
        entry("linux", "amd64", None),
        entry("windows", "amd64", None),
    ]);
    assert_eq!(choose(&index, "linux/amd64"), Some(digest("linuxamd64None")));
    assert_eq!(choose(&index, "linux/arm64"), Some(digest("linuxarm64Some(\"v8\")")));
    assert_eq!(choose(&index, "linux/arm/v7"), Some(digest("linuxarmSome(\"v7\")")));
    assert_eq!(choose(&index, "linux/arm/v6"), Some(digest("linuxarmSome(\"v6\")")));
    assert_eq!(choose(&index, "linux/s390x"), None);
    let names: Vec<_> = index.platforms().iter().map(ToString::to_string).collect();
    let want = ["linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "windows/amd64"];
    assert_eq!(names, want);
}

#[test]
fn an_entry_without_a_platform_is_the_last_resort() {
    let plain = json!({"mediaType": DOCKER_MANIFEST, "digest": digest("plain"), "size": 7});
    let index = index(vec![plain, entry("linux", "amd64", None)]);
    assert_eq!(choose(&index, "linux/amd64"), Some(digest("linuxamd64None")));
    assert_eq!(choose(&index, "linux/arm64"), Some(digest("plain")));
}

#[test]
fn a_manifest_is_known_by_its_own_type_or_the_responses() {
    let mut manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": DOCKER_CONFIG, "digest": digest("c"), "size": 3},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "digest": digest("l"), "size": 4}],
    });
    for content_type in [None, Some(DOCKER_MANIFEST), Some("application/json; charset=utf-8")] {
        let document = read(content_type, manifest.to_string().as_bytes()).unwrap();
        let Document::Manifest(manifest) = document else { panic!("not a manifest") };
        assert_eq!(manifest.layers[0].size, 4);
        assert_eq!(manifest.config.digest.as_str(), digest("c"));
    }
    manifest["mediaType"] = OCI_INDEX.into();
    assert!(read(None, manifest.to_string().as_bytes()).is_err());
}

#[test]
fn what_is_not_an_image_is_refused_with_a_reason() {
    let artifact = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest("c"), "size": 3},
        "layers": [],
    });
    let both = json!({"schemaVersion": 2, "manifests": [], "layers": []});
    let md5 = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
        "config": {"mediaType": OCI_CONFIG, "digest": "md5:d41d8cd98f00b204e9800998ecf8427e", "size": 3},
    });
    for (text, word) in [
        ("<html>".to_owned(), "not valid"),
        ("[]".to_owned(), "neither"),
        (json!({"schemaVersion": 1, "fsLayers": []}).to_string(), "version 1"),
        (artifact.to_string(), "helm"),
        (both.to_string(), "both"),
        (md5.to_string(), "md5"),
    ] {
        let error = read(None, text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn a_configuration_keeps_its_lists_in_order() {
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "config": {"ExposedPorts": {"9/tcp": {}, "1/tcp": {}, "5/udp": {}}, "Volumes": null},
        "rootfs": {"type": "layers", "diff_ids": [digest("d")]},
    });
    let (config, diff_ids) = read_config(config.to_string().as_bytes()).unwrap();
    let ports = config.config().as_ref().unwrap().exposed_ports().clone().unwrap();
    assert_eq!(ports, ["1/tcp", "5/udp", "9/tcp"]);
    assert_eq!(diff_ids[0].as_str(), digest("d"));
    assert_eq!(platform_of(&config).unwrap().to_string(), "linux/amd64");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(None, &bytes);
        let _ = read_config(&bytes);
    }
}
