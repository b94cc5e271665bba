//! `ctl logs`.

use std::process::ExitCode;

use clap::Args;
use shoal_proto::Timestamp;
use shoal_proto::v1::{ContainerLogsRequest, ContainerRequest, ContainerStatus};
use tonic::Code;

use crate::client::Client;
use crate::command::logs::{print_line, tail};
use crate::resume::{Resume, ask_again, is_broken};
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
    let mut request = ContainerLogsRequest {
        container: args.container.clone(),
        follow: args.follow,
        tail: args.tail,
        since: args.since,
        until: args.until,
    };
    let mut entries = client.containers.container_logs(request.clone()).await?.into_inner();
    let mut resume = Resume::default();
    loop {
        let entry = tokio::select! {
            entry = entries.message() => entry,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
        };
        match entry {
            Ok(Some(entry)) if resume.take(&entry) => {
                print_line(&entry, Vec::new(), args.timestamps)?
            }
            Ok(Some(_)) => {}
            Ok(None) if !args.follow || has_ended(client, &args.container).await? => {
                return Ok(ExitCode::SUCCESS);
            }
            Err(status) if !(args.follow && is_broken(&status)) => return Err(status.into()),
            // The agent has gone, and the container has not.
            Ok(None) | Err(_) => {
                if let Some(since) = resume.begin_again() {
                    (request.since, request.tail) = (Some(since), -1);
                }
                let ask = async || client.containers.container_logs(request.clone()).await;
                entries = tokio::select! {
                    answer = ask_again(ask) => answer?.into_inner(),
                    _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
                };
            }
        }
    }
}

/// Whether the log's end is the container's; without an agent to say so, it is not.
async fn has_ended(client: &mut Client, container: &str) -> anyhow::Result<bool> {
    let request = ContainerRequest { container: container.to_owned() };
    let found = match client.containers.inspect_container(request).await {
        Ok(found) => found.into_inner(),
        Err(status) if is_broken(&status) => return Ok(false),
        // Removed with its end.
        Err(status) if status.code() == Code::NotFound => return Ok(true),
        Err(status) => return Err(status.into()),
    };
    let state = found.summary.and_then(|summary| summary.state).unwrap_or_default();
    use ContainerStatus::{Paused, Restarting, Running};
    Ok(!matches!(state.status(), Running | Paused | Restarting))
}
