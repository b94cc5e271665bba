//! `healthcheck:`

use shoal_proto::duration;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::HealthCheck;

use crate::diagnostic::Log;
use crate::keys;
use crate::section::{self, Section, whole};
use crate::yaml::{Node, Value};

pub(super) fn read(service: &mut Section<'_>, log: &mut Log<'_>) -> Option<HealthCheck> {
    let path = service.at("healthcheck");
    let node = service.take("healthcheck")?;
    let mut section = Section::of(&path, node, log)?;
    let mut check = HealthCheck::default();
    let test_path = section.at("test");
    if let Some(test) = section.take("test") {
        check.test = words(&test_path, test, log).unwrap_or_default();
    }
    if section.flag("disable", log) == Some(true) {
        check.test = vec!["NONE".to_owned()];
    }
    let mut time = |key: &str, log: &mut Log<'_>| {
        section.parsed(key, log, duration::parse).map(proto_duration)
    };
    check.interval = time("interval", log);
    check.timeout = time("timeout", log);
    check.start_period = time("start_period", log);
    check.start_interval = time("start_interval", log);
    check.retries = section.parsed("retries", log, whole::<u32>).unwrap_or(0);
    section.finish(keys::HEALTHCHECK, log);
    Some(check)
}

/// The test with its kind first. None, with one error, when it is neither a list nor a line, or
/// the list has the wrong form.
fn words(path: &str, test: &Node, log: &mut Log<'_>) -> Option<Vec<String>> {
    let Value::List(items) = &test.value else {
        let line = section::text(path, test, log)?;
        return Some(vec!["CMD-SHELL".to_owned(), line]);
    };
    let words: Vec<String> =
        section::list(path, test, log).into_iter().map(|(_, word)| word).collect();
    if words.len() < items.len() {
        return None;
    }
    let right = match words.first().map(String::as_str) {
        Some("NONE") => words.len() == 1,
        Some("CMD") => words.len() > 1,
        Some("CMD-SHELL") => words.len() == 2,
        _ => false,
    };
    if !right {
        let rule = "want [\"CMD\", COMMAND…], [\"CMD-SHELL\", LINE], [\"NONE\"] or a line";
        log.error(test.place, format!("{path}: {rule}"));
    }
    right.then_some(words)
}
