//! `volumes:` and `tmpfs:` of a service.

use shoal_proto::ByteSize;
use shoal_proto::v1::{Mount, MountType};

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
                    mounts.extend(mount);
                }
            }
            other => {
                log.error(node.place, format!("{path}: want a list, found {}", other.describe()))
            }
        }
    }
    for (_, entry) in service.list("tmpfs", log) {
        let (target, options) = entry.split_once(':').unwrap_or((&entry, ""));
        let mut mount = Mount { target: target.to_owned(), ..Mount::default() };
        mount.set_type(MountType::Tmpfs);
        for option in options.split(',') {
            match option.split_once('=') {
                Some(("size", size)) => {
                    let size = size.parse::<ByteSize>().map_or(0, |size| size.0);
                    mount.tmpfs_size_bytes = i64::try_from(size).unwrap_or(i64::MAX);
                }
                Some(("mode", mode)) => {
                    mount.tmpfs_mode = u32::from_str_radix(mode, 8).unwrap_or(0);
                }
                _ => mount.read_only |= option == "ro",
            }
        }
        mounts.push(mount);
    }
    for mount in &mounts {
        if !mount.target.starts_with('/') {
            let rule = "the path in the container must be absolute";
            log.error(service.place(), format!("{path}: {:?}: {rule}", mount.target));
        }
    }
    mounts
}

/// A path in the source of the short form begins so; everything else names a volume.
fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

fn absolute(project: &Project<'_>, source: &str) -> String {
    if source.starts_with('/') {
        return source.to_owned();
    }
    if let Some(rest) = source.strip_prefix('~') {
        let home = project.options.environment.get("HOME").map_or("", String::as_str);
        return format!("{home}{rest}");
    }
    let mut parts: Vec<&str> = project.options.working_dir.split('/').collect();
    for part in source.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
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
        mount.source = absolute(project, source);
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
    let kind = section.parsed("type", log, |text| match text {
        "volume" => Ok(MountType::Volume),
        "bind" => Ok(MountType::Bind),
        "tmpfs" => Ok(MountType::Tmpfs),
        other => Err(format!("{other:?} is not supported; want volume, bind or tmpfs")),
    })?;
    let mut mount = Mount::default();
    mount.set_type(kind);
    let path = section.at("source");
    let source = section.text("source", log).unwrap_or_default();
    mount.source = match kind {
        MountType::Bind => absolute(project, &source),
        MountType::Volume if !source.is_empty() => named(project, &path, place, &source, log)?,
        MountType::Volume | MountType::Tmpfs => String::new(),
    };
    if kind == MountType::Bind && source.is_empty() {
        log.error(place, format!("{path}: is missing; a bind mount needs a path of the host"));
    }
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
        let size = tmpfs.parsed("size", log, str::parse::<ByteSize>);
        mount.tmpfs_size_bytes = size.map_or(0, |size| i64::try_from(size.0).unwrap_or(i64::MAX));
        let mode =
            tmpfs.parsed("mode", log, |text| u32::from_str_radix(text.trim_start_matches("0o"), 8));
        mount.tmpfs_mode = mode.unwrap_or(0);
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
    Some(mount)
}
