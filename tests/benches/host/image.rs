//! A large image of real files, written straight into a registry's folder (the layout of the
//! distribution registry's file system storage).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

const LAYERS: usize = 3;
/// Unpacked, of one layer.
const LAYER_SIZE: u64 = 100 << 20;

struct Blob {
    digest: String,
    size: u64,
}

/// Returns the image's megabytes, unpacked.
pub(crate) fn write(scratch: &Path, root: &Path, name: &str, tag: &str) -> u64 {
    let store = root.join("docker/registry/v2");
    let repository = store.join("repositories").join(name);
    let mut files = files(Path::new("/usr")).into_iter();
    let (mut layers, mut diff_ids, mut total) = (Vec::new(), Vec::new(), 0);
    for number in 0..LAYERS {
        let mut size = 0;
        let mut list = Vec::new();
        for (path, length) in files.by_ref() {
            size += length;
            list.push(path.display().to_string());
            if size >= LAYER_SIZE {
                break;
            }
        }
        total += size;
        let names = scratch.join("names");
        fs::write(&names, list.join("\n")).unwrap();
        let tar = scratch.join(format!("{number}.tar"));
        run("tar", &["-cf", text(&tar), "-C", "/", "--no-recursion", "-T", text(&names)]);
        diff_ids.push(digest(&tar));
        run("gzip", &["-6", "-n", text(&tar)]);
        layers.push(put(&store, &repository, &tar.with_extension("tar.gz")));
    }
    let config = json!({
        "architecture": if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let file = scratch.join("config.json");
    fs::write(&file, config.to_string()).unwrap();
    let config = put(&store, &repository, &file);
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            let kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
            json!({"mediaType": kind, "digest": layer.digest, "size": layer.size})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": config.digest,
            "size": config.size,
        },
        "layers": layers,
    });
    fs::write(&file, manifest.to_string()).unwrap();
    let manifest = put(&store, &repository, &file);
    let manifests = repository.join("_manifests");
    let hex = manifest.digest.trim_start_matches("sha256:");
    for folder in [
        manifests.join("revisions/sha256").join(hex),
        manifests.join("tags").join(tag).join("current"),
        manifests.join("tags").join(tag).join("index/sha256").join(hex),
    ] {
        link(&folder, &manifest.digest);
    }
    total >> 20
}

/// Regular files, in an order that is the same each time.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            let length = entry.metadata().map_or(0, |found| found.len());
            if length < 32 << 20 {
                found.push((entry.path(), length));
            }
        }
    }
    found
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

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
