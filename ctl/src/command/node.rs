//! `ctl node`.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use shoal_proto::v1::{
    GetInfoRequest, GetNodeRequest, ListNodesRequest, ListTasksRequest, ManagerState,
    NodeAvailability, NodeRole, RemoveNodeRequest, UpdateNodeRequest,
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
    /// List the tasks on nodes, with those that ended before
    Ps(Ps),
    /// Change whether a node takes tasks, and its labels
    Update(Update),
    /// Make nodes managers
    Promote {
        /// The nodes
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Make managers workers; refused when too few managers would be left
    Demote {
        /// The nodes
        #[arg(required = true)]
        nodes: Vec<String>,
    },
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
#[command(after_help = tasks::EXAMPLES_OF_NODES)]
pub(crate) struct Ps {
    /// The nodes [default: the one that answers]
    #[arg(value_name = "NODE")]
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
    /// worker or manager, as promote and demote do
    #[arg(long, value_enum)]
    role: Option<Role>,
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Worker,
    Manager,
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
        Command::Ps(Ps { mut nodes, listing }) => {
            if nodes.is_empty() {
                nodes.push(client.control.get_info(GetInfoRequest {}).await?.into_inner().node_id);
            }
            let request = |node| ListTasksRequest { node, ..ListTasksRequest::default() };
            let requests = nodes.into_iter().map(request).collect();
            tasks::list(client, requests, &listing).await
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
                role: update.role.map(|role| match role {
                    Role::Worker => NodeRole::Worker.into(),
                    Role::Manager => NodeRole::Manager.into(),
                }),
            };
            client.control.update_node(request).await?;
            output::line(update.node)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Promote { nodes } => set_role(client, nodes, NodeRole::Manager).await,
        Command::Demote { nodes } => set_role(client, nodes, NodeRole::Worker).await,
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

async fn set_role(
    client: &mut Client,
    nodes: Vec<String>,
    role: NodeRole,
) -> anyhow::Result<ExitCode> {
    for node in nodes {
        let role = Some(role.into());
        let request = UpdateNodeRequest { node: node.clone(), role, ..Default::default() };
        client.control.update_node(request).await?;
        output::line(node)?;
    }
    Ok(ExitCode::SUCCESS)
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
            let role = match node.manager() {
                ManagerState::Leader => "leader",
                ManagerState::Reachable => "manager",
                ManagerState::Unreachable => "manager (unreachable)",
                ManagerState::Joining => "manager (joining)",
                ManagerState::None => "worker",
            };
            vec![
                short(&node.id, false),
                spec.name.clone(),
                status.state().to_string(),
                spec.availability().to_string(),
                role.to_owned(),
                status.address.clone(),
                host.agent_version,
            ]
        })
        .collect();
    let head = ["ID", "NAME", "STATUS", "AVAILABILITY", "ROLE", "ADDRESS", "AGENT"];
    output::table(&head, &rows)?;
    Ok(ExitCode::SUCCESS)
}
