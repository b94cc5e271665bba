//! `healthcheck:`

use shoal_proto::duration;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::HealthCheck;

use crate::diagnostic::Log;
use crate::keys;
use crate::section::{self, Section};
use crate::yaml::Value;

pub(super) fn read(service: &mut Section<'_>, log: &mut Log<'_>) -> Option<HealthCheck> {
    let path = service.at("healthcheck");
    let node = service.take("healthcheck")?;
    let mut section = Section::of(&path, node, log)?;
    let mut check = HealthCheck::default();
    let test_path = section.at("test");
    if let Some(test) = section.take("test") {
        check.test = match &test.value {
            Value::List(_) => {
                let words = section::list(&test_path, test, log);
                words.into_iter().map(|(_, word)| word).collect()
            }
            _ => match section::text(&test_path, test, log) {
                Some(line) => vec!["CMD-SHELL".to_owned(), line],
                None => Vec::new(),
            },
        };
        let first = check.test.first().map(String::as_str);
        let right = match first {
            Some("NONE") => check.test.len() == 1,
            Some("CMD") => check.test.len() > 1,
            Some("CMD-SHELL") => check.test.len() == 2,
            _ => false,
        };
        if !right {
            let rule = "want [\"CMD\", COMMAND…], [\"CMD-SHELL\", LINE], [\"NONE\"] or a line";
            log.error(test.place, format!("{test_path}: {rule}"));
        }
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
    check.retries = section.parsed("retries", log, str::parse::<u32>).unwrap_or(0);
    section.finish(keys::HEALTHCHECK, log);
    Some(check)
}
