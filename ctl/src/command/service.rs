//! `ctl service`.

mod create;
mod history;
mod inspect;
mod ls;
mod mode;
mod options;
mod removal;
mod rollback;
mod scale;
mod update;
mod wait;

use std::process::ExitCode;

use clap::Subcommand;
use shoal_proto::v1::{ListServicesRequest, ListTasksRequest, LogsRequest, RemoveServiceRequest};

pub(super) use ls::ls;

use super::Ids;
use super::logs::{self, LogArgs};
use super::tasks::{self, TaskListing};
use crate::client::Client;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a service of an image, print its id and wait until it runs
    Create(Box<create::Create>),
    /// Change a service, and wait until its tasks are as asked for
    Update(Box<update::Update>),
    /// Make a service what it was before its last change, and wait until it is
    Rollback(rollback::Rollback),
    /// Show what a service was, the newest revision first
    History(history::History),
    /// List the services
    #[command(visible_alias = "list")]
    Ls(Ids),
    /// List the tasks of services, with those that ended before
    #[command(after_help = tasks::EXAMPLES_OF_SERVICES)]
    Ps {
        /// The services
        #[arg(required = true)]
        services: Vec<String>,
        #[command(flatten)]
        listing: TaskListing,
    },
    /// Show the logs of a service's tasks, or of one task (SERVICE.SLOT or its id)
    Logs {
        /// The service or task
        service: String,
        #[command(flatten)]
        args: LogArgs,
    },
    /// Give services another number of replicas, and wait until they run
    Scale(scale::Scale),
    /// Show all that is known of services, as JSON or for people
    Inspect(inspect::Inspect),
    /// Stop and remove services
    #[command(visible_alias = "remove")]
    Rm {
        /// The services
        #[arg(required = true)]
        services: Vec<String>,
    },
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => create::run(client, *args).await,
        Command::Update(args) => update::run(client, *args).await,
        Command::Rollback(args) => rollback::run(client, args).await,
        Command::History(args) => history::run(client, args).await,
        Command::Ls(ids) => ls(client, ListServicesRequest::default(), &ids).await,
        Command::Ps { services, listing } => {
            let request = |service| ListTasksRequest { service, ..ListTasksRequest::default() };
            let requests = services.into_iter().map(request).collect();
            tasks::list(client, requests, &listing).await
        }
        Command::Logs { service, args } => {
            logs::show(client, LogsRequest { service, ..LogsRequest::default() }, &args).await
        }
        Command::Scale(args) => scale::run(client, args).await,
        Command::Inspect(args) => inspect::run(client, args).await,
        Command::Rm { services } => {
            for service in services {
                let request = RemoveServiceRequest { service: service.clone() };
                client.control.remove_service(request).await?;
                output::line(service)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
