//! The top level: names, networks, volumes, secrets, configs, services, and that they fit
//! together.

mod payload;
mod volume;

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::v1::{NetworkSpec, PayloadKind, StackNetwork, StackService, StackSpec};

pub use payload::PayloadFile;

use crate::diagnostic::Log;
use crate::name::{is_key, is_project_name, normalize_project_name};
use crate::section::{self, Section};
use crate::yaml::{Node, Value};
use crate::{LoadOptions, cycle, keys, service};

/// What services refer to.
pub(crate) struct Project<'a> {
    pub(crate) name: String,
    pub(crate) options: &'a LoadOptions<'a>,
    pub(crate) networks: BTreeSet<String>,
    /// By their keys.
    pub(crate) volumes: BTreeMap<String, Volume>,
    /// Full names by keys.
    secrets: BTreeMap<String, String>,
    configs: BTreeMap<String, String>,
    pub(crate) services: BTreeSet<String>,
}

/// What a service must know of a volume.
pub(crate) struct Volume {
    /// On the node.
    pub(crate) name: String,
    pub(crate) movable: bool,
}

impl Project<'_> {
    /// Full names of secrets or configs by their keys.
    pub(crate) fn payloads(&self, kind: PayloadKind) -> &BTreeMap<String, String> {
        match kind {
            PayloadKind::Secret => &self.secrets,
            PayloadKind::Config => &self.configs,
        }
    }
}

/// The spec, and the files that have data of it.
pub(crate) fn read(
    root: &Node,
    options: &LoadOptions<'_>,
    log: &mut Log<'_>,
) -> Option<(StackSpec, Vec<PayloadFile>)> {
    let mut top = Section::of("", root, log)?;
    if let Some(version) = top.take("version") {
        log.warn(version.place, "version: is obsolete and has no effect; it can be taken out");
    }
    let name = project_name(&mut top, options, log)?;
    let mut networks = networks(&name, top.take("networks"), log);
    let volumes = volume::read(&name, top.take("volumes"), log);
    let secrets = payload::read(&name, options, PayloadKind::Secret, top.take("secrets"), log);
    let configs = payload::read(&name, options, PayloadKind::Config, top.take("configs"), log);
    let place = top.place();
    let Some(services) = top.take("services") else {
        log.error(place, "services: is missing; a compose file has at least one service");
        return None;
    };
    top.finish(keys::TOP, log);
    let entries = Section::of("services", services, log)?.entries();
    if !networks.iter().any(|network| network.key == "default") {
        networks.push(network(&name, "default"));
    }
    let project = Project {
        options,
        networks: networks.iter().map(|network| network.key.clone()).collect(),
        volumes: volumes
            .iter()
            .map(|(volume, movable)| {
                (volume.key.clone(), Volume { name: volume.name.clone(), movable: *movable })
            })
            .collect(),
        secrets: payload::names(&secrets),
        configs: payload::names(&configs),
        services: entries
            .iter()
            .map(|(key, _)| key.name.clone())
            .filter(|name| !name.starts_with("x-"))
            .collect(),
        name,
    };
    let mut read = Vec::new();
    for (key, node) in entries {
        if key.name.starts_with("x-") {
            continue;
        }
        if !is_key(&key.name) {
            let rule = "a service's name has letters, digits, '.', '_' and '-'";
            log.error(key.place, format!("services: {:?}: {rule}", key.name));
            continue;
        }
        let spec = service::read(&project, &key.name, node, log);
        read.extend(spec.map(|spec| StackService { name: key.name.clone(), spec: Some(spec) }));
    }
    if read.is_empty() {
        log.error(services.place, "services: there is none");
    }
    cycle::check(&project.name, &read, services.place, log);
    check_ports(&read, services, log);
    let used: BTreeSet<String> = read
        .iter()
        .flat_map(|service| service.spec.iter().flat_map(|spec| &spec.task))
        .flat_map(|task| task.networks.iter().map(|attached| attached.network_id.clone()))
        .collect();
    networks.retain(|network| network.external || used.contains(&network.key));
    let (payloads, files) = payload::kept(secrets.into_iter().chain(configs), &read);
    let volumes = volumes.into_iter().map(|(volume, _)| volume).collect();
    let spec = StackSpec { name: project.name, services: read, networks, volumes, payloads };
    Some((spec, files))
}

/// The argument, `COMPOSE_PROJECT_NAME`, `name:`, the folder (compose specification, "Version and
/// name top-level elements", and Compose's documentation, "Specify a project name").
fn project_name(
    top: &mut Section<'_>,
    options: &LoadOptions<'_>,
    log: &mut Log<'_>,
) -> Option<String> {
    let node = top.take("name");
    let own = node.and_then(|node| section::text("name", node, log));
    let variable = options.environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty());
    let outside = options.project_name.or(variable.map(String::as_str));
    let place = match (outside, node) {
        (None, Some(node)) => node.place,
        _ => top.place(),
    };
    match outside.map(str::to_owned).or(own) {
        Some(name) if is_project_name(&name) => Some(name),
        Some(name) => {
            let origin = match (options.project_name, variable) {
                (None, Some(_)) => " in COMPOSE_PROJECT_NAME",
                _ => "",
            };
            let rule =
                "a name has lower-case letters, digits, '-' and '_', a letter or digit first";
            log.error(place, format!("the stack's name {name:?}{origin} can't be one: {rule}"));
            None
        }
        None => {
            let name = normalize_project_name(options.default_name);
            if name.is_empty() {
                log.error(place, "the folder's name gives no name for the stack; give one");
                return None;
            }
            Some(name)
        }
    }
}

