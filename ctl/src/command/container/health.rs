//! Health checks, as `docker run` and `docker service` name their options.

use std::time::Duration;

use clap::Args;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::HealthCheck;
use shoal_proto::{ProtoDuration, duration};

/// The first word of a check that says that there is none.
const OFF: &str = "NONE";

/// How a container is seen to be well.
#[derive(Debug, Args)]
pub(in crate::command) struct Health {
    /// Command that tells whether it is well
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    health_interval: Option<Duration>,
    /// How long a check may take [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    health_timeout: Option<Duration>,
    /// While failures don't count [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    health_start_period: Option<Duration>,
    /// Time between two checks in the start period [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    health_start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy [default: 3]
    #[arg(long, value_name = "TIMES")]
    health_retries: Option<u32>,
    /// No health check, though the image has one
    #[arg(
        long,
        conflicts_with_all = [
            "health_cmd", "health_interval", "health_timeout", "health_start_period",
            "health_start_interval", "health_retries",
        ]
    )]
    no_healthcheck: bool,
}

impl Health {
    /// Changes what was given. A command that is empty is the image's.
    pub(in crate::command) fn apply(&self, check: &mut Option<HealthCheck>) {
        if self.no_healthcheck {
            *check = Some(HealthCheck { test: vec![OFF.to_owned()], ..HealthCheck::default() });
            return;
        }
        let times = [
            self.health_interval,
            self.health_timeout,
            self.health_start_period,
            self.health_start_interval,
        ];
        let is_asked = self.health_cmd.is_some() || self.health_retries.is_some();
        if !is_asked && times.iter().all(Option::is_none) {
            return;
        }
        let check = check.get_or_insert_default();
        if check.test == [OFF] {
            check.test.clear();
        }
        if let Some(line) = &self.health_cmd {
            check.test = match line.as_str() {
                "" => Vec::new(),
                line => vec!["CMD-SHELL".to_owned(), line.to_owned()],
            };
        }
        let fields: [&mut Option<ProtoDuration>; 4] = [
            &mut check.interval,
            &mut check.timeout,
            &mut check.start_period,
            &mut check.start_interval,
        ];
        for (field, time) in fields.into_iter().zip(times) {
            if let Some(time) = time {
                *field = Some(proto_duration(time));
            }
        }
        if let Some(retries) = self.health_retries {
            check.retries = retries;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health {
            health_cmd: None,
            health_interval: None,
            health_timeout: None,
            health_start_period: None,
            health_start_interval: None,
            health_retries: None,
            no_healthcheck: false,
        }
    }

    #[test]
    fn what_is_not_given_stays() {
        let mut check = None;
        health().apply(&mut check);
        assert_eq!(check, None);
        let line = Some("true".to_owned());
        Health { health_cmd: line, health_retries: Some(2), ..health() }.apply(&mut check);
        Health { health_interval: Some(Duration::from_secs(1)), ..health() }.apply(&mut check);
        let made = check.clone().unwrap();
        assert_eq!((made.test, made.retries), (vec!["CMD-SHELL".into(), "true".into()], 2));
        assert_eq!(made.interval.unwrap().seconds, 1);
        Health { no_healthcheck: true, ..health() }.apply(&mut check);
        assert_eq!(check.clone().unwrap().test, [OFF]);
        // Other times, and the image's command again.
        Health { health_retries: Some(5), ..health() }.apply(&mut check);
        assert!(check.unwrap().test.is_empty());
    }
}
