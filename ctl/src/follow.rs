//! Waits for services, and shows how they get on: live on a terminal; elsewhere with one line for
//! each service that is as asked for.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shoal_proto::v1::WatchRequest;
use tokio_stream::StreamExt;

use crate::client::Client;
use crate::output;
use crate::progress::{Line, Progress, Verdict};

/// Ctrl-C, in a shell's numbers.
const INTERRUPTED: u8 = 130;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// All tasks run; those of jobs are over.
    Up,
    /// Nothing is left.
    Gone,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Patience {
    /// Give up after this. None: never.
    pub(crate) timeout: Option<Duration>,
    /// All must be as asked for this long: a program that ends right after its start is not up.
    pub(crate) monitor: Duration,
}

/// Waits until the goal is reached.
pub(crate) async fn follow(
    client: &mut Client,
    request: WatchRequest,
    progress: Progress,
    goal: Goal,
    patience: Patience,
) -> anyhow::Result<ExitCode> {
    wait(client, request, progress, goal, patience, Display::new()).await
}

/// The same without a word on the way.
pub(crate) async fn follow_quietly(
    client: &mut Client,
    request: WatchRequest,
    progress: Progress,
    goal: Goal,
    patience: Patience,
) -> anyhow::Result<ExitCode> {
    wait(client, request, progress, goal, patience, Display::None).await
}

async fn wait(
    client: &mut Client,
    request: WatchRequest,
    mut progress: Progress,
    goal: Goal,
    Patience { timeout, monitor }: Patience,
    mut display: Display,
) -> anyhow::Result<ExitCode> {
    let mut events = match client.control.watch(request).await {
        Ok(events) => events.into_inner(),
        // Gone before it could be watched.
        Err(status) if goal == Goal::Gone && status.code() == tonic::Code::NotFound => {
            return Ok(ExitCode::SUCCESS);
        }
        Err(status) => return Err(status.into()),
    };
    let deadline = tokio::time::sleep(timeout.unwrap_or(Duration::from_secs(u32::MAX.into())));
    tokio::pin!(deadline);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut stable_at: Option<tokio::time::Instant> = None;
    loop {
        let stable = tokio::time::sleep_until(stable_at.unwrap_or_else(tokio::time::Instant::now));
        let event = tokio::select! {
            event = events.next() => event,
            () = stable, if stable_at.is_some() => {
                display.end();
                return Ok(ExitCode::SUCCESS);
            }
            () = &mut deadline, if timeout.is_some() => {
                display.end();
                let mut message = "not all is as asked for in time".to_owned();
                progress.reasons().iter().for_each(|reason| message.push_str(&format!("\n  {reason}")));
                bail!("{message}");
            }
            _ = &mut interrupt => {
                display.end();
                output::note("no longer waiting; the cluster goes on");
                return Ok(ExitCode::from(INTERRUPTED));
            }
        };
        let Some(event) = event.transpose()? else { bail!("the agent ended the connection") };
        progress.take(match event.event {
            Some(event) => event,
            None => continue,
        });
        if goal == Goal::Gone {
            if progress.is_gone() {
                return Ok(ExitCode::SUCCESS);
            }
            continue;
        }
        display.show(&progress);
        match progress.verdict() {
            Verdict::Waiting => stable_at = None,
            Verdict::Done => {
                stable_at.get_or_insert_with(|| tokio::time::Instant::now() + monitor);
            }
            Verdict::Failed(reasons) => {
                display.end();
                bail!("not all is as asked for\n  {}", reasons.join("\n  "));
            }
        }
    }
}

enum Display {
    Live { all: MultiProgress, bars: BTreeMap<String, ProgressBar> },
    Lines { last: BTreeMap<String, String> },
    None,
}

impl Display {
    fn new() -> Self {
        if output::on_terminal() {
            return Self::Live { all: MultiProgress::new(), bars: BTreeMap::new() };
        }
        Self::Lines { last: BTreeMap::new() }
    }

    fn show(&mut self, progress: &Progress) {
        for Line { name, up, wanted, state, doing } in progress.lines() {
            match self {
                Self::Live { all, bars } => {
                    let bar = bars.entry(name.clone()).or_insert_with(|| {
                        let bar = all.add(ProgressBar::new(wanted));
                        let style =
                            ProgressStyle::with_template("{prefix:<24} {pos}/{len} {bar:20} {msg}");
                        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                        bar.set_prefix(name);
                        bar
                    });
                    bar.set_length(wanted);
                    bar.set_position(up);
                    bar.set_message(doing);
                }
                Self::Lines { last } => {
                    let line = format!("{name}: {up}/{wanted} {state}");
                    // One that stays as it is is told of once.
                    let news = last.insert(name, line.clone()).as_ref() != Some(&line);
                    if news && up == wanted {
                        output::note(line);
                    }
                }
                Self::None => {}
            }
        }
    }

    /// Leaves the last state on the screen.
    fn end(&mut self) {
        if let Self::Live { bars, .. } = self {
            bars.values().for_each(ProgressBar::abandon);
        }
    }
}
