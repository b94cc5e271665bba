//! When a job that is run again and again is due: cron's five fields in a time zone.

use std::str::FromStr;
use std::time::SystemTime;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use shoal_proto::v1::Schedule as Spec;

/// A text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Cron's fields.
    #[error(
        "the schedule {text:?} can't be read: {reason}; want minute, hour, day of the month, month \
         and day of the week, as in \"*/5 * * * *\", or @hourly, @daily, @weekly, @monthly"
    )]
    Cron {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It never comes.
    #[error("the schedule {text:?} never comes")]
    Never {
        /// As given.
        text: String,
    },
    /// A zone that nobody knows.
    #[error("the time zone {name:?} is unknown; want one such as Europe/Berlin")]
    Zone {
        /// As given.
        name: String,
    },
}

/// A schedule that was understood.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads it.
    ///
    /// # Errors
    /// Its fields are none, or there is no such time zone.
    pub fn of(spec: &Spec) -> Result<Self, ScheduleError> {
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let text = spec.cron.trim().to_owned();
        let cron = parser.parse(&text).map_err(|error| ScheduleError::Cron {
            text: text.clone(),
            reason: error.to_string(),
        })?;
        let zone = match spec.time_zone.as_str() {
            "" => TimeZone::UTC,
            name => {
                TimeZone::get(name).map_err(|_| ScheduleError::Zone { name: name.to_owned() })?
            }
        };
        Ok(Self { cron, zone })
    }

    /// Whether it ever comes after that time.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, now: SystemTime) -> Result<(), ScheduleError> {
        match self.after(now) {
            Some(_) => Ok(()),
            None => Err(ScheduleError::Never { text: self.cron.as_str().to_owned() }),
        }
    }

    fn zoned(&self, at: SystemTime) -> Option<Zoned> {
        Some(Timestamp::try_from(at).ok()?.to_zoned(self.zone.clone()))
    }

    /// The first time after that one.
    #[must_use]
    pub fn after(&self, at: SystemTime) -> Option<SystemTime> {
        let next = self.cron.find_next_occurrence(&self.zoned(at)?, false).ok()?;
        Some(next.timestamp().into())
    }

    /// The last time that is not after that one.
    #[must_use]
    pub fn until(&self, at: SystemTime) -> Option<SystemTime> {
        let last = self.cron.find_previous_occurrence(&self.zoned(at)?, true).ok()?;
        Some(last.timestamp().into())
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        Self::of(&Spec { cron: text.to_owned(), ..Spec::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn next(cron: &str, zone: &str, from: &str) -> Option<SystemTime> {
        let (cron, time_zone) = (cron.to_owned(), zone.to_owned());
        Schedule::of(&Spec { cron, time_zone, ..Spec::default() }).unwrap().after(at(from))
    }

    #[test]
    fn times_come_in_their_time_zone() {
        for (cron, zone, from, wanted) in [
            ("*/5 * * * *", "", "2026-01-01T00:01:00Z", "2026-01-01T00:05:00Z"),
            ("*/5 * * * *", "", "2026-01-01T00:05:00Z", "2026-01-01T00:10:00Z"),
            ("@daily", "", "2026-01-01T00:01:00Z", "2026-01-02T00:00:00Z"),
            ("30 6 * * 1-5", "Europe/Berlin", "2026-07-03T12:00:00Z", "2026-07-06T04:30:00Z"),
            // The clocks go forward: half past two is not there that day.
            ("0 12 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T10:00:00Z"),
        ] {
            assert_eq!(next(cron, zone, from), Some(at(wanted)), "{cron} {zone} from {from}");
        }
        let hourly: Schedule = "@hourly".parse().unwrap();
        assert_eq!(hourly.until(at("2026-01-01T00:59:59Z")), Some(at("2026-01-01T00:00:00Z")));
        assert_eq!(hourly.until(at("2026-01-01T01:00:00Z")), Some(at("2026-01-01T01:00:00Z")));
    }

    #[test]
    fn what_is_no_schedule_is_told_why() {
        for (cron, zone, words) in [
            ("* * * *", "", "can't be read"),
            ("* * * * * *", "", "can't be read"),
            ("61 * * * *", "", "can't be read"),
            ("every day", "", "can't be read"),
            ("@daily", "Mars/Base", "the time zone \"Mars/Base\" is unknown"),
        ] {
            let (cron, time_zone) = (cron.to_owned(), zone.to_owned());
            let spec = Spec { cron, time_zone, ..Spec::default() };
            let error = Schedule::of(&spec).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let never: Schedule = "0 0 30 2 *".parse().unwrap();
        assert!(never.check(at("2026-01-01T00:00:00Z")).is_err());
    }
}
