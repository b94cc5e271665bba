//! `ctl node`.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use shoal_proto::v1::{
    GetNodeRequest, ListNodesRequest, ListTasksRequest, NodeAvailability, RemoveNodeRequest,
    UpdateNodeRequest,
};

use super::Ids;
use super::tasks::{self, TaskListing};
use crate::client::Client;
use crate::output::{self, Format, short};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the nodes
    #[command(visible_alias = "list")]
    Ls(Ids),
    /// Show all that is known of nodes, as JSON
    Inspect {
        /// The nodes
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// List the tasks on nodes
    Ps(Ps),
    /// Change whether a node takes tasks, and its labels
    Update(Update),
    /// Take nodes out of the cluster; their tasks are made anew elsewhere
    #[command(visible_alias = "remove")]
    Rm {
        /// The nodes
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Also those that are not down
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// The nodes
    #[arg(required = true)]
    nodes: Vec<String>,
    #[command(flatten)]
    listing: TaskListing,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// The node
    node: String,
    /// active: takes tasks; pause: keeps those that it has; drain: gives all away
    #[arg(long, value_enum)]
    availability: Option<Availability>,
    /// Set a label: NAME=VALUE
    #[arg(long, value_name = "LABEL")]
    label_add: Vec<String>,
    /// Take a label away
    #[arg(long, value_name = "NAME")]
    label_rm: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Availability {
    Active,
    Pause,
    Drain,
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls(ids) => ls(client, &ids).await,
        Command::Inspect { nodes } => {
            let mut found = Vec::new();
            for node in nodes {
                let answer = client.control.get_node(GetNodeRequest { node }).await?;
                found.extend(answer.into_inner().node);
            }
            output::json(&found)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ps(Ps { nodes, listing }) => {
            for node in nodes {
                let request = ListTasksRequest { node, ..ListTasksRequest::default() };
                tasks::list(client, request, &listing).await?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Update(update) => {
            let availability = update.availability.map(|availability| match availability {
                Availability::Active => NodeAvailability::Active.into(),
                Availability::Pause => NodeAvailability::Pause.into(),
                Availability::Drain => NodeAvailability::Drain.into(),
            });
            let request = UpdateNodeRequest {
                node: update.node.clone(),
                availability,
                add_labels: labels(&update.label_add)?,
                remove_labels: update.label_rm,
            };
            client.control.update_node(request).await?;
            output::line(update.node)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Rm { nodes, force } => {
            for node in nodes {
                let request = RemoveNodeRequest { node: node.clone(), force };
                client.control.remove_node(request).await?;
                output::line(node)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn labels(list: &[String]) -> anyhow::Result<HashMap<String, String>> {
    let label = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => bail!("{text:?} is not a label; write it as NAME=VALUE"),
    };
    list.iter().map(label).collect()
}

async fn ls(client: &mut Client, ids: &Ids) -> anyhow::Result<ExitCode> {
    let nodes = client.control.list_nodes(ListNodesRequest {}).await?.into_inner().nodes;
    if ids.quiet {
        nodes.iter().try_for_each(|node| output::line(&node.id))?;
        return Ok(ExitCode::SUCCESS);
    }
    if ids.listing.format == Format::Json {
        output::json(&nodes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let spec = node.spec.clone().unwrap_or_default();
            let status = node.status.clone().unwrap_or_default();
            let host = node.description.clone().unwrap_or_default();
            let role = if node.leader { "leader".to_owned() } else { spec.role().to_string() };
            vec![
                short(&node.id, false),
                spec.name.clone(),
                status.state().to_string(),
                spec.availability().to_string(),
                role,
                status.address.clone(),
                host.agent_version,
            ]
        })
        .collect();
    let head = ["ID", "NAME", "STATUS", "AVAILABILITY", "ROLE", "ADDRESS", "AGENT"];
    output::table(&head, &rows)?;
    Ok(ExitCode::SUCCESS)
}
