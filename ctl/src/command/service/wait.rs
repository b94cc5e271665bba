//! Whether, and how long, commands wait for a service to be as asked for.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use shoal_proto::duration;
use shoal_proto::v1::{Service, WatchRequest};

use crate::client::Client;
use crate::follow::{Goal, Patience, follow, follow_quietly};
use crate::progress::Progress;

/// For tasks that are new: a program that ends right after its start is not up.
pub(super) const MONITOR: Duration = Duration::from_secs(1);

/// How a command waits.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Don't wait until it is done
    #[arg(short, long)]
    detach: bool,
    /// Give up waiting after this long; 0: never
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
    /// Don't show how it gets on
    #[arg(short, long)]
    quiet: bool,
}

impl Wait {
    /// Waits for a service that the managers have just changed, and gave back so. Its tasks must
    /// run for the monitor time.
    pub(super) async fn for_service(
        &self,
        client: &mut Client,
        service: Service,
        monitor: Duration,
    ) -> anyhow::Result<ExitCode> {
        if self.detach {
            return Ok(ExitCode::SUCCESS);
        }
        let id = service.id.clone();
        let request = WatchRequest { service: id.clone(), ..WatchRequest::default() };
        let progress = Progress::of(BTreeSet::from([id])).begun(vec![service]);
        let timeout = (!self.timeout.is_zero()).then_some(self.timeout);
        let patience = Patience { timeout, monitor };
        match self.quiet {
            true => follow_quietly(client, request, progress, Goal::Up, patience).await,
            false => follow(client, request, progress, Goal::Up, patience).await,
        }
    }
}