fn network(project: &str, key: &str) -> StackNetwork {
    StackNetwork {
        key: key.to_owned(),
        spec: Some(NetworkSpec { name: format!("{project}_{key}"), ..NetworkSpec::default() }),
        external: false,
    }
}

/// `external: true`, or the older mapping with a name.
fn external(section: &mut Section<'_>, log: &mut Log<'_>) -> Option<(bool, Option<String>)> {
    let path = section.at("external");
    let node = section.take("external")?;
    if let Value::Map(_) = node.value {
        let mut inner = Section::of(&path, node, log)?;
        let name = inner.text("name", log);
        inner.finish(&["name"], log);
        return Some((true, name));
    }
    section::flag(&path, node, log).map(|flag| (flag, None))
}

fn networks(project: &str, node: Option<&Node>, log: &mut Log<'_>) -> Vec<StackNetwork> {
    let Some(section) = node.and_then(|node| Section::of("networks", node, log)) else {
        return Vec::new();
    };
    let entries = section.entries().into_iter();
    let read = entries.filter_map(|(key, node)| {
        if key.name.starts_with("x-") {
            return None;
        }
        let mut section = Section::of(&format!("networks.{}", key.name), node, log)?;
        let mut network = network(project, &key.name);
        let mut spec = network.spec.take().unwrap_or_default();
        let external = external(&mut section, log);
        if let Some((is_external, old_name)) = external {
            network.external = is_external;
            if is_external {
                spec.name = old_name.unwrap_or_else(|| key.name.clone());
            }
        }
        if let Some(name) = section.text("name", log) {
            spec.name = name;
        }
        let driver_path = section.at("driver");
        if let Some(driver) = section.take("driver") {
            let name = section::text(&driver_path, driver, log).unwrap_or_default();
            if !matches!(name.as_str(), "bridge" | "overlay" | "default" | "") {
                let rule =
                    "there is one kind of network; leave the driver out, or use overlay or bridge";
                log.error(
                    driver.place,
                    format!("{driver_path}: {name:?} is not supported: {rule}"),
                );
            }
        }
        spec.internal = section.flag("internal", log).unwrap_or(false);
        spec.attachable = section.flag("attachable", log).unwrap_or(false);
        spec.labels = section.labels(log);
        ipam(&mut section, &mut spec, log);
        section.finish(keys::NETWORK, log);
        network.spec = Some(spec);
        Some(network)
    });
    read.collect()
}

fn ipam(section: &mut Section<'_>, spec: &mut NetworkSpec, log: &mut Log<'_>) {
    let path = section.at("ipam");
    let Some(node) = section.take("ipam") else { return };
    let Some(mut ipam) = Section::of(&path, node, log) else { return };
    let _default_driver = ipam.text("driver", log);
    let config_path = ipam.at("config");
    let config = ipam.take("config");
    ipam.finish(&["driver", "config", "options"], log);
    let Some(config) = config else { return };
    let Value::List(ranges) = &config.value else {
        log.error(
            config.place,
            format!("{config_path}: want a list, found {}", config.value.describe()),
        );
        return;
    };
    if let Some(second) = ranges.get(1) {
        log.error(second.place, format!("{config_path}: a network has one range"));
    }
    let Some(mut range) = ranges.first().and_then(|node| Section::of(&config_path, node, log))
    else {
        return;
    };
    spec.subnet = range.text("subnet", log).unwrap_or_default();
    spec.gateway = range.text("gateway", log).unwrap_or_default();
    range.finish(&["subnet", "gateway", "ip_range", "aux_addresses"], log);
}

fn check_ports(services: &[StackService], node: &Node, log: &mut Log<'_>) {
    let mut seen: BTreeMap<(u32, i32, String), &str> = BTreeMap::new();
    for service in services {
        for port in service.spec.iter().flat_map(|spec| &spec.ports) {
            if port.published_port == 0 {
                continue;
            }
            let key = (port.published_port, port.protocol, port.host_ip.clone());
            if let Some(other) = seen.insert(key, &service.name) {
                let (number, protocol) = (port.published_port, port.protocol());
                let name = &service.name;
                log.error(
                    node.place,
                    format!("port {number}/{protocol} is published by {other} and by {name}"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{LoadOptions, SourceFile, load};

    fn name(argument: Option<&str>, variable: Option<&str>, line: &str) -> String {
        let text = format!("{line}\nservices: {{web: {{image: nginx}}}}\n");
        let source = SourceFile { path: "compose.yml".to_owned(), text };
        let environment: BTreeMap<String, String> = variable
            .map(|value| ("COMPOSE_PROJECT_NAME".to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        let options = LoadOptions {
            project_name: argument,
            default_name: "folder",
            working_dir: "/srv/folder",
            environment: &environment,
        };
        load(&source, &options).unwrap().spec.name
    }

    #[test]
    fn the_name_comes_from_the_argument_the_variable_the_file_and_the_folder_in_this_order() {
        assert_eq!(name(Some("argument"), Some("variable"), "name: file"), "argument");
        assert_eq!(name(None, Some("variable"), "name: file"), "variable");
        assert_eq!(name(None, Some(""), "name: file"), "file");
        assert_eq!(name(None, None, "name: file"), "file");
        assert_eq!(name(None, None, ""), "folder");
    }
}
