//! `deploy.placement` and `platform`: where tasks may be.

use shoal_proto::v1::{Affinity, Placement, PlacementStrategy, Platform};

use crate::diagnostic::Log;
use crate::keys;
use crate::section::{self, Section, whole};
use crate::stack::Project;
use crate::yaml::Value;

/// None when the key is not there.
pub(super) fn read(
    project: &Project<'_>,
    deploy: &mut Section<'_>,
    log: &mut Log<'_>,
) -> Option<Placement> {
    let mut section = deploy.part("placement", log)?;
    let constraints = section.list("constraints", log);
    let most = section.parsed("max_replicas_per_node", log, whole::<u64>);
    let strategy = section.parsed("x-shoal-strategy", log, |text| match text {
        "spread" => Ok(PlacementStrategy::Spread),
        "pack" => Ok(PlacementStrategy::Pack),
        other => Err(format!("{other:?} is no strategy; want spread or pack")),
    });
    let mut placement = Placement {
        constraints: constraints.into_iter().map(|(_, rule)| rule).collect(),
        spread: preferences(&mut section, log),
        max_replicas_per_node: most.unwrap_or(0),
        ..Placement::default()
    };
    for (key, anti) in [("x-shoal-affinity", false), ("x-shoal-anti-affinity", true)] {
        placement.affinities.extend(affinities(project, &mut section, key, anti, log));
    }
    placement.set_strategy(strategy.unwrap_or(PlacementStrategy::Spread));
    section.finish(keys::PLACEMENT, log);
    Some(placement)
}

/// `[{spread: node.labels.zone}]`
fn preferences(placement: &mut Section<'_>, log: &mut Log<'_>) -> Vec<String> {
    let path = placement.at("preferences");
    let mut spread = Vec::new();
    for item in placement.items("preferences", log) {
        let Some(mut section) = Section::of(&path, item, log) else { continue };
        if !section.has("spread") {
            let rule = "is missing; want what to spread over, as in {spread: node.labels.zone}";
            log.error(section.place(), format!("{path}.spread: {rule}"));
        }
        spread.extend(section.parsed("spread", log, topology));
        section.finish(&["spread"], log);
    }
    spread
}

/// Services' names, and mappings that say more.
fn affinities(
    project: &Project<'_>,
    placement: &mut Section<'_>,
    key: &str,
    anti: bool,
    log: &mut Log<'_>,
) -> Vec<Affinity> {
    let path = placement.at(key);
    let mut read = Vec::new();
    for item in placement.items(key, log) {
        let one = |service: String| Affinity { service, anti, ..Affinity::default() };
        let affinity = match &item.value {
            Value::Map(_) => {
                let Some(mut section) = Section::of(&path, item, log) else { continue };
                if !section.has("service") {
                    let rule = "is missing; want the name of a service";
                    log.error(section.place(), format!("{path}.service: {rule}"));
                }
                let service = section.parsed("service", log, |name| service(project, name));
                let topology = section.parsed("topology", log, topology).unwrap_or_default();
                let preferred = section.flag("preferred", log).unwrap_or(false);
                section.finish(&["service", "topology", "preferred"], log);
                service.map(|service| Affinity { topology, preferred, ..one(service) })
            }
            _ => section::text(&path, item, log).and_then(|name| {
                let service = service(project, &name)
                    .map_err(|rule| log.error(item.place, format!("{path}: {rule}")));
                service.ok().map(one)
            }),
        };
        read.extend(affinity);
    }
    read
}

/// The full name: one that is not of this file is another's, as it stands.
fn service(project: &Project<'_>, name: &str) -> Result<String, &'static str> {
    match name {
        "" => Err("want the name of a service"),
        name if project.services.contains(name) => Ok(format!("{}_{name}", project.name)),
        name => Ok(name.to_owned()),
    }
}

/// What nodes share; the managers look at the rest of it.
fn topology(text: &str) -> Result<String, String> {
    if text.starts_with("node.") || text.starts_with("engine.labels.") {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is nothing that nodes share; want one such as node.labels.zone"))
}

/// `OS[/ARCHITECTURE[/VARIANT]]` (compose specification, "platform"). Nodes don't tell variants
/// apart.
pub(super) fn platform(text: &str) -> Result<Platform, String> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 3 || parts.contains(&"") {
        return Err(format!("{text:?} is no platform; want one such as linux/arm64"));
    }
    let part = |index: usize| parts.get(index).map_or_else(String::new, |part| part.to_lowercase());
    Ok(Platform { os: part(0), architecture: part(1) })
}

#[cfg(test)]
mod tests {
    use super::platform;

    #[test]
    fn platforms_are_an_os_and_an_architecture() {
        for (text, os, architecture) in [
            ("linux", "linux", ""),
            ("linux/arm64", "linux", "arm64"),
            ("linux/arm64/v8", "linux", "arm64"),
            ("Linux/AMD64", "linux", "amd64"),
        ] {
            let read = platform(text).unwrap();
            assert_eq!((read.os.as_str(), read.architecture.as_str()), (os, architecture));
        }
        for text in ["", "/arm64", "linux/", "linux/arm64/", "linux/arm/v7/x"] {
            assert!(platform(text).is_err(), "{text}");
        }
    }
}
