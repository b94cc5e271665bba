//! `ctl node`.

use std::process::ExitCode;

use clap::Subcommand;
use shoal_proto::v1::ListNodesRequest;

use super::Ids;
use crate::client::Client;
use crate::output::{self, Format, short};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the nodes
    #[command(visible_alias = "list")]
    Ls(Ids),
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    let Command::Ls(ids) = command;
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
