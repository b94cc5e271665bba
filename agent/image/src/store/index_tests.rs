use super::*;

fn digest(seed: &str) -> Digest {
    Digest::of(seed.as_bytes())
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// An index with images of these ids and names; each has a manifest of its own.
fn index(images: &[(&str, &[&str])]) -> Index {
    let mut index = Index::default();
    for (id, names) in images {
        let record = Record {
            manifest: digest(&format!("manifest {id}")),
            blobs: [digest(&format!("manifest {id}"))].into(),
            layers: vec![digest("layer")],
            size: 1,
            created: None,
            platform: "linux/amd64".parse().unwrap(),
        };
        let names: Vec<_> = names.iter().map(|text| name(text)).collect();
        index.insert(digest(id), record, &names);
    }
    index
}

fn free(_: &Digest) -> Vec<String> {
    Vec::new()
}

#[test]
fn an_image_is_found_by_every_name_that_it_has() {
    let pinned = format!("nginx@{}", digest("index a"));
    let index = index(&[("a", &["nginx:1", &pinned]), ("b", &["other/nginx"])]);
    let a = digest("a");
    let manifest = digest("manifest a");
    for text in [
        "nginx:1",
        "docker.io/library/nginx:1",
        &pinned,
        &format!("nginx:9@{}", digest("index a")),
        &format!("nginx@{manifest}"),
        manifest.as_str(),
        a.as_str(),
        a.hex(),
        a.short(),
        &a.as_str()[..20],
    ] {
        assert_eq!(index.find(text).unwrap(), Some(a.clone()), "{text}");
    }
    for text in ["nginx", "nginx:2", &format!("other/nginx@{manifest}"), "0000"] {
        assert_eq!(index.find(text).unwrap(), None, "{text}");
    }
    assert!(index.find("No Name").is_err());
}

#[test]
fn the_start_of_two_ids_is_ambiguous() {
    let names: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let images: Vec<(&str, &[&str])> = names.iter().map(|n| (n.as_str(), &[][..])).collect();
    let index = index(&images);
    let first = &digest("0").hex()[..1].to_owned();
    assert!(matches!(index.find(first), Err(ImageError::Ambiguous { .. })));
}

#[test]
fn a_tag_moves_and_leaves_the_old_image_without_a_name() {
    let mut index = index(&[("a", &["x"]), ("b", &["x"])]);
    assert_eq!(index.find("x").unwrap(), Some(digest("b")));
    assert_eq!(index.names_of(&digest("a")), (vec![], vec![]));
    let removed = index.remove(digest("a").hex(), false, free).unwrap();
    assert_eq!(removed, Removed { untagged: vec![], deleted: vec![digest("a")] });
}

#[test]
fn the_last_tag_takes_the_image_and_its_digests() {
    let pinned = format!("x@{}", digest("index a"));
    let mut index = index(&[("a", &["x:1", "x:2", &pinned])]);
    let removed = index.remove("x:1", false, free).unwrap();
    assert_eq!(removed, Removed { untagged: vec!["x:1".into()], deleted: vec![] });
    let removed = index.remove("x:2", false, free).unwrap();
    assert_eq!(removed.untagged, ["x:2".to_owned(), pinned]);
    assert_eq!(removed.deleted, [digest("a")]);
    assert_eq!(index, Index::default());
    assert!(matches!(index.remove("x:2", true, free), Err(ImageError::NotHere(_))));
}

#[test]
fn an_id_with_names_in_two_repositories_needs_force() {
    let mut index = index(&[("a", &["x", "y"])]);
    let id = digest("a");
    assert!(matches!(index.remove(id.short(), false, free), Err(ImageError::SeveralNames { .. })));
    assert_eq!(index.remove(id.short(), true, free).unwrap().deleted, [id]);
}

#[test]
fn an_image_in_use_can_lose_names_but_not_the_last_without_force() {
    let mut index = index(&[("a", &["x:1", "x:2"])]);
    let used = |_: &Digest| vec!["task-1".to_owned()];
    assert!(index.remove("x:1", false, used).is_ok());
    let error = index.remove("x:2", false, used).unwrap_err();
    assert!(error.to_string().contains("task-1"), "{error}");
    assert!(index.find("x:2").unwrap().is_some());
    assert!(index.remove("x:2", true, used).is_ok());
}

#[test]
fn what_is_written_is_what_is_read() {
    let index = index(&[("a", &["x", "localhost:5000/y:1"])]);
    let text = serde_json::to_vec(&index).unwrap();
    assert_eq!(Index::read(&text).unwrap(), index);
    assert!(Index::read(&text[1..]).is_err());
    let newer = String::from_utf8(text).unwrap().replace("\"version\":1", "\"version\":9");
    assert!(Index::read(newer.as_bytes()).unwrap_err().contains("version"));
}
