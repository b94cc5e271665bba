//! `depends_on:`

use shoal_proto::v1::{Dependency, DependencyCondition};

use crate::diagnostic::{Log, Place};
use crate::section::{self, Section};
use crate::stack::Project;
use crate::yaml::Value;

pub(super) fn read(
    project: &Project<'_>,
    service: &mut Section<'_>,
    log: &mut Log<'_>,
) -> Vec<Dependency> {
    let path = service.at("depends_on");
    let Some(node) = service.take("depends_on") else { return Vec::new() };
    let Value::Map(_) = &node.value else {
        let names = section::list(&path, node, log).into_iter();
        let read = names.filter_map(|(place, name)| {
            known(project, &path, place, &name, true, log)?;
            Some(dependency(project, &name, DependencyCondition::Started, true))
        });
        return read.collect();
    };
    let Some(entries) = Section::of(&path, node, log).map(Section::entries) else {
        return Vec::new();
    };
    let read = entries.into_iter().filter_map(|(key, node)| {
        let path = format!("{path}.{}", key.name);
        let mut section = Section::of(&path, node, log)?;
        let condition = section.parsed("condition", log, |text| match text {
            "service_started" => Ok(DependencyCondition::Started),
            "service_healthy" => Ok(DependencyCondition::Healthy),
            "service_completed_successfully" => Ok(DependencyCondition::Completed),
            other => Err(format!(
                "{other:?} is no condition; want service_started, service_healthy or \
                 service_completed_successfully"
            )),
        });
        let required = section.flag("required", log).unwrap_or(true);
        if section.flag("restart", log) == Some(true) {
            log.error(key.place, format!("{path}.restart: not supported yet"));
        }
        section.finish(&["condition", "required", "restart"], log);
        known(project, &path, key.place, &key.name, required, log)?;
        let condition = condition.unwrap_or(DependencyCondition::Started);
        Some(dependency(project, &key.name, condition, required))
    });
    read.collect()
}

fn known(
    project: &Project<'_>,
    path: &str,
    place: Place,
    name: &str,
    required: bool,
    log: &mut Log<'_>,
) -> Option<()> {
    if required && !project.services.contains(name) {
        log.error(place, format!("{path}: there is no service {name:?}"));
        return None;
    }
    Some(())
}

fn dependency(
    project: &Project<'_>,
    name: &str,
    condition: DependencyCondition,
    required: bool,
) -> Dependency {
    Dependency {
        service: format!("{}_{name}", project.name),
        condition: condition.into(),
        required,
    }
}
