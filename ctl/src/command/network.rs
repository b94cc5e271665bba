//! `ctl network`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use shoal_proto::v1::{
    ConnectNetworkRequest, ContainerNetwork, CreateNetworkRequest, DisconnectNetworkRequest,
    GetNetworkRequest, ListNetworksRequest, NetworkSpec, PruneNetworksRequest,
    RemoveNetworkRequest,
};

use super::Ids;
use super::container::options::pairs;
use crate::client::Client;
use crate::output::{self, Format, short};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a network that spans all nodes
    Create(Create),
    /// List the networks
    #[command(visible_alias = "list")]
    Ls(Ids),
    /// Show all that is known of networks and who has which address, as JSON
    Inspect {
        /// The networks
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Remove networks that nothing uses
    #[command(visible_alias = "remove")]
    Rm {
        /// The networks
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Put a container of this node on a network, at once when it runs
    Connect(Connect),
    /// Take a container of this node off a network
    Disconnect {
        /// The network
        network: String,
        /// The container
        container: String,
    },
    /// Remove all networks of no stack that nothing uses
    Prune,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Further name of the container there
    #[arg(long, value_name = "ALIAS")]
    alias: Vec<String>,
    /// Its address there [default: a free one]
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    ip: String,
    /// Its hardware address there [default: made of the address]
    #[arg(long, value_name = "MAC", default_value = "", hide_default_value = true)]
    mac_address: String,
    /// The network
    network: String,
    /// The container
    container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name of the network
    name: String,
    /// Its addresses, such as 10.1.0.0/24 [default: a free range of the cluster's]
    #[arg(long, value_name = "CIDR", default_value = "", hide_default_value = true)]
    subnet: String,
    /// The nodes' address on it [default: the first]
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    gateway: String,
    /// No way out of the network
    #[arg(long)]
    internal: bool,
    /// Single containers may be on it; false: services alone
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    attachable: bool,
    /// Label: NAME=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// There is one kind of network; overlay and bridge are taken for it
    #[arg(short, long, value_parser = ["overlay", "bridge"], hide = true)]
    driver: Option<String>,
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(create) => {
            let spec = NetworkSpec {
                name: create.name,
                labels: pairs(&create.label),
                subnet: create.subnet,
                gateway: create.gateway,
                internal: create.internal,
                attachable: create.attachable,
            };
            let request = CreateNetworkRequest { spec: Some(spec) };
            let made = client.control.create_network(request).await?.into_inner();
            output::line(made.network.unwrap_or_default().id)?;
        }
        Command::Ls(ids) => ls(client, &ids).await?,
        Command::Inspect { networks } => {
            let mut found = Vec::new();
            for network in networks {
                let request = GetNetworkRequest { network };
                found.push(client.control.get_network(request).await?.into_inner());
            }
            output::json(&found)?;
        }
        Command::Connect(connect) => {
            let network = ContainerNetwork {
                network: connect.network,
                address: connect.ip,
                mac_address: connect.mac_address,
                aliases: connect.alias,
            };
            let request =
                ConnectNetworkRequest { container: connect.container, network: Some(network) };
            client.containers.connect_network(request).await?;
        }
        Command::Disconnect { network, container } => {
            let request = DisconnectNetworkRequest { container, network };
            client.containers.disconnect_network(request).await?;
        }
        Command::Rm { networks } => return rm(client, networks).await,
        Command::Prune => {
            let pruned = client.control.prune_networks(PruneNetworksRequest {}).await?;
            pruned.into_inner().names.iter().try_for_each(output::line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One that can't be removed does not keep the others.
async fn rm(client: &mut Client, networks: Vec<String>) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for network in networks {
        match client.control.remove_network(RemoveNetworkRequest { network }).await {
            Ok(removed) => output::line(removed.into_inner().name)?,
            Err(status) => {
                output::complain(&status.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

async fn ls(client: &mut Client, ids: &Ids) -> anyhow::Result<()> {
    let response = client.control.list_networks(ListNetworksRequest {}).await?;
    let networks = response.into_inner().networks;
    if ids.quiet {
        return networks.iter().try_for_each(|network| output::line(&network.id));
    }
    if ids.listing.format == Format::Json {
        return output::json(&networks);
    }
    let rows: Vec<Vec<String>> = networks
        .iter()
        .map(|network| {
            let spec = network.spec.clone().unwrap_or_default();
            let way_out = if spec.internal { "internal" } else { "" }.to_owned();
            vec![short(&network.id, false), spec.name, network.subnet.clone(), way_out]
        })
        .collect();
    output::table(&["ID", "NAME", "SUBNET", "SCOPE"], &rows)
}
