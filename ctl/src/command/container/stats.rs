//! `ctl stats`.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use shoal_proto::ByteSize;
use shoal_proto::v1::{ContainerStatsEntry, ContainerStatsRequest};

use crate::client::Client;
use crate::command::Listing;
use crate::output::{self, Format};

/// Show what containers use.
#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    listing: Listing,
    /// Once, instead of every second
    #[arg(long)]
    no_stream: bool,
    /// Don't cut ids
    #[arg(long)]
    no_trunc: bool,
    /// The containers [default: all that run]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn run(client: &mut Client, args: Stats) -> anyhow::Result<ExitCode> {
    let request =
        ContainerStatsRequest { containers: args.containers.clone(), stream: !args.no_stream };
    let mut looks = client.containers.container_stats(request).await?.into_inner();
    loop {
        let look = tokio::select! {
            look = looks.message() => look?,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        };
        let Some(look) = look else { return Ok(ExitCode::SUCCESS) };
        if args.listing.format == Format::Json {
            output::json(&look.containers)?;
            continue;
        }
        if !args.no_stream && io::stdout().is_terminal() {
            // From the top of an empty screen.
            write!(io::stdout(), "\x1b[2J\x1b[H")?;
        }
        let rows: Vec<Vec<String>> =
            look.containers.iter().map(|one| row(one, args.no_trunc)).collect();
        let head = [
            "CONTAINER ID",
            "NAME",
            "CPU %",
            "MEM USAGE / LIMIT",
            "MEM %",
            "NET I/O",
            "BLOCK I/O",
            "PIDS",
        ];
        output::table(&head, &rows)?;
    }
}

fn row(entry: &ContainerStatsEntry, whole: bool) -> Vec<String> {
    let size = |bytes: u64| ByteSize(bytes).to_string();
    let pair = |first: u64, second: u64| format!("{} / {}", size(first), size(second));
    let share = entry.memory_bytes as f64 * 100.0 / entry.memory_limit_bytes.max(1) as f64;
    vec![
        output::short(&entry.id, whole),
        entry.name.clone(),
        format!("{:.2}%", entry.cpu_percent),
        pair(entry.memory_bytes, entry.memory_limit_bytes),
        format!("{share:.2}%"),
        pair(entry.received_bytes, entry.sent_bytes),
        pair(entry.read_bytes, entry.written_bytes),
        entry.pids.to_string(),
    ]
}
