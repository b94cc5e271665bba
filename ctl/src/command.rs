//! The commands, and what each is given.

mod cluster;
mod config;
mod container;
mod filter;
mod image;
mod info;
mod logs;
mod network;
mod node;
mod payload;
mod secret;
mod service;
mod stack;
mod tasks;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::{self, Freshness};
use crate::output::{self, Format};

/// Runs containers on one host or many: deploys compose files, shows and changes what runs.
///
/// Talks to the agent on this host through its socket.
#[derive(Debug, Parser)]
#[command(name = "ctl", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The agent's socket
    #[arg(
        long,
        global = true,
        env = "SHOAL_HOST",
        default_value = "unix:///run/shoal/shoal.sock",
        value_name = "URL"
    )]
    host: String,

    /// Be content with what this manager knows, even when it is cut off from the others
    #[arg(long, global = true)]
    stale: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the versions of ctl and of the agent
    Version,
    /// Show the cluster and the node that answers
    Info(Listing),
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Nodes of the cluster
    #[command(subcommand)]
    Node(node::Command),
    /// Stacks: services deployed together from a compose file
    #[command(subcommand)]
    Stack(stack::Command),
    /// Services
    #[command(subcommand)]
    Service(service::Command),
    /// Secrets: data that services' tasks are given as files, and that is shown to nobody else
    #[command(subcommand)]
    Secret(secret::Command),
    /// Configs: data that services' tasks are given as files or variables
    #[command(subcommand)]
    Config(config::Command),
    /// Networks
    #[command(subcommand)]
    Network(network::Command),
    /// Images on this node
    #[command(subcommand)]
    Image(image::Command),
    /// Single containers on this node; the same commands stand alone
    #[command(subcommand)]
    Container(container::Command),
    #[command(flatten)]
    Alone(container::Command),
}

/// How a listing is printed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Listing {
    /// Columns for people, or JSON for programs
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// A listing whose ids can be had alone.
#[derive(Debug, Clone, Args)]
pub(crate) struct Ids {
    #[command(flatten)]
    pub(crate) listing: Listing,
    /// Print ids (or names, where those are the ids people use) alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl Command {
    /// The exit code when the command was not even begun: `run` has Docker's, as 1 could be that
    /// of what it was to run.
    fn refused(&self) -> u8 {
        match self {
            Self::Alone(container::Command::Run(_))
            | Self::Container(container::Command::Run(_)) => 125,
            _ => 1,
        }
    }
}

pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Command::Version = cli.command {
        return info::version(&cli.host).await;
    }
    let load = match &cli.command {
        // What is wrong with a file is told whether or not an agent is there.
        Command::Stack(stack::Command::Deploy(deploy)) => Some(deploy.load()?),
        _ => None,
    };
    let mut client = match client::connect(&cli.host, Freshness { stale: cli.stale }).await {
        Ok(client) => client,
        Err(error) => {
            output::complain(&error);
            return Ok(ExitCode::from(cli.command.refused()));
        }
    };
    match cli.command {
        Command::Version => Ok(ExitCode::SUCCESS),
        Command::Info(listing) => info::info(&mut client, &listing).await,
        Command::Cluster(command) => cluster::run(&mut client, command).await,
        Command::Node(command) => node::run(&mut client, command).await,
        Command::Stack(command) => stack::run(&mut client, command, load).await,
        Command::Service(command) => service::run(&mut client, command).await,
        Command::Secret(command) => secret::run(&mut client, command).await,
        Command::Config(command) => config::run(&mut client, command).await,
        Command::Network(command) => network::run(&mut client, command).await,
        Command::Image(command) => image::run(&mut client, command).await,
        Command::Container(command) | Command::Alone(command) => {
            container::run(&mut client, command).await
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_options_of_a_command_have_one_name() {
        Cli::command().debug_assert();
    }

    /// `--host` is the agent's socket, but for a service's lines of /etc/hosts.
    #[test]
    fn a_service_has_hosts_of_its_own() {
        let line = "ctl --host unix:///a service create --host db:10.0.0.1 web";
        assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap().host, "unix:///a");
        let line = "ctl service create --socket unix:///b web";
        assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap().host, "unix:///b");
        let line = "ctl service ls --host unix:///c";
        assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap().host, "unix:///c");
    }
}
