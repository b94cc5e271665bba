//! `ctl top`.

use std::process::ExitCode;

use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use shoal_proto::v1::{ContainerRequest, Process};

use crate::client::Client;
use crate::command::Listing;
use crate::output::{self, Format};

/// Show a container's processes, as ps -ef does.
#[derive(Debug, Args)]
pub(crate) struct Top {
    #[command(flatten)]
    listing: Listing,
    /// The container
    container: String,
}

pub(super) async fn run(client: &mut Client, args: Top) -> anyhow::Result<ExitCode> {
    let request = ContainerRequest { container: args.container };
    let processes = client.containers.top_container(request).await?.into_inner().processes;
    if args.listing.format == Format::Json {
        output::json(&processes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = processes.iter().map(row).collect();
    output::table(&["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(process: &Process) -> Vec<String> {
    let seconds = process.cpu_ms / 1000;
    vec![
        process.user.clone(),
        process.pid.to_string(),
        process.parent.to_string(),
        (process.cpu_share / 10).to_string(),
        started(&process.started),
        process.terminal.clone(),
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        process.command.clone(),
    ]
}

/// `14:05`, in this host's time.
fn started(seconds: &str) -> String {
    let at = seconds.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.map(|at| at.to_zoned(TimeZone::system()).strftime("%H:%M").to_string()).unwrap_or_default()
}
