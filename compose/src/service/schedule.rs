//! `x-shoal-schedule:`, when a job is run again: a line as cron has it, or a mapping that says
//! more. The managers read the line; here is seen whether it is one.

use shoal_proto::duration;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{ConcurrencyPolicy, Schedule};

use crate::diagnostic::Log;
use crate::section::{self, Section};
use crate::yaml::Value;

const KEYS: &[&str] = &["concurrency", "cron", "starting_deadline", "suspended", "time_zone"];

const NAMES: [&str; 6] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"];

pub(super) fn read(service: &mut Section<'_>, log: &mut Log<'_>) -> Option<Schedule> {
    let path = service.at("x-shoal-schedule");
    let node = service.take("x-shoal-schedule")?;
    let Value::Map(_) = &node.value else {
        let text = section::text(&path, node, log)?;
        let cron = cron(&text).map_err(|rule| log.error(node.place, format!("{path}: {rule}")));
        return cron.ok().map(|cron| Schedule { cron, ..Schedule::default() });
    };
    let mut section = Section::of(&path, node, log)?;
    if !section.has("cron") {
        let rule = "is missing; want five fields, as in \"*/5 * * * *\"";
        log.error(section.place(), format!("{path}.cron: {rule}"));
    }
    let mut schedule = Schedule {
        cron: section.parsed("cron", log, cron).unwrap_or_default(),
        time_zone: section.text("time_zone", log).unwrap_or_default(),
        starting_deadline: section
            .parsed("starting_deadline", log, duration::parse)
            .map(proto_duration),
        suspended: section.flag("suspended", log).unwrap_or(false),
        ..Schedule::default()
    };
    let concurrency = section.parsed("concurrency", log, |text| match text {
        "forbid" => Ok(ConcurrencyPolicy::Forbid),
        "allow" => Ok(ConcurrencyPolicy::Allow),
        "replace" => Ok(ConcurrencyPolicy::Replace),
        other => Err(format!("{other:?} is no policy; want forbid, allow or replace")),
    });
    schedule.set_concurrency(concurrency.unwrap_or(ConcurrencyPolicy::Forbid));
    section.finish(KEYS, log);
    Some(schedule)
}

fn cron(text: &str) -> Result<String, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields[..] {
        [name] if NAMES.contains(&name) => Ok(name.to_owned()),
        [name] if name.starts_with('@') => {
            Err(format!("{name:?} is no time; want one of {}", NAMES.join(", ")))
        }
        [_, _, _, _, _] => Ok(fields.join(" ")),
        _ => {
            let rule = "want five fields (minute, hour, day, month, weekday) or a name such as";
            Err(format!("{text:?} has {} fields; {rule} @daily", fields.len()))
        }
    }
}
