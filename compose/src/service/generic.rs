//! `generic_resources:` of `deploy.resources.reservations`, each kind once.

use shoal_proto::v1::GenericReservation;

use crate::diagnostic::Log;
use crate::section::{Section, whole};

const SPEC: &str = "discrete_resource_spec";

pub(super) fn read(reservations: &mut Section<'_>, log: &mut Log<'_>) -> Vec<GenericReservation> {
    let path = reservations.at("generic_resources");
    let mut read: Vec<GenericReservation> = Vec::new();
    for item in reservations.items("generic_resources", log) {
        let Some(mut section) = Section::of(&path, item, log) else { continue };
        let one = discrete(&mut section, log);
        section.finish(&[SPEC], log);
        let Some(one) = one else { continue };
        if read.iter().any(|other| other.kind == one.kind) {
            log.error(item.place, format!("{path}: {:?} is there twice", one.kind));
            continue;
        }
        read.push(one);
    }
    read
}

/// `discrete_resource_spec: {kind: gpu, value: 2}`
fn discrete(section: &mut Section<'_>, log: &mut Log<'_>) -> Option<GenericReservation> {
    let path = section.at(SPEC);
    let Some(node) = section.take(SPEC) else {
        let rule = "is missing; want a kind and a number, as in {kind: gpu, value: 2}";
        log.error(section.place(), format!("{path}: {rule}"));
        return None;
    };
    let mut spec = Section::of(&path, node, log)?;
    for (key, want) in [("kind", "a name such as gpu"), ("value", "how many")] {
        if !spec.has(key) {
            log.error(spec.place(), format!("{path}.{key}: is missing; want {want}"));
        }
    }
    let kind = spec.parsed("kind", log, |text| match text {
        "" => Err("want a name such as gpu"),
        kind => Ok(kind.to_owned()),
    });
    let count = spec.parsed("value", log, |text| match whole::<u64>(text) {
        Ok(0) => Err("want 1 or more".to_owned()),
        count => count,
    });
    spec.finish(&["kind", "value"], log);
    Some(GenericReservation { kind: kind?, count: count? })
}
