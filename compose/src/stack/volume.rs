//! `volumes:` at the top level.

use shoal_proto::v1::StackVolume;

use super::external;
use crate::diagnostic::Log;
use crate::keys;
use crate::section::{self, Section};
use crate::yaml::Node;

/// Each with whether tasks may leave it behind (`x-shoal-movable`).
pub(super) fn read(
    project: &str,
    node: Option<&Node>,
    log: &mut Log<'_>,
) -> Vec<(StackVolume, bool)> {
    let Some(section) = node.and_then(|node| Section::of("volumes", node, log)) else {
        return Vec::new();
    };
    let entries = section.entries().into_iter();
    let read = entries.filter_map(|(key, node)| {
        if key.name.starts_with("x-") {
            return None;
        }
        let mut section = Section::of(&format!("volumes.{}", key.name), node, log)?;
        let external = external(&mut section, log);
        let own_name = section.text("name", log);
        let driver_path = section.at("driver");
        if let Some(driver) = section.take("driver") {
            let name = section::text(&driver_path, driver, log).unwrap_or_default();
            if name != "local" {
                log.error(
                    driver.place,
                    format!("{driver_path}: {name:?} is not supported yet; only local is"),
                );
            }
        }
        // Labels of volumes are for people; they are checked and not kept.
        let _: Vec<(String, String)> = section.labels(log);
        let movable = section.flag("x-shoal-movable", log).unwrap_or(false);
        section.finish(keys::VOLUME, log);
        let (is_external, old_name) = external.unwrap_or_default();
        let own = own_name.or(old_name);
        let name = own.unwrap_or_else(|| match is_external {
            true => key.name.clone(),
            false => format!("{project}_{}", key.name),
        });
        Some((StackVolume { key: key.name.clone(), name, external: is_external }, movable))
    });
    read.collect()
}
