//! `ctl stack logs` and `ctl service logs`.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use shoal_proto::Timestamp;
use shoal_proto::v1::{LogEntry, LogOptions, LogStream, LogsRequest};
use tokio_stream::StreamExt;

use crate::client::Client;
use crate::resume::{Resume, ask_again, is_broken};
use crate::{output, when};

/// Which part of the logs.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Go on as lines are written, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Lines from the end of each task's log, or "all"
    #[arg(short = 'n', long, default_value = "all", value_parser = tail, allow_hyphen_values = true)]
    tail: i64,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Lines not older than this: a time (2026-01-31T12:00:00Z) or an age (10m)
    #[arg(long, value_parser = when::parse)]
    since: Option<Timestamp>,
    /// Lines not newer than this: a time or an age
    #[arg(long, value_parser = when::parse)]
    until: Option<Timestamp>,
    /// Don't show which task each line is from
    #[arg(long)]
    no_task: bool,
    /// No colours, also on a terminal
    #[arg(long)]
    no_color: bool,
}

pub(super) fn tail(text: &str) -> Result<i64, String> {
    match text {
        "all" => Ok(-1),
        text => text.parse().map_err(|_| format!("{text:?} is neither a number nor \"all\"")),
    }
}

pub(super) async fn show(
    client: &mut Client,
    mut request: LogsRequest,
    args: &LogArgs,
) -> anyhow::Result<ExitCode> {
    request.options = Some(LogOptions {
        follow: args.follow,
        tail: args.tail,
        since: args.since,
        until: args.until,
    });
    let mut entries = client.control.logs(request.clone()).await?.into_inner();
    let mut resume = Resume::default();
    let mut code = ExitCode::SUCCESS;
    loop {
        let entry = tokio::select! {
            entry = entries.next() => entry.transpose(),
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
        };
        match entry {
            Ok(Some(entry)) if !entry.error.is_empty() => {
                output::note(format!("error: {}", entry.error));
                code = ExitCode::FAILURE;
            }
            Ok(Some(entry)) if resume.take(&entry) => print(&entry, args)?,
            Ok(Some(_)) => {}
            Ok(None) if !args.follow => return Ok(code),
            Err(status) if !(args.follow && is_broken(&status)) => return Err(status.into()),
            // What is followed has no end but the agent's.
            Ok(None) | Err(_) => {
                if let Some(since) = resume.begin_again()
                    && let Some(options) = &mut request.options
                {
                    (options.since, options.tail) = (Some(since), -1);
                }
                let again = ask_again(async || client.control.logs(request.clone()).await);
                entries = tokio::select! {
                    answer = again => answer?.into_inner(),
                    _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
                };
            }
        }
    }
}

fn print(entry: &LogEntry, args: &LogArgs) -> io::Result<()> {
    let mut line = Vec::new();
    if !args.no_task {
        let name = format!("{}.{}", entry.service_name, entry.slot);
        if io::stdout().is_terminal() && !args.no_color && std::env::var_os("NO_COLOR").is_none() {
            // One of six colours for each slot.
            let colour = 31 + entry.slot % 6;
            line.extend(format!("\x1b[{colour}m{name} |\x1b[0m ").bytes());
        } else {
            line.extend(format!("{name} | ").bytes());
        }
    }
    print_line(entry, line, args.timestamps)
}

/// An entry behind what stands before it, on the stream that it was written to.
pub(super) fn print_line(entry: &LogEntry, head: Vec<u8>, timestamps: bool) -> io::Result<()> {
    let mut line = head;
    if timestamps && let Some(time) = &entry.time {
        line.extend(format!("{} ", when::rfc3339(time)).bytes());
    }
    line.extend_from_slice(&entry.line);
    line.push(b'\n');
    match entry.stream() {
        LogStream::Stdout => io::stdout().write_all(&line),
        LogStream::Stderr => io::stderr().write_all(&line),
    }
}
