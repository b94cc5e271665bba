//! `ctl service`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use shoal_proto::duration;
use shoal_proto::v1::{
    GetServiceRequest, ListServicesRequest, ListTasksRequest, LogsRequest, RemoveServiceRequest,
    ScaleServiceRequest, WatchRequest,
};

use super::Ids;
use super::logs::{self, LogArgs};
use super::tasks::{self, TaskListing};
use crate::client::Client;
use crate::follow::{Goal, Patience, follow};
use crate::output::{self, Format, short};
use crate::progress::Progress;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the services
    #[command(visible_alias = "list")]
    Ls(Ids),
    /// List the tasks of services, with those that ended before
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
    Scale {
        /// SERVICE=REPLICAS
        #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = scale)]
        services: Vec<(String, u64)>,
        /// Don't wait until the tasks run
        #[arg(short, long)]
        detach: bool,
        /// Give up waiting after this long; 0: never
        #[arg(long, default_value = "5m", value_parser = duration::parse)]
        timeout: Duration,
    },
    /// Show all that is known of services, as JSON
    Inspect {
        /// The services
        #[arg(required = true)]
        services: Vec<String>,
    },
    /// Stop and remove services
    #[command(visible_alias = "remove")]
    Rm {
        /// The services
        #[arg(required = true)]
        services: Vec<String>,
    },
}

fn scale(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("{text:?} is not SERVICE=REPLICAS");
    let (service, replicas) = text.split_once('=').ok_or_else(wrong)?;
    Ok((service.to_owned(), replicas.parse().map_err(|_| wrong())?))
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls(ids) => ls(client, ListServicesRequest::default(), &ids).await,
        Command::Ps { services, listing } => {
            for service in services {
                let request = ListTasksRequest { service, ..ListTasksRequest::default() };
                tasks::list(client, request, &listing).await?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Logs { service, args } => {
            logs::show(client, LogsRequest { service, ..LogsRequest::default() }, &args).await
        }
        Command::Scale { services, detach, timeout } => {
            scale_all(client, services, detach, timeout).await
        }
        Command::Inspect { services } => {
            let mut found = Vec::new();
            for service in services {
                let response = client.control.get_service(GetServiceRequest { service }).await?;
                found.extend(response.into_inner().service);
            }
            output::json(&found)?;
            Ok(ExitCode::SUCCESS)
        }
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

pub(super) async fn ls(
    client: &mut Client,
    request: ListServicesRequest,
    ids: &Ids,
) -> anyhow::Result<ExitCode> {
    let services = client.control.list_services(request).await?.into_inner().services;
    if ids.quiet {
        for summary in &services {
            output::line(&summary.service.clone().unwrap_or_default().id)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if ids.listing.format == Format::Json {
        output::json(&services)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = services
        .iter()
        .map(|summary| {
            let service = summary.service.clone().unwrap_or_default();
            let counts = summary.counts.unwrap_or_default();
            let spec = service.spec.unwrap_or_default();
            let container = spec.task.unwrap_or_default().container.unwrap_or_default();
            let ports = service.ports.iter().map(|port| {
                let host = if port.host_ip.is_empty() { "*" } else { &port.host_ip };
                format!("{host}:{}->{}/{}", port.published_port, port.target_port, port.protocol())
            });
            vec![
                short(&service.id, false),
                spec.name,
                "replicated".to_owned(),
                format!("{}/{}", counts.running, counts.desired),
                container.image,
                ports.collect::<Vec<_>>().join(", "),
            ]
        })
        .collect();
    output::table(&["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn scale_all(
    client: &mut Client,
    services: Vec<(String, u64)>,
    detach: bool,
    timeout: Duration,
) -> anyhow::Result<ExitCode> {
    let mut scaled = Vec::new();
    for (service, replicas) in services {
        let request = ScaleServiceRequest { service: service.clone(), replicas };
        let response = client.control.scale_service(request).await?.into_inner();
        let Some(id) = response.service.map(|service| service.id) else {
            bail!("service {service} went away while it was scaled");
        };
        output::line(format!("{service} scaled to {replicas}"))?;
        scaled.push(id);
    }
    if detach {
        return Ok(ExitCode::SUCCESS);
    }
    for id in scaled {
        let request = WatchRequest { service: id.clone(), ..WatchRequest::default() };
        let progress = Progress::of(BTreeSet::from([id]));
        let timeout = (!timeout.is_zero()).then_some(timeout);
        let patience = Patience { timeout, ..Patience::default() };
        let code = follow(client, request, progress, Goal::Up, patience).await?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}
