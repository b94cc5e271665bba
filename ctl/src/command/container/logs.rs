//! `ctl logs`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use shoal_proto::Timestamp;
use shoal_proto::v1::{ContainerLogsRequest, LogStream};

use crate::client::Client;
use crate::command::logs::tail;
use crate::when;

/// Show what a container has written.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The container
    container: String,
    /// Go on as lines are written, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Lines from the end, or "all"
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
}

pub(super) async fn run(client: &mut Client, args: Logs) -> anyhow::Result<ExitCode> {
    let request = ContainerLogsRequest {
        container: args.container,
        follow: args.follow,
        tail: args.tail,
        since: args.since,
        until: args.until,
    };
    let mut entries = client.containers.container_logs(request).await?.into_inner();
    loop {
        let entry = tokio::select! {
            entry = entries.message() => entry?,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
        };
        let Some(entry) = entry else { return Ok(ExitCode::SUCCESS) };
        let mut line = Vec::new();
        if args.timestamps
            && let Some(time) = &entry.time
        {
            line.extend(format!("{} ", when::rfc3339(time)).bytes());
        }
        line.extend_from_slice(&entry.line);
        line.push(b'\n');
        match entry.stream() {
            LogStream::Stdout => io::stdout().write_all(&line)?,
            LogStream::Stderr => io::stderr().write_all(&line)?,
        }
    }
}
