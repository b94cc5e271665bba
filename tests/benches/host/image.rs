//! A large image of real files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use shoal_tests::Registry;

const LAYERS: usize = 3;
/// Unpacked, of one layer.
const LAYER_SIZE: u64 = 100 << 20;

/// Puts it into the registry; returns its megabytes, unpacked.
pub(crate) fn put(registry: &Registry, name: &str) -> u64 {
    let mut files = files(Path::new("/usr")).into_iter();
    let (mut layers, mut total) = (Vec::new(), 0);
    for number in 0..LAYERS {
        let (mut size, mut list) = (0, Vec::new());
        for (path, length) in files.by_ref() {
            size += length;
            list.push(path.strip_prefix("/").unwrap_or(&path).display().to_string());
            if size >= LAYER_SIZE {
                break;
            }
        }
        total += size;
        let names = registry.scratch().join("names");
        fs::write(&names, list.join("\n")).unwrap();
        let tar = registry.scratch().join(format!("{number}.tar"));
        let mut command = Command::new("tar");
        command.arg("-cf").arg(&tar).args(["-C", "/", "--no-recursion", "-T"]).arg(&names);
        assert!(command.status().unwrap().success());
        layers.push(tar);
    }
    let _digest = registry.put(name, "latest", &layers, &json!({"Cmd": ["/bin/true"]}));
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
