//! `ctl service scale`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use shoal_proto::v1::ScaleServiceRequest;

use super::wait::Wait;
use crate::client::Client;
use crate::output;

/// Give services another number of replicas, and wait until they run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ctl service scale web=5\n  ctl service scale web=5 worker=0")]
pub(crate) struct Scale {
    /// SERVICE=REPLICAS
    #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = replicas)]
    services: Vec<(String, u64)>,
    #[command(flatten)]
    wait: Wait,
}

fn replicas(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("{text:?} is not SERVICE=REPLICAS");
    let (service, replicas) = text.split_once('=').ok_or_else(wrong)?;
    Ok((service.to_owned(), replicas.parse().map_err(|_| wrong())?))
}

pub(super) async fn run(client: &mut Client, args: Scale) -> anyhow::Result<ExitCode> {
    let mut scaled = Vec::new();
    for (service, replicas) in args.services {
        let request = ScaleServiceRequest { service: service.clone(), replicas };
        let answer = client.control.scale_service(request).await?.into_inner();
        let Some(changed) = answer.service else {
            bail!("service {service} went away while it was scaled");
        };
        output::line(format!("{service} scaled to {replicas}"))?;
        scaled.push(changed);
    }
    for service in scaled {
        let code = args.wait.for_service(client, service, Duration::ZERO).await?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}
