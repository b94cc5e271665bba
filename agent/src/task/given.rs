//! What a task is given beside its image: secrets and configs as files or variables, with
//! placeholders filled in for it.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use shoal_proto::v1::{
    ContainerConfig, ContainerSpec, MountType, Payload, PayloadKind, PayloadReference, Task,
};
use shoal_runtime::{IdRange, spec};

use super::assigned;
use super::template::{Facts, expand};
use crate::container::clean;
use crate::node::Node;

const READ_ONLY: [&str; 6] = ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"];
/// Docker's.
const MODE: u32 = 0o444;

/// Fills in the placeholders of the task's own settings: variables, host name, sources of mounts.
pub(crate) fn fill_in(node: &Node, task: &mut Task) -> Result<(), String> {
    let facts = TaskFacts { node, task: &task.clone(), functions: false };
    match task.spec.as_mut().and_then(|spec| spec.container.as_mut()) {
        Some(container) => fill_in_settings(container, &facts),
        None => Ok(()),
    }
}

fn fill_in_settings(container: &mut ContainerSpec, facts: &impl Facts) -> Result<(), String> {
    for variable in &mut container.env {
        // Its name is as written.
        if let Some((name, value)) = variable.split_once('=') {
            let value =
                expand(value, facts).map_err(|error| format!("variable {name}: {error}"))?;
            *variable = format!("{name}={value}");
        }
    }
    container.hostname =
        expand(&container.hostname, facts).map_err(|error| format!("hostname: {error}"))?;
    for mount in container.mounts.iter_mut().filter(|mount| mount.r#type() != MountType::Tmpfs) {
        mount.source = expand(&mount.source, facts)
            .map_err(|error| format!("mount at {}: {error}", mount.target))?;
    }
    Ok(())
}

