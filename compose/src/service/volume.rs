//! `volumes:` and `tmpfs:` of a service.

use shoal_proto::v1::{Mount, MountType};

use super::deploy::bytes;
use crate::diagnostic::{Log, Place};
use crate::section::{self, Section};
use crate::stack::Project;
use crate::yaml::Value;

pub(super) fn read(
    project: &Project<'_>,
    service: &mut Section<'_>,
    log: &mut Log<'_>,
) -> Vec<Mount> {
    let path = service.at("volumes");
    let mut mounts = Vec::new();
    if let Some(node) = service.take("volumes") {
        match &node.value {
            Value::List(items) => {
                for item in items {
                    let mount = match &item.value {
                        Value::Map(_) => Section::of(&path, item, log)
                            .and_then(|section| long(project, section, log)),
                        _ => section::text(&path, item, log)
                            .and_then(|text| short(project, &path, item.place, &text, log)),
                    };
                    mounts.extend(mount.inspect(|mount| check(&path, item.place, mount, log)));
                }
            }
            other => {
                log.error(node.place, format!("{path}: want a list, found {}", other.describe()))
            }
        }
    }
    let path = service.at("tmpfs");
    for (place, entry) in service.list("tmpfs", log) {
        let mount = tmpfs(&path, place, &entry, log);
        check(&path, place, &mount, log);
        mounts.push(mount);
    }
    mounts
}

fn check(path: &str, place: Place, mount: &Mount, log: &mut Log<'_>) {
    if !mount.target.starts_with('/') {
        let rule = "the path in the container must be absolute";
        log.error(place, format!("{path}: {:?}: {rule}", mount.target));
    }
}

/// `TARGET[:OPTIONS]`. Every tmpfs is mounted with nosuid, nodev and noexec, as Docker does.
fn tmpfs(path: &str, place: Place, entry: &str, log: &mut Log<'_>) -> Mount {
    let (target, options) = entry.split_once(':').unwrap_or((entry, ""));
    let mut mount = Mount { target: target.to_owned(), ..Mount::default() };
    mount.set_type(MountType::Tmpfs);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let read = match (option, option.split_once('=')) {
            ("ro" | "rw", _) => {
                mount.read_only = option == "ro";
                Ok(())
            }
            ("nosuid" | "nodev" | "noexec", _) => Ok(()),
            (_, Some(("size", size))) => bytes(size).map(|size| mount.tmpfs_size_bytes = size),
            (_, Some(("mode", digits))) => mode(digits).map(|mode| mount.tmpfs_mode = mode),
            _ => {
                let known = "size=, mode=, ro, rw, nosuid, nodev and noexec";
                Err(format!("unknown option {option:?}; there are {known}"))
            }
        };
        if let Err(rule) = read {
            log.error(place, format!("{path}: {entry:?}: {rule}"));
        }
    }
    mount
}

/// `1777` or `0o1777`: octal either way.
fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8) {
        Ok(mode @ 0..=0o7777) => Ok(mode),
        _ => Err(format!("{text:?} is not a file mode; want octal digits such as 1777")),
    }
}

/// A path in the source of the short form begins so; everything else names a volume.
fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

