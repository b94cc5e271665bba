//! `ctl ps`.

use std::process::ExitCode;

use clap::Args;
use shoal_proto::v1::{
    ContainerStateInfo, ContainerStatus, ContainerSummary, Health, ListContainersRequest,
};

use super::port;
use crate::client::Client;
use crate::command::Ids;
use crate::output::{self, Format};
use crate::when;

/// What a command is cut to.
const COMMAND: usize = 20;

/// List containers.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    ids: Ids,
    /// Also those that don't run
    #[arg(short, long)]
    all: bool,
    /// So many of the newest, whatever their state
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// The newest, whatever its state
    #[arg(short, long)]
    latest: bool,
    /// Don't cut ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only those that match: name=…, id=…, status=…, label=…[=…], ancestor=IMAGE, health=…,
    /// exited=CODE
    #[arg(short, long, value_name = "FILTER", value_parser = filter)]
    filter: Vec<(String, String)>,
}

fn filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("want KEY=VALUE")?;
    match key {
        "name" | "id" | "status" | "label" | "ancestor" | "health" | "exited" => {
            Ok((key.to_owned(), value.to_owned()))
        }
        other => Err(format!("filter {other:?} is unknown")),
    }
}

fn matches(container: &ContainerSummary, (key, value): &(String, String)) -> bool {
    let state = container.state.clone().unwrap_or_default();
    match key.as_str() {
        "name" => container.name.contains(value.as_str()),
        "id" => container.id.starts_with(value.as_str()),
        "status" => word(state.status()) == value,
        "label" => match value.split_once('=') {
            Some((name, value)) => container.labels.get(name).is_some_and(|own| own == value),
            None => container.labels.contains_key(value),
        },
        "ancestor" => {
            container.image == *value || container.image.split(':').next() == Some(value.as_str())
        }
        "health" => health(state.health()) == value,
        _ => state.status() == ContainerStatus::Exited && value.parse() == Ok(state.exit_code),
    }
}

pub(super) fn word(status: ContainerStatus) -> &'static str {
    match status {
        ContainerStatus::Created => "created",
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Restarting => "restarting",
        ContainerStatus::Exited => "exited",
        ContainerStatus::Removing => "removing",
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::None => "none",
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}

/// `Up 5 minutes (healthy)`, as Docker words it.
fn status(state: &ContainerStateInfo) -> String {
    let since = |stamp: &Option<shoal_proto::Timestamp>| when::ago(stamp.as_ref());
    let up = || since(&state.started_at).trim_end_matches(" ago").to_owned();
    match state.status() {
        ContainerStatus::Created => "Created".to_owned(),
        ContainerStatus::Running => match state.health() {
            Health::None => format!("Up {}", up()),
            Health::Starting => format!("Up {} (health: starting)", up()),
            known => format!("Up {} ({})", up(), health(known)),
        },
        ContainerStatus::Paused => format!("Up {} (Paused)", up()),
        ContainerStatus::Restarting => {
            format!("Restarting ({}) {}", state.exit_code, since(&state.finished_at))
        }
        ContainerStatus::Exited => {
            format!("Exited ({}) {}", state.exit_code, since(&state.finished_at))
        }
        ContainerStatus::Removing => "Removal In Progress".to_owned(),
    }
}

fn command(words: &[String], whole: bool) -> String {
    let line = words.join(" ");
    match whole || line.chars().count() <= COMMAND {
        true => format!("\"{line}\""),
        false => format!("\"{}…\"", line.chars().take(COMMAND - 1).collect::<String>()),
    }
}

pub(super) async fn run(client: &mut Client, args: List) -> anyhow::Result<ExitCode> {
    let by_state = args.filter.iter().any(|(key, _)| matches!(key.as_str(), "status" | "exited"));
    let last = if args.latest { Some(1) } else { args.last };
    let request = ListContainersRequest { all: args.all || last.is_some() || by_state };
    let mut shown = client.containers.list_containers(request).await?.into_inner().containers;
    shown.retain(|container| args.filter.iter().all(|filter| matches(container, filter)));
    shown.truncate(last.unwrap_or(usize::MAX));
    if args.ids.quiet {
        for container in &shown {
            output::line(output::short(&container.id, args.no_trunc))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.ids.listing.format == Format::Json {
        output::json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|container| {
            let state = container.state.clone().unwrap_or_default();
            vec![
                output::short(&container.id, args.no_trunc),
                container.image.clone(),
                command(&container.command, args.no_trunc),
                when::ago(container.created_at.as_ref()),
                status(&state),
                port::show(&container.ports),
                container.name.clone(),
            ]
        })
        .collect();
    let head = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    output::table(&head, &rows)?;
    Ok(ExitCode::SUCCESS)
}