/// The host name that the task's container has.
pub(super) fn hostname(node: &Node, task: &Task) -> String {
    let written = assigned::hostname(task);
    // With a placeholder that means nothing the task is not started.
    expand(&written, &TaskFacts { node, task, functions: false }).unwrap_or(written)
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
        let what = format!("{} {}", used.kind(), used.name);
        let target = target(used);
        if target == Path::new("/") {
            return Err(format!("{what}: target {:?} is the root itself", used.target));
        }
        let path = dir.join(number.to_string());
        let owner = owner(used, range)?;
        let mode = if used.mode == 0 { MODE } else { used.mode };
        write(&path, &data, owner, mode)
            .map_err(|error| format!("{what}: can't write {}: {error}", path.display()))?;
        let mount = spec::mount("bind", &path, &target, &READ_ONLY);
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

/// The host's numbers of a file's user and group.
fn owner(used: &PayloadReference, range: Option<IdRange>) -> Result<(u32, u32), String> {
    let PayloadReference { uid, gid, .. } = *used;
    match range {
        None => Ok((uid, gid)),
        Some(range) if uid < range.count && gid < range.count => {
            Ok((range.uid.saturating_add(uid), range.gid.saturating_add(gid)))
        }
        Some(range) => Err(format!(
            "{} {}: there is no owner {uid}:{gid} in the container, whose user namespace has {} \
             users and groups",
            used.kind(),
            used.name,
            range.count
        )),
    }
}

/// Where the file is in the container.
fn target(used: &PayloadReference) -> PathBuf {
    place(used.kind(), if used.target.is_empty() { &used.name } else { &used.target })
}

/// Secrets are below /run/secrets, configs below the root.
fn place(kind: PayloadKind, target: &str) -> PathBuf {
    let folder = match kind {
        PayloadKind::Secret => Path::new("/run/secrets"),
        PayloadKind::Config => Path::new("/"),
    };
    // An absolute target takes the folder's place.
    clean(&folder.join(target))
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
            used.kind() == kind && (used.name == argument || target(used) == place(kind, argument))
        };
        let used = spec.payloads.iter().find(named);
        let used = used.ok_or_else(|| format!("the task is given no {kind} {argument:?}"))?;
        String::from_utf8(find(self.node, used)?.data)
            .map_err(|_| format!("{kind} {argument} is no text"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use shoal_proto::v1::Mount;

    use super::*;

    struct Example;

    impl Facts for Example {
        fn field(&self, name: &str) -> Option<String> {
            (name == ".Task.Slot").then(|| "3".to_owned())
        }

        fn call(&self, function: &str, _: &str) -> Result<String, String> {
            Err(format!("no {function}"))
        }
    }

    fn reference(kind: PayloadKind, target: &str) -> PayloadReference {
        PayloadReference {
            kind: kind.into(),
            name: "key".to_owned(),
            target: target.to_owned(),
            uid: 33,
            gid: 34,
            ..PayloadReference::default()
        }
    }

    #[test]
    fn values_the_host_name_and_sources_are_filled_in_and_nothing_else() {
        let slot = "x-{{.Task.Slot}}".to_owned();
        let mount = |kind: MountType| Mount {
            r#type: kind.into(),
            source: slot.clone(),
            target: format!("/{slot}"),
            ..Mount::default()
        };
        let mut container = ContainerSpec {
            env: vec![format!("A={slot}"), format!("{slot}=b"), slot.clone()],
            hostname: slot.clone(),
            working_dir: slot.clone(),
            mounts: vec![mount(MountType::Volume), mount(MountType::Bind), mount(MountType::Tmpfs)],
            ..ContainerSpec::default()
        };
        fill_in_settings(&mut container, &Example).unwrap();
        assert_eq!(container.env, ["A=x-3", "x-{{.Task.Slot}}=b", "x-{{.Task.Slot}}"]);
        assert_eq!((container.hostname.as_str(), &container.working_dir), ("x-3", &slot));
        let sources = container.mounts.iter().map(|mount| mount.source.as_str());
        assert_eq!(sources.collect::<Vec<_>>(), ["x-3", "x-3", "x-{{.Task.Slot}}"]);
        assert_eq!(container.mounts[0].target, "/x-{{.Task.Slot}}");
    }

    #[test]
    fn a_placeholder_that_means_nothing_is_told_with_its_place() {
        let wrong = "{{.Colour}}".to_owned();
        let of =
            |mut container: ContainerSpec| fill_in_settings(&mut container, &Example).unwrap_err();
        let variable = ContainerSpec { env: vec![format!("A={wrong}")], ..Default::default() };
        assert!(of(variable).starts_with("variable A: template: {{.Colour}} is unknown"));
        let named = ContainerSpec { hostname: wrong.clone(), ..Default::default() };
        assert!(of(named).starts_with("hostname: template: "));
        let mount = Mount { source: wrong, target: "/data".to_owned(), ..Mount::default() };
        let mounted = ContainerSpec { mounts: vec![mount], ..Default::default() };
        assert!(of(mounted).starts_with("mount at /data: template: "));
    }

    #[test]
    fn secrets_are_below_run_secrets_and_configs_below_the_root() {
        use PayloadKind::{Config, Secret};
        for (kind, written, expected) in [
            (Secret, "", "/run/secrets/key"),
            (Secret, "a/b", "/run/secrets/a/b"),
            (Secret, "../x", "/run/x"),
            (Secret, "/etc//./key", "/etc/key"),
            (Config, "", "/key"),
            (Config, "etc/app.conf", "/etc/app.conf"),
            (Config, "../../..", "/"),
        ] {
            assert_eq!(target(&reference(kind, written)), Path::new(expected), "{written}");
        }
    }

    #[test]
    fn a_file_has_the_owner_that_the_container_knows() {
        let used = reference(PayloadKind::Secret, "");
        let range = |count| Some(IdRange { uid: 1000, gid: 5000, count });
        assert_eq!(owner(&used, None), Ok((33, 34)));
        assert_eq!(owner(&used, range(35)), Ok((1033, 5034)));
        let error = owner(&used, range(34)).unwrap_err();
        assert!(error.contains("secret key") && error.contains("33:34"), "{error}");
    }

    #[test]
    fn a_variable_is_text() {
        let used =
            PayloadReference { env: "LEVEL".to_owned(), ..reference(PayloadKind::Config, "") };
        assert_eq!(text_of(&used, b"debug\n".to_vec()).unwrap(), "debug\n");
        for data in [b"a\0b".to_vec(), vec![0xff, 0xfe]] {
            let error = text_of(&used, data).unwrap_err();
            assert!(error.contains("config key") && error.contains("LEVEL"), "{error}");
        }
    }

    #[test]
    fn a_file_is_written_anew_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("task/0");
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        for (data, mode) in [("longer", 0o640), ("short", 0o444)] {
            write(&path, data.as_bytes(), own, mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), data);
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (mode, own.0, own.1));
        }
    }
}
