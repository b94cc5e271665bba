//! `ctl network`.

use std::process::ExitCode;

use clap::Subcommand;
use shoal_proto::v1::ListNetworksRequest;

use super::Ids;
use crate::client::Client;
use crate::output::{self, Format, short};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the networks
    #[command(visible_alias = "list")]
    Ls(Ids),
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    let Command::Ls(ids) = command;
    let response = client.control.list_networks(ListNetworksRequest {}).await?;
    let networks = response.into_inner().networks;
    if ids.quiet {
        networks.iter().try_for_each(|network| output::line(&network.id))?;
        return Ok(ExitCode::SUCCESS);
    }
    if ids.listing.format == Format::Json {
        output::json(&networks)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = networks
        .iter()
        .map(|network| {
            let spec = network.spec.clone().unwrap_or_default();
            let way_out = if spec.internal { "internal" } else { "" }.to_owned();
            vec![short(&network.id, false), spec.name, network.subnet.clone(), way_out]
        })
        .collect();
    output::table(&["ID", "NAME", "SUBNET", "SCOPE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