/// None, with an error, for `~` when nobody is at home.
fn absolute(
    project: &Project<'_>,
    path: &str,
    place: Place,
    source: &str,
    log: &mut Log<'_>,
) -> Option<String> {
    if source.starts_with('/') {
        return Some(source.to_owned());
    }
    if let Some(rest) = source.strip_prefix('~') {
        let home = project.options.environment.get("HOME").filter(|home| home.starts_with('/'));
        if home.is_none() {
            log.error(place, format!("{path}: {source:?}: HOME is not set, so ~ is no folder"));
        }
        return home.map(|home| format!("{home}{rest}"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in project.options.working_dir.split('/').chain(source.split('/')) {
        match part {
            "." | "" => {}
            // As the kernel does: what is above the root is the root.
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

fn named(
    project: &Project<'_>,
    path: &str,
    place: Place,
    source: &str,
    log: &mut Log<'_>,
) -> Option<String> {
    let name = project.volumes.get(source);
    if name.is_none() {
        let rule = "declare it under volumes: at the top level, or begin a path with ./";
        log.error(place, format!("{path}: there is no volume {source:?}; {rule}"));
    }
    name.cloned()
}

fn short(
    project: &Project<'_>,
    path: &str,
    place: Place,
    text: &str,
    log: &mut Log<'_>,
) -> Option<Mount> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => {
            log.error(place, format!("{path}: {text:?} is not [SOURCE:]TARGET[:OPTIONS]"));
            return None;
        }
    };
    let mut mount = Mount { target: target.to_owned(), ..Mount::default() };
    if is_path(source) {
        mount.set_type(MountType::Bind);
        mount.source = absolute(project, path, place, source, log)?;
        mount.create_host_path = true;
    } else if !source.is_empty() {
        mount.source = named(project, path, place, source, log)?;
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" => mount.no_copy = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                mount.propagation = option.to_owned();
            }
            _ => log.error(place, format!("{path}: {text:?}: unknown option {option:?}")),
        }
    }
    Some(mount)
}

fn long(project: &Project<'_>, mut section: Section<'_>, log: &mut Log<'_>) -> Option<Mount> {
    let place = section.place();
    if !section.has("type") {
        let path = section.at("type");
        log.error(place, format!("{path}: is missing; want volume, bind or tmpfs"));
    }
    let kind = section.parsed("type", log, |text| match text {
        "volume" => Ok(MountType::Volume),
        "bind" => Ok(MountType::Bind),
        "tmpfs" => Ok(MountType::Tmpfs),
        other => Err(format!("{other:?} is not supported; want volume, bind or tmpfs")),
    });
    let path = section.at("source");
    let source = section.text("source", log).unwrap_or_default();
    let source = match kind {
        Some(MountType::Bind) if source.is_empty() => {
            log.error(place, format!("{path}: is missing; a bind mount needs a path of the host"));
            None
        }
        Some(MountType::Bind) => absolute(project, &path, place, &source, log),
        Some(MountType::Volume) if !source.is_empty() => named(project, &path, place, &source, log),
        Some(MountType::Volume | MountType::Tmpfs) | None => None,
    };
    let mut mount = Mount { source: source.unwrap_or_default(), ..Mount::default() };
    mount.target = section.text("target", log).unwrap_or_default();
    mount.read_only = section.flag("read_only", log).unwrap_or(false);
    let mut part = |key: &str, log: &mut Log<'_>| {
        let path = section.at(key);
        section.take(key).and_then(|node| Section::of(&path, node, log))
    };
    if let Some(mut bind) = part("bind", log) {
        mount.propagation = bind.text("propagation", log).unwrap_or_default();
        mount.create_host_path = bind.flag("create_host_path", log).unwrap_or(true);
        bind.finish(&["propagation", "create_host_path", "selinux", "recursive"], log);
    }
    if let Some(mut volume) = part("volume", log) {
        mount.no_copy = volume.flag("nocopy", log).unwrap_or(false);
        volume.finish(&["nocopy", "subpath", "labels"], log);
    }
    if let Some(mut tmpfs) = part("tmpfs", log) {
        mount.tmpfs_size_bytes = tmpfs.parsed("size", log, bytes).unwrap_or(0);
        mount.tmpfs_mode = tmpfs.parsed("mode", log, mode).unwrap_or(0);
        tmpfs.finish(&["size", "mode"], log);
    }
    section.finish(
        &[
            "type",
            "source",
            "target",
            "read_only",
            "consistency",
            "bind",
            "volume",
            "tmpfs",
            "image",
        ],
        log,
    );
    mount.set_type(kind?);
    Some(mount)
}
