//! `ctl stack`.

mod deploy;

use std::process::ExitCode;

use clap::Subcommand;
use shoal_proto::v1::{
    ListServicesRequest, ListStacksRequest, ListTasksRequest, LogsRequest, RemoveStackRequest,
    StackSpec, WatchRequest,
};

use super::logs::{self, LogArgs};
use super::tasks::{self, TaskListing};
use super::{Ids, service};
use crate::client::Client;
use crate::follow::{Goal, Patience, follow};
use crate::output::{self, Format};
use crate::progress::Progress;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a stack what a compose file says, and wait until it runs
    #[command(visible_alias = "up")]
    Deploy(deploy::Deploy),
    /// List the stacks
    #[command(visible_alias = "list")]
    Ls(Ids),
    /// List a stack's tasks, with those that ended before
    #[command(after_help = tasks::EXAMPLES_OF_STACKS)]
    Ps {
        /// The stack
        stack: String,
        #[command(flatten)]
        listing: TaskListing,
    },
    /// List a stack's services
    Services {
        /// The stack
        stack: String,
        #[command(flatten)]
        ids: Ids,
    },
    /// Show the logs of all tasks of a stack
    Logs {
        /// The stack
        stack: String,
        #[command(flatten)]
        args: LogArgs,
    },
    /// Stop and remove stacks, and wait until they are gone; volumes stay
    #[command(visible_aliases = ["remove", "down"])]
    Rm {
        /// The stacks
        #[arg(required = true)]
        stacks: Vec<String>,
        /// Don't wait until they are gone
        #[arg(short, long)]
        detach: bool,
    },
}

pub(super) async fn run(
    client: &mut Client,
    command: Command,
    loaded: Option<StackSpec>,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Deploy(args) => deploy::run(client, &args, loaded.unwrap_or_default()).await,
        Command::Ls(ids) => ls(client, &ids).await,
        Command::Ps { stack, listing } => {
            let request = ListTasksRequest { stack, ..ListTasksRequest::default() };
            tasks::list(client, vec![request], &listing).await
        }
        Command::Services { stack, ids } => {
            service::ls(client, ListServicesRequest { stack }, &ids).await
        }
        Command::Logs { stack, args } => {
            logs::show(client, LogsRequest { stack, ..LogsRequest::default() }, &args).await
        }
        Command::Rm { stacks, detach } => rm(client, stacks, detach).await,
    }
}

async fn ls(client: &mut Client, ids: &Ids) -> anyhow::Result<ExitCode> {
    let stacks = client.control.list_stacks(ListStacksRequest {}).await?.into_inner().stacks;
    let name = |stack: &shoal_proto::v1::StackSummary| {
        stack.stack.clone().unwrap_or_default().spec.unwrap_or_default().name
    };
    if ids.quiet {
        stacks.iter().try_for_each(|stack| output::line(name(stack)))?;
        return Ok(ExitCode::SUCCESS);
    }
    if ids.listing.format == Format::Json {
        output::json(&stacks)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = stacks
        .iter()
        .map(|summary| {
            let stack = summary.stack.clone().unwrap_or_default();
            let tasks = summary.tasks.unwrap_or_default();
            let state = if stack.removing { "removing" } else { "" };
            vec![
                name(summary),
                summary.services.to_string(),
                format!("{}/{}", tasks.running, tasks.desired),
                stack.revision.to_string(),
                state.to_owned(),
            ]
        })
        .collect();
    output::table(&["NAME", "SERVICES", "TASKS", "REVISION", "STATE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn rm(client: &mut Client, stacks: Vec<String>, detach: bool) -> anyhow::Result<ExitCode> {
    for stack in stacks {
        let request = RemoveStackRequest { stack: stack.clone() };
        let removed = client.control.remove_stack(request).await?.into_inner();
        for (kind, names) in [
            ("service", removed.services),
            ("secret", removed.secrets),
            ("config", removed.configs),
            ("network", removed.networks),
        ] {
            for name in names {
                output::line(format!("Removing {kind} {name}"))?;
            }
        }
        if !detach {
            let request = WatchRequest { stack, ..WatchRequest::default() };
            let code = follow(client, request, Progress::of_all(), Goal::Gone, Patience::default())
                .await?;
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
