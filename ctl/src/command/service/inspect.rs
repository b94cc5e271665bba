//! `ctl service inspect`.

mod page;
mod pretty;

use std::process::ExitCode;

use clap::Args;
use shoal_proto::v1::{GetServiceRequest, ListNetworksRequest};

use crate::client::Client;
use crate::output;

/// Show all that is known of services, as JSON or for people.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ctl service inspect web\n  ctl service inspect --pretty web")]
pub(crate) struct Inspect {
    /// The services
    #[arg(required = true)]
    services: Vec<String>,
    /// For people, instead of JSON
    #[arg(long)]
    pretty: bool,
}

pub(super) async fn run(client: &mut Client, args: Inspect) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for service in args.services {
        let answer = client.control.get_service(GetServiceRequest { service }).await?.into_inner();
        found.extend(answer.service.map(|service| (service, answer.counts.unwrap_or_default())));
    }
    if !args.pretty {
        let services: Vec<_> = found.into_iter().map(|(service, _)| service).collect();
        output::json(&services)?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer = client.control.list_networks(ListNetworksRequest {}).await?;
    let networks = answer.into_inner().networks.into_iter();
    let networks =
        networks.map(|network| (network.id, network.spec.unwrap_or_default().name)).collect();
    for (index, (service, counts)) in found.iter().enumerate() {
        if index > 0 {
            output::line("")?;
        }
        output::line(pretty::page(service, counts, &networks).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
