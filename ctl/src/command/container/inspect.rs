//! `ctl inspect` and `ctl port`.

use std::process::ExitCode;

use clap::Args;
use shoal_proto::v1::ContainerRequest;

use super::{Names, port as ports};
use crate::client::Client;
use crate::output;

/// Show the ports that a container publishes.
#[derive(Debug, Args)]
pub(crate) struct Port {
    /// The container
    container: String,
    /// One of its ports: 80 or 53/udp
    port: Option<String>,
}

pub(super) async fn run(client: &mut Client, names: Names) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for container in names.containers {
        match client.containers.inspect_container(ContainerRequest { container }).await {
            Ok(one) => found.push(one.into_inner()),
            Err(status) => {
                output::complain(&status.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    output::json(&found)?;
    Ok(code)
}

pub(super) async fn port(client: &mut Client, args: Port) -> anyhow::Result<ExitCode> {
    let request = ContainerRequest { container: args.container.clone() };
    let found = client.containers.inspect_container(request).await?.into_inner();
    let published = found.summary.unwrap_or_default().ports.into_iter();
    let mut any = false;
    for port in published.filter(|port| port.published_port != 0) {
        let target = format!("{}/{}", port.target_port, port.protocol());
        let host = format!("{}:{}", ports::host(&port), port.published_port);
        match &args.port {
            None => output::line(format!("{target} -> {host}"))?,
            Some(wanted) if *wanted == target || format!("{wanted}/tcp") == target => {
                output::line(host)?;
            }
            Some(_) => continue,
        }
        any = true;
    }
    if let (false, Some(wanted)) = (any, &args.port) {
        anyhow::bail!("container {} does not publish port {wanted}", args.container);
    }
    Ok(ExitCode::SUCCESS)
}
