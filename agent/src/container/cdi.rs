//! Devices by name, as their vendors describe them (Container Device Interface, SPEC.md): GPUs
//! and the like. A name is `VENDOR/CLASS=DEVICE`; the files are read anew for each container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Later folders go before earlier ones.
const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// A file of a vendor's. Fields that change nothing for a container are not read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    kind: String,
    #[serde(default)]
    devices: Vec<Named>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// What a container gets with a device.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Edits {
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) device_nodes: Vec<DeviceNode>,
    #[serde(default)]
    pub(super) mounts: Vec<Bind>,
    #[serde(default)]
    pub(super) hooks: Vec<Hook>,
    #[serde(default, rename = "additionalGids")]
    pub(super) groups: Vec<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceNode {
    pub(super) path: String,
    #[serde(default)]
    pub(super) host_path: String,
    #[serde(default)]
    pub(super) permissions: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bind {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    pub(super) timeout: Option<i64>,
}

/// What the container gets for all the names together.
pub(super) fn edits(names: &[String]) -> Result<Edits, String> {
    if names.is_empty() {
        return Ok(Edits::default());
    }
    edits_from(&FOLDERS.map(Path::new), names)
}

fn edits_from(folders: &[&Path], names: &[String]) -> Result<Edits, String> {
    let mut known: BTreeMap<String, Edits> = BTreeMap::new();
    let mut of_kind: BTreeMap<String, Edits> = BTreeMap::new();
    let mut unreadable = Vec::new();
    for path in folders.iter().flat_map(|folder| files(folder)) {
        match read(&path) {
            Ok(description) => {
                let Description { kind, devices, container_edits } = description;
                for device in devices {
                    known.insert(format!("{kind}={}", device.name), device.container_edits);
                }
                of_kind.insert(kind, container_edits);
            }
            // It may be about another device; said when this one is not found.
            Err(error) => unreadable.push(format!("{}: {error}", path.display())),
        }
    }
    let mut all = Edits::default();
    let mut kinds = Vec::new();
    for name in names {
        let (kind, _) = name.split_once('=').unwrap_or((name, ""));
        let Some(edits) = known.get(name) else {
            let mut there: Vec<&str> = known.keys().map(String::as_str).collect();
            if there.is_empty() {
                there.push("none");
            }
            let there = there.join(", ");
            let unreadable: String = unreadable.iter().map(|error| format!("; {error}")).collect();
            return Err(format!(
                "CDI device {name:?} is not known on this node (/etc/cdi, /var/run/cdi); there \
                 are: {there}{unreadable}"
            ));
        };
        all.add(edits);
        // What goes with every device of a kind comes once.
        if !kinds.contains(&kind) {
            kinds.push(kind);
            if let Some(edits) = of_kind.get(kind) {
                all.add(edits);
            }
        }
    }
    match all.hooks.iter().find(|hook| hook.hook_name != "createContainer") {
        Some(hook) => Err(format!(
            "a CDI device wants the hook {} run as {}; only createContainer is supported",
            hook.path.display(),
            hook.hook_name
        )),
        None => Ok(all),
    }
}

impl Edits {
    fn add(&mut self, other: &Self) {
        self.env.extend(other.env.iter().cloned());
        self.device_nodes.extend(other.device_nodes.iter().cloned());
        self.mounts.extend(other.mounts.iter().cloned());
        self.hooks.extend(other.hooks.iter().cloned());
        self.groups.extend(&other.groups);
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("json" | "yaml" | "yml"))
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
    files.sort();
    files
}

/// JSON is YAML too.
fn read(path: &Path) -> Result<Description, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_saphyr::from_str(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = r#"
cdiVersion: 0.6.0
kind: vendor.com/gpu
containerEdits:
  env: [DRIVER=1]
  mounts:
    - {hostPath: /usr/lib/driver.so, containerPath: /usr/lib/driver.so, options: [ro, bind]}
devices:
  - name: "0"
    containerEdits:
      deviceNodes: [{path: /dev/gpu0, hostPath: /dev/null}]
  - name: all
    containerEdits:
      deviceNodes: [{path: /dev/gpu0}, {path: /dev/gpu1, permissions: rw}]
      additionalGids: [44]
      hooks: [{hookName: createContainer, path: /usr/bin/hook, args: [hook, update]}]
"#;

    fn of(files: &[(&str, &str)], names: &[&str]) -> Result<Edits, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        edits_from(&[dir.path()], &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_device_brings_its_own_edits_and_once_those_of_its_kind() {
        let names = ["vendor.com/gpu=0", "vendor.com/gpu=all"];
        let edits = of(&[("gpu.yaml", GPU)], &names).unwrap();
        assert_eq!(edits.env, ["DRIVER=1"]);
        assert_eq!(edits.mounts.len(), 1);
        let nodes: Vec<&str> = edits.device_nodes.iter().map(|node| node.path.as_str()).collect();
        assert_eq!(nodes, ["/dev/gpu0", "/dev/gpu0", "/dev/gpu1"]);
        assert_eq!(edits.groups, [44]);
        assert_eq!(edits.hooks[0].args, ["hook", "update"]);
        let json = r#"{"cdiVersion": "0.5.0", "kind": "a.b/c", "devices": [{"name": "x",
            "containerEdits": {"env": ["A=1"]}}]}"#;
        assert_eq!(of(&[("c.json", json)], &["a.b/c=x"]).unwrap().env, ["A=1"]);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let error = of(&[("gpu.yaml", GPU), ("bad.json", "{")], &["vendor.com/gpu=7"]).unwrap_err();
        for word in ["vendor.com/gpu=7", "vendor.com/gpu=all", "bad.json"] {
            assert!(error.contains(word), "{word}: {error}");
        }
        let other = GPU.replace("createContainer", "poststop");
        let error = of(&[("gpu.yaml", &other)], &["vendor.com/gpu=all"]).unwrap_err();
        assert!(error.contains("poststop"), "{error}");
    }
}
