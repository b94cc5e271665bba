//! What the container is made of.

use shoal_proto::time::proto_duration;
use shoal_proto::v1::{ContainerSpec, Ulimit};
use shoal_proto::{ByteSize, duration};

use super::{health, payload, port, volume};
use crate::diagnostic::Log;
use crate::section::{self, Section, pairs, whole};
use crate::stack::Project;
use crate::words;
use crate::yaml::Value;

pub(super) fn read(
    project: &Project<'_>,
    section: &mut Section<'_>,
    log: &mut Log<'_>,
) -> ContainerSpec {
    let mut spec = ContainerSpec::default();
    let given = section.has("image");
    match section.text("image", log) {
        Some(image) if !image.trim().is_empty() => spec.image = image,
        // It is no text, and the log says so.
        None if given => {}
        _ => {
            let path = section.at("image");
            log.error(section.place(), format!("{path}: is missing; a service needs an image"));
        }
    }
    if let Some(entrypoint) = command(section, "entrypoint", log) {
        (spec.command, spec.set_command) = (entrypoint, true);
    }
    if let Some(args) = command(section, "command", log) {
        (spec.args, spec.set_args) = (args, true);
    }
    spec.env = environment(project, section, log);
    spec.working_dir = section.text("working_dir", log).unwrap_or_default();
    spec.user = section.text("user", log).unwrap_or_default();
    spec.hostname = section.text("hostname", log).unwrap_or_default();
    spec.labels = section.labels(log);
    spec.mounts = volume::read(project, section, log);
    spec.payloads = payload::read(project, section, log);
    spec.healthcheck = health::read(section, log);
    spec.stop_signal = section.text("stop_signal", log).unwrap_or_default();
    spec.stop_grace_period =
        section.parsed("stop_grace_period", log, duration::parse).map(proto_duration);
    spec.read_only = section.flag("read_only", log).unwrap_or(false);
    spec.init = section.flag("init", log).unwrap_or(false);
    spec.cap_add = texts(section, "cap_add", log);
    spec.cap_drop = texts(section, "cap_drop", log);
    spec.group_add = texts(section, "group_add", log);
    for (place, option) in section.list("security_opt", log) {
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => {
                spec.no_new_privileges = true;
            }
            "no-new-privileges:false" | "no-new-privileges=false" => {}
            _ => {
                let path = section.at("security_opt");
                log.error(place, format!("{path}: {option:?} is not supported yet"));
            }
        }
    }
    let path = section.at("sysctls");
    if let Some(sysctls) = section.take("sysctls") {
        let sysctls = pairs(&path, sysctls, log).into_iter();
        spec.sysctls = sysctls.map(|(_, name, value)| (name, value.unwrap_or_default())).collect();
    }
    spec.ulimits = ulimits(section, log);
    let shm = section.parsed("shm_size", log, str::parse::<ByteSize>);
    spec.shm_size_bytes = shm.map_or(0, |size| i64::try_from(size.0).unwrap_or(i64::MAX));
    spec.extra_hosts = extra_hosts(section, log);
    for (place, text) in section.list("expose", log) {
        if let Err(rule) = port::exposed(&text) {
            let path = section.at("expose");
            log.error(place, format!("{path}: {text:?}: {rule}"));
        }
    }
    spec
}

fn texts(section: &mut Section<'_>, key: &str, log: &mut Log<'_>) -> Vec<String> {
    section.list(key, log).into_iter().map(|(_, text)| text).collect()
}

/// A list of arguments, or one text that is split as the shell does.
fn command(section: &mut Section<'_>, key: &str, log: &mut Log<'_>) -> Option<Vec<String>> {
    let path = section.at(key);
    let node = section.take(key)?;
    if let Value::List(_) = node.value {
        let items = section::list(&path, node, log);
        return Some(items.into_iter().map(|(_, text)| text).collect());
    }
    let text = section::text(&path, node, log)?;
    words::split(&text).map_err(|rule| log.error(node.place, format!("{path}: {rule}"))).ok()
}

/// A name alone is passed through from the caller's environment, or is not set.
fn environment(project: &Project<'_>, section: &mut Section<'_>, log: &mut Log<'_>) -> Vec<String> {
    let path = section.at("environment");
    let Some(node) = section.take("environment") else { return Vec::new() };
    let mut set = Vec::new();
    for (place, name, value) in pairs(&path, node, log) {
        if name.is_empty() {
            log.error(place, format!("{path}: a variable without a name"));
            continue;
        }
        let value = value.or_else(|| project.options.environment.get(&name).cloned());
        set.push(match value {
            Some(value) => format!("{name}={value}"),
            None => name,
        });
    }
    set
}

fn ulimits(section: &mut Section<'_>, log: &mut Log<'_>) -> Vec<Ulimit> {
    let path = section.at("ulimits");
    let Some(ulimits) = section.take("ulimits").and_then(|node| Section::of(&path, node, log))
    else {
        return Vec::new();
    };
    let entries = ulimits.entries().into_iter();
    let read = entries.filter_map(|(key, node)| {
        let path = format!("{path}.{}", key.name);
        let (soft, hard) = match &node.value {
            Value::Map(_) => {
                let mut both = Section::of(&path, node, log)?;
                for key in ["soft", "hard"] {
                    if !both.has(key) {
                        let rule = "is missing; want both soft and hard, or one number for both";
                        log.error(both.place(), format!("{}: {rule}", both.at(key)));
                    }
                }
                let soft = both.parsed("soft", log, whole::<i64>);
                let hard = both.parsed("hard", log, whole::<i64>);
                both.finish(&["soft", "hard"], log);
                (soft?, hard?)
            }
            _ => {
                let text = section::text(&path, node, log)?;
                let limit = whole::<i64>(&text)
                    .map_err(|rule| log.error(node.place, format!("{path}: {rule}")))
                    .ok()?;
                (limit, limit)
            }
        };
        Some(Ulimit { name: key.name.clone(), soft, hard })
    });
    read.collect()
}

/// `NAME:IP` and `NAME=IP` lists, and mappings.
fn extra_hosts(section: &mut Section<'_>, log: &mut Log<'_>) -> Vec<String> {
    let path = section.at("extra_hosts");
    let Some(node) = section.take("extra_hosts") else { return Vec::new() };
    let mut hosts = Vec::new();
    for (place, name, address) in pairs(&path, node, log) {
        let split = match &address {
            Some(address) => Some((name.as_str(), address.as_str())),
            None => name.split_once(':'),
        };
        let parsed = split.and_then(|(host, address)| {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            Some((host, address.parse::<std::net::IpAddr>().ok()?))
        });
        match parsed {
            Some((host, address)) => hosts.push(format!("{host}={address}")),
            None => log.error(place, format!("{path}: {name:?} is not NAME=ADDRESS")),
        }
    }
    hosts
}
