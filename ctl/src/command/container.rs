//! Single containers on this node: `docker run` and its family.

mod copy;
mod create;
mod exec;
mod file;
pub(super) mod health;
mod inspect;
mod lifecycle;
pub(super) mod limits;
mod logs;
mod ls;
pub(super) mod mount;
mod network;
pub(super) mod options;
pub(super) mod port;
mod run;
mod session;
mod stats;
mod terminal;
mod top;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container of an image and run it
    Run(Box<run::Run>),
    /// Make a container without starting it
    Create(Box<create::Create>),
    /// Start containers that don't run
    Start(lifecycle::Start),
    /// Stop containers: their stop signal, then after the grace time SIGKILL
    Stop(lifecycle::Stop),
    /// Stop containers and start them again
    Restart(lifecycle::Stop),
    /// Send a signal to containers
    Kill(lifecycle::Kill),
    /// Stop all processes of containers where they are
    Pause(Names),
    /// Let the processes of paused containers go on
    Unpause(Names),
    /// Wait until containers have ended, and print their exit codes
    Wait(Names),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(lifecycle::Remove),
    /// Give a container another name
    Rename {
        /// The container
        container: String,
        /// Its new name
        name: String,
    },
    /// Change the limits or the restart policy of containers
    Update(lifecycle::Update),
    /// List containers
    #[command(visible_aliases = ["ls", "list"])]
    Ps(ls::List),
    /// Show all that is known of containers, as JSON
    Inspect(Names),
    /// Show what a container has written
    Logs(logs::Logs),
    /// Attach to a running container's standard streams
    Attach(run::Attach),
    /// Run a command in a running container
    Exec(exec::Exec),
    /// Show a container's processes
    Top(top::Top),
    /// Show what containers use
    Stats(stats::Stats),
    /// Show the ports that a container publishes
    Port(inspect::Port),
    /// Copy files between a container and this machine: CONTAINER:PATH, or - for a tar archive
    Cp(copy::Copy),
    /// Show what has changed in a container's files since it was made
    Diff {
        /// The container
        container: String,
    },
    /// Write a container's whole file system as a tar archive
    Export(file::Export),
    /// Remove all containers that don't run
    Prune(lifecycle::Prune),
}

/// Containers by name, id, or the beginning of an id.
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(client, *args).await,
        Command::Create(args) => create::run(client, *args).await,
        Command::Start(args) => lifecycle::start(client, args).await,
        Command::Stop(args) => lifecycle::stop(client, args).await,
        Command::Restart(args) => lifecycle::restart(client, args).await,
        Command::Kill(args) => lifecycle::kill(client, args).await,
        Command::Pause(names) => lifecycle::pause(client, names, true).await,
        Command::Unpause(names) => lifecycle::pause(client, names, false).await,
        Command::Wait(names) => lifecycle::wait(client, names).await,
        Command::Rm(args) => lifecycle::remove(client, args).await,
        Command::Rename { container, name } => lifecycle::rename(client, container, name).await,
        Command::Update(args) => lifecycle::update(client, args).await,
        Command::Ps(args) => ls::run(client, args).await,
        Command::Inspect(names) => inspect::run(client, names).await,
        Command::Logs(args) => logs::run(client, args).await,
        Command::Attach(args) => run::attach(client, args).await,
        Command::Exec(args) => exec::run(client, args).await,
        Command::Top(args) => top::run(client, args).await,
        Command::Stats(args) => stats::run(client, args).await,
        Command::Port(args) => inspect::port(client, args).await,
        Command::Cp(args) => copy::run(client, args).await,
        Command::Diff { container } => file::diff(client, container).await,
        Command::Export(args) => file::export(client, args).await,
        Command::Prune(args) => lifecycle::prune(client, args).await,
    }
}
