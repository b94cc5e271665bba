//! What a task is given beside its image: secrets and configs as files or variables, with
//! placeholders filled in for it.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use shoal_proto::v1::{ContainerConfig, MountType, Payload, PayloadKind, PayloadReference, Task};
use shoal_runtime::spec;

use super::template::{Facts, expand};
use crate::node::Node;

const READ_ONLY: [&str; 6] = ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"];
/// Docker's.
const MODE: u32 = 0o444;

/// Fills in the placeholders of the task's own settings: variables, host name, sources of mounts.
pub(super) fn fill_in(node: &Node, task: &mut Task) -> Result<(), String> {
    let facts = TaskFacts { node, task: &task.clone(), functions: false };
    let container = task.spec.as_mut().and_then(|spec| spec.container.as_mut());
    let Some(container) = container else { return Ok(()) };
    let mounts = container.mounts.iter_mut();
    let sources = mounts.filter(|mount| mount.r#type() != MountType::Tmpfs);
    let texts = sources.map(|mount| &mut mount.source);
    for text in texts.chain(container.env.iter_mut()).chain([&mut container.hostname]) {
        if text.contains("{{") {
            *text = expand(text, &facts)?;
        }
    }
    Ok(())
}

/// Writes the files and sets the variables; returns how the files are mounted.
pub(super) fn give(
    node: &Node,
    task: &Task,
    config: &mut ContainerConfig,
) -> Result<Vec<Mount>, String> {
    let range = node.users.range(config)?;
    let container = config.spec.get_or_insert_default();
    let dir = node.payloads.task_dir(&task.id);
    let mut mounts = Vec::new();
    for (number, used) in container.payloads.clone().iter().enumerate() {
        let data = data(node, task, used)?;
        if !used.env.is_empty() {
            container.env.push(format!("{}={}", used.env, text_of(used, data)?));
            continue;
        }
        let path = dir.join(number.to_string());
        let (uid, gid) = match range {
            None => (used.uid, used.gid),
            Some(range) => (range.uid.saturating_add(used.uid), range.gid.saturating_add(used.gid)),
        };
        let mode = if used.mode == 0 { MODE } else { used.mode };
        write(&path, &data, (uid, gid), mode)
            .map_err(|error| format!("{} {}: {error}", used.kind(), used.name))?;
        let mount = spec::mount("bind", &path, &target(used), &READ_ONLY);
        mounts.push(mount.map_err(|error| error.to_string())?);
    }
    Ok(mounts)
}

/// A variable's value.
fn text_of(used: &PayloadReference, data: Vec<u8>) -> Result<String, String> {
    let text = String::from_utf8(data).ok().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| {
        format!(
            "config {} can't be the variable {}: it is no text; give it as a file",
            used.name, used.env
        )
    })
}

/// Where a file is in the container: secrets below /run/secrets, configs below the root.
fn target(used: &PayloadReference) -> PathBuf {
    let folder = match used.kind() {
        PayloadKind::Secret => Path::new("/run/secrets"),
        PayloadKind::Config => Path::new("/"),
    };
    // An absolute target takes the folder's place.
    folder.join(if used.target.is_empty() { &used.name } else { &used.target })
}

fn write(path: &Path, data: &[u8], owner: (u32, u32), mode: u32) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
    }
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(data)?;
    chown(path, Some(owner.0), Some(owner.1))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn find(node: &Node, used: &PayloadReference) -> Result<Payload, String> {
    node.payloads.get(&used.payload_id).ok_or_else(|| {
        format!("{} {} is not on this node: the managers have not sent it", used.kind(), used.name)
    })
}

/// What the file is to hold.
fn data(node: &Node, task: &Task, used: &PayloadReference) -> Result<Vec<u8>, String> {
    let payload = find(node, used)?;
    if !payload.spec.as_ref().is_some_and(|spec| spec.is_template) {
        return Ok(payload.data);
    }
    let what = format!("{} {}", used.kind(), used.name);
    let text = String::from_utf8(payload.data)
        .map_err(|_| format!("{what} can't be a template: it is no text"))?;
    let facts = TaskFacts { node, task, functions: true };
    expand(&text, &facts).map(String::into_bytes).map_err(|error| format!("{what}: {error}"))
}

/// What is known of a task and its node.
struct TaskFacts<'a> {
    node: &'a Node,
    task: &'a Task,
    /// In secrets and configs, and not in the task's own settings.
    functions: bool,
}

impl Facts for TaskFacts<'_> {
    fn field(&self, name: &str) -> Option<String> {
        let Task { id, service_id, service_name, slot, .. } = self.task;
        let platform = || crate::host::platform();
        Some(match name {
            ".Service.ID" => service_id.clone(),
            ".Service.Name" => service_name.clone(),
            ".Node.ID" => self.node.id.to_string(),
            ".Node.Hostname" => crate::host::name(),
            ".Node.Platform.OS" => platform().os,
            ".Node.Platform.Architecture" => platform().architecture,
            ".Task.ID" => id.clone(),
            ".Task.Name" => format!("{service_name}.{slot}.{id}"),
            ".Task.Slot" => slot.to_string(),
            _ => return None,
        })
    }

    fn call(&self, function: &str, argument: &str) -> Result<String, String> {
        if !self.functions {
            return Err(format!("{function} is for secrets and configs alone"));
        }
        let spec = self.task.spec.as_ref().and_then(|spec| spec.container.as_ref());
        let spec = spec.ok_or_else(|| "the task has no container".to_owned())?;
        let kind = match function {
            "env" => {
                let own = spec.env.iter().filter_map(|pair| pair.split_once('='));
                let value = own.into_iter().rfind(|(name, _)| *name == argument);
                return Ok(value.map(|(_, value)| value.to_owned()).unwrap_or_default());
            }
            "secret" => PayloadKind::Secret,
            _ => PayloadKind::Config,
        };
        let named = |used: &&PayloadReference| {
            let target = target(used);
            let folder = if kind == PayloadKind::Secret { "/run/secrets" } else { "/" };
            used.kind() == kind
                && (used.name == argument
                    || target == Path::new(argument)
                    || target == Path::new(folder).join(argument))
        };
        let used = spec.payloads.iter().find(named);
        let used = used.ok_or_else(|| format!("the task is given no {kind} {argument:?}"))?;
        String::from_utf8(find(self.node, used)?.data)
            .map_err(|_| format!("{kind} {argument} is no text"))
    }
}
