//! Listings of tasks: `ctl stack ps`, `ctl service ps` and `ctl node ps`.

mod filter;
mod watch;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use shoal_proto::v1::{ListNodesRequest, ListTasksRequest, PublishMode, Task, TaskState};

use super::Ids;
use super::filter::Filter;
use crate::client::Client;
use crate::output::{self, Format, short};
use crate::{progress, when};

pub(super) const EXAMPLES_OF_SERVICES: &str = "Examples:\n  ctl service ps web\n  ctl service ps -f desired-state=running -f node=w1 web api\n  ctl service ps -w web";
pub(super) const EXAMPLES_OF_STACKS: &str = "Examples:\n  ctl stack ps shop\n  ctl stack ps -f name=shop_web -f state=failed --no-trunc shop\n  ctl stack ps -w shop";
pub(super) const EXAMPLES_OF_NODES: &str =
    "Examples:\n  ctl node ps\n  ctl node ps -f desired-state=running w1 w2\n  ctl node ps -w w1";

/// How tasks are listed.
#[derive(Debug, Args)]
pub(crate) struct TaskListing {
    #[command(flatten)]
    ids: Ids,
    /// Don't cut ids and errors
    #[arg(long)]
    no_trunc: bool,
    /// Only those that match: name=PREFIX, id=PREFIX, node=NAME, desired-state=STATE, state=STATE,
    /// health=HEALTH; of one key, any
    #[arg(short, long, value_name = "FILTER", value_parser = filter::parse)]
    filter: Vec<Filter>,
    /// Show them again with each change, until interrupted
    #[arg(short, long)]
    watch: bool,
}

/// An error is cut to this many characters.
const ERROR_WIDTH: usize = 60;

/// Names of nodes by their ids.
type Nodes = BTreeMap<String, String>;

/// Lists the tasks of all requests together.
pub(super) async fn list(
    client: &mut Client,
    requests: Vec<ListTasksRequest>,
    listing: &TaskListing,
) -> anyhow::Result<ExitCode> {
    if listing.watch {
        return watch::run(client, &requests, listing).await;
    }
    let found = find(client, &requests, listing).await?;
    found.show(listing)?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be shown.
struct Found {
    tasks: Vec<Task>,
    nodes: Nodes,
}

async fn find(
    client: &mut Client,
    requests: &[ListTasksRequest],
    listing: &TaskListing,
) -> anyhow::Result<Found> {
    let mut tasks = Vec::new();
    for request in requests {
        tasks.extend(client.control.list_tasks(request.clone()).await?.into_inner().tasks);
    }
    let nodes = client.control.list_nodes(ListNodesRequest {}).await?.into_inner().nodes;
    let nodes: Nodes =
        nodes.into_iter().map(|node| (node.id, node.spec.unwrap_or_default().name)).collect();
    tasks.retain(|task| filter::matches(&listing.filter, task, node_of(task, &nodes)));
    Ok(Found { tasks, nodes })
}

/// By its name; by its id when it has left the cluster.
fn node_of<'a>(task: &'a Task, nodes: &'a Nodes) -> &'a str {
    nodes.get(&task.node_id).unwrap_or(&task.node_id)
}

fn name_of(task: &Task) -> String {
    format!("{}.{}", task.service_name, task.slot)
}

impl Found {
    fn show(&self, listing: &TaskListing) -> anyhow::Result<()> {
        if listing.ids.quiet {
            return self.tasks.iter().try_for_each(|task| output::line(&task.id));
        }
        if listing.ids.listing.format == Format::Json {
            return output::json(&self.tasks);
        }
        let mut rows = Vec::new();
        let mut last = String::new();
        for task in &self.tasks {
            let name = name_of(task);
            // Older tasks of the same slot hang below the newest, as in Docker.
            let shown = if name == last { format!(" \\_ {name}") } else { name.clone() };
            last = name;
            rows.push(row(task, shown, node_of(task, &self.nodes), listing.no_trunc));
        }
        let head = [
            "ID",
            "NAME",
            "IMAGE",
            "NODE",
            "DESIRED STATE",
            "CURRENT STATE",
            "HEALTH",
            "ERROR",
            "PORTS",
        ];
        output::table(&head, &rows)
    }
}

fn row(task: &Task, name: String, node: &str, whole: bool) -> Vec<String> {
    let status = task.status.clone().unwrap_or_default();
    let container = task.spec.clone().unwrap_or_default().container.unwrap_or_default();
    let health = status.health();
    let reason = if status.error.is_empty() { &task.stop_reason } else { &status.error };
    let ports = task.ports.iter().filter(|port| port.mode() == PublishMode::Host);
    let ports: Vec<String> = ports
        .map(|port| format!("*:{}->{}/{}", port.published_port, port.target_port, port.protocol()))
        .collect();
    vec![
        short(&task.id, whole),
        name,
        container.image,
        node.to_owned(),
        capitalized(&task.desired_state().to_string()),
        current(task),
        health.to_string(),
        if whole { reason.clone() } else { output::cut(reason, ERROR_WIDTH) },
        ports.join(","),
    ]
}

/// `Running 5 seconds ago`; what one that does not run yet waits for, or does.
fn current(task: &Task) -> String {
    let state = progress::state(task);
    let status = task.status.clone().unwrap_or_default();
    let word = capitalized(&state.to_string());
    let since = format!("{word} {}", when::ago(status.since.as_ref()).to_lowercase());
    let doing = match state {
        _ if state.is_terminal() => "",
        _ if !task.waiting_for.is_empty() => task.waiting_for.as_str(),
        // Why it gets no further stands by itself.
        _ if !status.error.is_empty() => "",
        TaskState::Running => "",
        // What is but the state in other words tells nothing.
        _ if status.message == "created" || status.message.starts_with(&state.to_string()) => "",
        _ => status.message.as_str(),
    };
    match doing {
        "" => since.trim_end().to_owned(),
        doing => format!("{} ({doing})", since.trim_end()),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use shoal_proto::v1::TaskStatus;

    use super::*;

    fn task(state: TaskState, message: &str) -> Task {
        let mut status = TaskStatus { message: message.to_owned(), ..TaskStatus::default() };
        status.set_state(state);
        Task { status: Some(status), ..Task::default() }
    }

    #[test]
    fn a_task_tells_what_it_does_until_it_runs() {
        let pending = task(TaskState::Pending, "waits for a node");
        assert_eq!(current(&pending), "Pending (waits for a node)");
        let preparing = task(TaskState::Preparing, "preparing image web:1");
        assert_eq!(current(&preparing), "Preparing");
        assert_eq!(current(&task(TaskState::Running, "something")), "Running");
        let mut ready = task(TaskState::Ready, "ready");
        ready.waiting_for = "waits for db to be healthy".to_owned();
        assert_eq!(current(&ready), "Ready (waits for db to be healthy)");
    }

    #[test]
    fn a_task_that_is_to_end_tells_why() {
        let mut stopped = task(TaskState::Shutdown, "");
        stopped.stop_reason = "its node is drained".to_owned();
        let reason = |task: &Task| row(task, String::new(), "w1", false)[7].clone();
        assert_eq!(reason(&stopped), "its node is drained");
        stopped.status.get_or_insert_default().error = "exit code 1".to_owned();
        assert_eq!(reason(&stopped), "exit code 1");
    }
}
