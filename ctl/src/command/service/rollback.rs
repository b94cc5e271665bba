//! `ctl service rollback`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use shoal_proto::v1::RollbackServiceRequest;

use super::wait::{MONITOR, Wait};
use crate::client::Client;
use crate::output;

/// Make a service what it was before its last change, and wait until it is.
#[derive(Debug, Args)]
#[command(
    after_help = "The number of replicas stays as it is. \"ctl service history\" shows the revisions.\n\nExamples:\n  ctl service rollback web\n  ctl service rollback --to 3 web"
)]
pub(crate) struct Rollback {
    /// What it was at this revision [default: the one before the last]
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    #[command(flatten)]
    wait: Wait,
    /// The service
    service: String,
}

pub(super) async fn run(client: &mut Client, args: Rollback) -> anyhow::Result<ExitCode> {
    go_back(client, args.service, args.to, &args.wait).await
}

/// To the revision before the last when none is named.
pub(super) async fn go_back(
    client: &mut Client,
    service: String,
    to: Option<u64>,
    wait: &Wait,
) -> anyhow::Result<ExitCode> {
    let request =
        RollbackServiceRequest { service: service.clone(), revision: to.unwrap_or_default() };
    let answer = client.control.rollback_service(request).await?.into_inner();
    let Some(changed) = answer.service else {
        bail!("service {service} went away while it was rolled back");
    };
    for payload in answer.renewed {
        output::note(format!(
            "warning: {payload} as it was at revision {} is gone; the newest version is used",
            answer.revision
        ));
    }
    output::line(match answer.unchanged {
        true => format!("{service} is as it was at revision {} already", answer.revision),
        false => format!("{service} goes back to revision {}", answer.revision),
    })?;
    wait.for_service(client, changed, MONITOR).await
}
