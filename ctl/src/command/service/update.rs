//! `ctl service update`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use shoal_proto::v1::{GetServiceRequest, ListNetworksRequest, ServiceSpec, UpdateServiceRequest};

use super::options::{Networks, Options, Words};
use super::removal::Removals;
use super::rollback;
use super::wait::{MONITOR, Wait};
use crate::client::Client;
use crate::output;

/// Change a service, and wait until its tasks are as asked for.
#[derive(Debug, Args)]
#[command(
    after_help = "What is named again replaces what was there: a variable of the same name, a mount at the same place,\na published port of the same port of the container. Docker's spellings with -add, such as --env-add,\nmean the same. Without an option, an update that was paused goes on.\n\nExamples:\n  ctl service update --image web:1.1 web\n  ctl service update --update-parallelism 2 --update-failure-action rollback --image web:1.2 web\n  ctl service update -e LEVEL=debug --env-rm TRACE --publish-rm 80 web\n  ctl service update --force web\n  ctl service update --rollback web"
)]
pub(crate) struct Update {
    /// The service
    service: String,

    /// The image
    #[arg(long)]
    image: Option<String>,
    /// Command and arguments instead of the image's, split as a shell does; empty: the image's
    #[arg(long, value_name = "COMMAND", value_parser = Words::parse, allow_hyphen_values = true)]
    args: Option<Words>,
    /// Replace all tasks, though nothing of what they are made of changes; a job runs anew
    #[arg(long)]
    force: bool,
    /// Go back to the revision before the last, as "ctl service rollback" does
    #[arg(long)]
    rollback: bool,
    /// Begin no more runs of a scheduled job
    #[arg(long, conflicts_with = "resume_schedule")]
    suspend: bool,
    /// Begin runs of a scheduled job again
    #[arg(long)]
    resume_schedule: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    options: Options,
    #[command(flatten, next_help_heading = "What goes")]
    removals: Removals,
}

impl Update {
    fn apply(&self, spec: &mut ServiceSpec, networks: &Networks) -> anyhow::Result<()> {
        self.removals.apply(spec, networks);
        self.options.apply(spec, networks)?;
        if self.suspend || self.resume_schedule {
            let Some(schedule) = &mut spec.schedule else {
                bail!("service {} has no schedule; give it one with --schedule", spec.name);
            };
            schedule.suspended = self.suspend;
        }
        let task = spec.task.get_or_insert_default();
        if self.force {
            task.force_update += 1;
        }
        let container = task.container.get_or_insert_default();
        if let Some(image) = &self.image {
            container.image.clone_from(image);
        }
        if let Some(args) = &self.args {
            container.args.clone_from(&args.0);
            container.set_args = !args.0.is_empty();
        }
        Ok(())
    }
}

pub(super) async fn run(client: &mut Client, args: Update) -> anyhow::Result<ExitCode> {
    let request = GetServiceRequest { service: args.service.clone() };
    let found = client.control.get_service(request).await?.into_inner().service;
    let Some(service) = found else { bail!("there is no service {}", args.service) };
    let networks = match args.options.has_networks() || args.removals.has_networks() {
        true => names(client).await?,
        false => Networks::new(),
    };
    let old = service.spec.unwrap_or_default();
    let mut spec = old.clone();
    args.apply(&mut spec, &networks)?;
    if args.rollback {
        if spec != old {
            bail!("--rollback makes the service what it was; other changes are for another update");
        }
        return rollback::go_back(client, args.service, None, &args.wait).await;
    }
    let version = service.meta.unwrap_or_default().version;
    let request = UpdateServiceRequest { service: service.id, version, spec: Some(spec) };
    let Some(changed) = client.control.update_service(request).await?.into_inner().service else {
        bail!("service {} went away while it was updated", args.service);
    };
    output::line(&args.service)?;
    args.wait.for_service(client, changed, MONITOR).await
}

async fn names(client: &mut Client) -> anyhow::Result<Networks> {
    let answer = client.control.list_networks(ListNetworksRequest {}).await?;
    let networks = answer.into_inner().networks.into_iter();
    Ok(networks.map(|network| (network.spec.unwrap_or_default().name, network.id)).collect())
}
