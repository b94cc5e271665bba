//! Health checks, as Docker runs them: a command in the container at an interval; so many failures
//! in a row make it unhealthy; failures in the start period don't count.

use std::time::Duration;

use shoal_image::HealthCheck;
use shoal_proto::time::std_duration;
use shoal_proto::v1::ContainerSpec;
use shoal_runtime::ExecRequest;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::node::Node;

const INTERVAL: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
/// Between two reports of checks that fail.
const QUIET: Duration = Duration::from_secs(1);
/// Docker keeps as much of a check's output.
const MAX_OUTPUT: usize = 4096;

/// What to run and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    args: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

/// A change of mind.
pub(crate) enum Verdict {
    Healthy,
    /// Not healthy yet, with the last check's output: one that was not told before, and at the most
    /// one a second.
    NotYet(String),
    /// With the last check's output.
    Unhealthy(String),
}

impl Check {
    /// The service's check, with what it leaves open from the image's; none when there is none.
    pub(crate) fn of(spec: &ContainerSpec, image: Option<&HealthCheck>) -> Option<Self> {
        let check = spec.healthcheck.clone().unwrap_or_default();
        let image = image.cloned().unwrap_or_default();
        let test = if check.test.is_empty() { &image.test } else { &check.test };
        let args = match &test[..] {
            [kind, args @ ..] if kind == "CMD" && !args.is_empty() => args.to_vec(),
            [kind, line] if kind == "CMD-SHELL" => {
                vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()]
            }
            _ => return None,
        };
        let or = |own: &Option<shoal_proto::ProtoDuration>, image: Duration, default| {
            let own = own.as_ref().map(std_duration);
            let set = own.into_iter().chain([image]).find(|set| !set.is_zero());
            set.unwrap_or(default)
        };
        let retries = [check.retries, image.retries].into_iter().find(|retries| *retries > 0);
        Some(Self {
            args,
            interval: or(&check.interval, image.interval, INTERVAL),
            timeout: or(&check.timeout, image.timeout, TIMEOUT),
            start_period: or(&check.start_period, image.start_period, Duration::ZERO),
            start_interval: or(&check.start_interval, image.start_interval, START_INTERVAL),
            retries: retries.unwrap_or(RETRIES),
        })
    }

    fn pause(&self, started: Instant, was_healthy: bool) -> Duration {
        let starting = !was_healthy && started.elapsed() < self.start_period;
        if starting { self.start_interval.min(self.interval) } else { self.interval }
    }
}

/// What was last told of checks that fail.
#[derive(Default)]
struct Told {
    text: String,
    at: Option<Instant>,
}

impl Told {
    /// Whether it is to be told. What comes too soon is left to the checks that follow.
    fn is_news(&mut self, output: &str, now: Instant) -> bool {
        let too_soon = self.at.is_some_and(|at| now.duration_since(at) < QUIET);
        if too_soon || (self.at.is_some() && self.text == output) {
            return false;
        }
        self.text = output.to_owned();
        self.at = Some(now);
        true
    }
}

/// Checks until nobody listens any more. The first check comes at
/// once: a service that is up early is in use early.
pub(crate) async fn run(node: Node, id: String, check: Check, verdicts: mpsc::Sender<Verdict>) {
    let started = Instant::now();
    let mut was_healthy = false;
    let mut failures = 0;
    let mut early = EARLY;
    let mut told = Told::default();
    loop {
        match probe(&node, &id, &check).await {
            Ok(()) => {
                failures = 0;
                if !was_healthy && verdicts.send(Verdict::Healthy).await.is_err() {
                    return;
                }
                was_healthy = true;
            }
            Err(output) => {
                let in_start_period = !was_healthy && started.elapsed() < check.start_period;
                // A program needs a moment to open its port: that is no failure of its.
                let warming_up = !was_healthy && early < check.interval;
                failures += u32::from(!in_start_period && !warming_up);
                if !was_healthy
                    && failures < check.retries
                    && told.is_news(&output, Instant::now())
                    && verdicts.send(Verdict::NotYet(output.clone())).await.is_err()
                {
                    return;
                }
                // Each one tells, with what the check said last; most listeners hear one only.
                if failures >= check.retries {
                    was_healthy = false;
                    if verdicts.send(Verdict::Unhealthy(output)).await.is_err() {
                        return;
                    }
                }
            }
        }
        let pause = check.pause(started, was_healthy);
        if !was_healthy && early < pause {
            tokio::time::sleep(early).await;
            early *= 2;
        } else {
            early = pause;
            tokio::time::sleep(pause).await;
        }
    }
}

/// Between the first checks of a container that is not healthy yet; doubles up to the interval.
const EARLY: Duration = Duration::from_millis(100);

async fn probe(node: &Node, id: &str, check: &Check) -> Result<(), String> {
    let request = ExecRequest {
        args: check.args.clone(),
        timeout_ms: check.timeout.as_millis().try_into().unwrap_or(u64::MAX),
        max_output: MAX_OUTPUT,
        ..ExecRequest::default()
    };
    let (runtime, id) = (node.runtime.clone(), id.to_owned());
    let result = tokio::task::spawn_blocking(move || runtime.exec(&id, &request)).await;
    match result {
        Ok(Ok(result)) if result.timed_out => Err(format!("no answer within {:?}", check.timeout)),
        Ok(Ok(result)) if result.exit_code == 0 => Ok(()),
        Ok(Ok(result)) => {
            let output = String::from_utf8_lossy(&result.output).trim().to_owned();
            Err(format!("exit code {}: {output}", result.exit_code))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_check_is_told_when_it_says_something_else_and_once_a_second() {
        let mut told = Told::default();
        let start = Instant::now();
        for (output, milliseconds, expected) in [
            ("exit code 1: refused", 0, true),
            ("exit code 1: refused", 100, false),
            ("exit code 1: starting", 300, false),
            ("exit code 1: starting", 1500, true),
            ("exit code 1: starting", 9000, false),
            ("exit code 1: refused", 9100, true),
        ] {
            let now = start + Duration::from_millis(milliseconds);
            assert_eq!(told.is_news(output, now), expected, "{output} at {milliseconds}");
        }
    }
}
