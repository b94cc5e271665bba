//! `ctl service ls` and `ctl stack services`.

use std::process::ExitCode;

use shoal_proto::v1::ListServicesRequest;

use super::mode;
use crate::client::Client;
use crate::command::Ids;
use crate::output::{self, Format, short};

pub(in crate::command) async fn ls(
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
            let replicas = mode::replicas(&service, &counts);
            let spec = service.spec.unwrap_or_default();
            let shown = mode::describe(&spec);
            let container = spec.task.unwrap_or_default().container.unwrap_or_default();
            let ports = service.ports.iter().map(|port| {
                let host = if port.host_ip.is_empty() { "*" } else { &port.host_ip };
                format!("{host}:{}->{}/{}", port.published_port, port.target_port, port.protocol())
            });
            vec![
                short(&service.id, false),
                spec.name,
                shown,
                replicas,
                container.image,
                ports.collect::<Vec<_>>().join(", "),
            ]
        })
        .collect();
    output::table(&["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
