//! Listings of tasks: `ctl stack ps` and `ctl service ps`.

use std::collections::BTreeMap;

use clap::Args;
use shoal_proto::v1::{ListNodesRequest, ListTasksRequest, PublishMode, Task};

use super::Ids;
use crate::client::Client;
use crate::output::{self, Format, short};
use crate::{progress, when};

/// How tasks are listed.
#[derive(Debug, Args)]
pub(crate) struct TaskListing {
    #[command(flatten)]
    ids: Ids,
    /// Don't cut ids and errors
    #[arg(long)]
    no_trunc: bool,
}

/// An error is cut to this many characters.
const ERROR_WIDTH: usize = 60;

pub(super) async fn list(
    client: &mut Client,
    request: ListTasksRequest,
    listing: &TaskListing,
) -> anyhow::Result<()> {
    let tasks = client.control.list_tasks(request).await?.into_inner().tasks;
    if listing.ids.quiet {
        return tasks.iter().try_for_each(|task| output::line(&task.id));
    }
    if listing.ids.listing.format == Format::Json {
        return output::json(&tasks);
    }
    let nodes = client.control.list_nodes(ListNodesRequest {}).await?.into_inner().nodes;
    let nodes: BTreeMap<String, String> =
        nodes.into_iter().map(|node| (node.id, node.spec.unwrap_or_default().name)).collect();
    let mut rows = Vec::new();
    let mut last = String::new();
    for task in &tasks {
        let name = format!("{}.{}", task.service_name, task.slot);
        // Older tasks of the same slot hang below the newest, as in Docker.
        let shown = if name == last { format!(" \\_ {name}") } else { name.clone() };
        last = name;
        rows.push(row(task, shown, &nodes, listing.no_trunc));
    }
    let head = ["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"];
    output::table(&head, &rows)
}

fn row(task: &Task, name: String, nodes: &BTreeMap<String, String>, whole: bool) -> Vec<String> {
    let status = task.status.clone().unwrap_or_default();
    let container = task.spec.clone().unwrap_or_default().container.unwrap_or_default();
    let state = capitalized(&progress::state(task).to_string());
    let mut current = format!("{state} {}", when::ago(status.since.as_ref()).to_lowercase());
    if !task.waiting_for.is_empty() && !progress::state(task).is_terminal() {
        current.push_str(&format!(" ({})", task.waiting_for));
    }
    let mut error = status.error;
    if !whole && error.chars().count() > ERROR_WIDTH {
        error = error.chars().take(ERROR_WIDTH - 1).chain(['…']).collect();
    }
    let ports = task.ports.iter().filter(|port| port.mode() == PublishMode::Host);
    let ports: Vec<String> = ports
        .map(|port| format!("*:{}->{}/{}", port.published_port, port.target_port, port.protocol()))
        .collect();
    vec![
        short(&task.id, whole),
        name,
        container.image,
        nodes.get(&task.node_id).cloned().unwrap_or_else(|| task.node_id.clone()),
        capitalized(&task.desired_state().to_string()),
        current,
        error,
        ports.join(","),
    ]
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}
