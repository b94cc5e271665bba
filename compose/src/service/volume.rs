//! `volumes:` and `tmpfs:` of a service.

use shoal_proto::v1::{Mount, MountType};

use super::deploy::bytes;
use crate::diagnostic::{Log, Place};
use crate::path::absolute;
use crate::section::{self, Section};
use crate::stack::{Project, Volume};
use crate::yaml::Value;

pub(super) fn read(
    project: &Project<'_>,
    service: &mut Section<'_>,
    log: &mut Log<'_>,
) -> Vec<Mount> {
    let path = service.at("volumes");
    let mut mounts = Vec::new();
    for item in service.items("volumes", log) {
        let mount = match &item.value {
            Value::Map(_) => {
                Section::of(&path, item, log).and_then(|section| long(project, section, log))
            }
            _ => section::text(&path, item, log)
                .and_then(|text| short(project, &path, item.place, &text, log)),
        };
        mounts.extend(mount.inspect(|mount| check(&path, item.place, mount, log)));
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

/// None, with an error, when the file has no such volume.
fn named<'p>(
    project: &'p Project<'_>,
    path: &str,
    place: Place,
    source: &str,
    log: &mut Log<'_>,
) -> Option<&'p Volume> {
    let volume = project.volumes.get(source);
    if volume.is_none() {
        let rule = "declare it under volumes: at the top level, or begin a path with ./";
        log.error(place, format!("{path}: there is no volume {source:?}; {rule}"));
    }
    volume
}

fn fill(mount: &mut Mount, volume: &Volume) {
    mount.source.clone_from(&volume.name);
    mount.movable = volume.movable;
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
        mount.source = absolute(project.options, path, place, source, log)?;
        mount.create_host_path = true;
    } else if !source.is_empty() {
        fill(&mut mount, named(project, path, place, source, log)?);
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
    let mut mount = Mount::default();
    match kind {
        Some(MountType::Bind) if source.is_empty() => {
            log.error(place, format!("{path}: is missing; a bind mount needs a path of the host"));
        }
        Some(MountType::Bind) => {
            let source = absolute(project.options, &path, place, &source, log);
            mount.source = source.unwrap_or_default();
        }
        Some(MountType::Volume) if !source.is_empty() => {
            if let Some(volume) = named(project, &path, place, &source, log) {
                fill(&mut mount, volume);
            }
        }
        Some(MountType::Volume | MountType::Tmpfs) | None => {}
    }
    mount.target = section.text("target", log).unwrap_or_default();
    mount.read_only = section.flag("read_only", log).unwrap_or(false);
    if let Some(mut bind) = section.part("bind", log) {
        mount.propagation = bind.text("propagation", log).unwrap_or_default();
        mount.create_host_path = bind.flag("create_host_path", log).unwrap_or(true);
        bind.finish(&["propagation", "create_host_path", "selinux", "recursive"], log);
    }
    if let Some(mut volume) = section.part("volume", log) {
        mount.no_copy = volume.flag("nocopy", log).unwrap_or(false);
        volume.finish(&["nocopy", "subpath", "labels"], log);
    }
    if let Some(mut tmpfs) = section.part("tmpfs", log) {
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
