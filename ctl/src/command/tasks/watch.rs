//! A listing that is shown again whenever something has changed.

use std::process::ExitCode;
use std::time::Duration;

use shoal_proto::v1::watch_event::Event;
use shoal_proto::v1::{ListTasksRequest, WatchEvent, WatchRequest};
use tokio::time::{Instant, sleep_until};
use tokio_stream::{StreamExt, StreamMap};
use tonic::{Code, Status, Streaming};

use super::{TaskListing, find};
use crate::client::Client;
use crate::output;
use crate::resume::{ask_again, is_broken};

/// Shown at the most once in this time.
const PACE: Duration = Duration::from_millis(200);

/// Shows it until interrupted, which is how it ends.
pub(super) async fn run(
    client: &mut Client,
    requests: &[ListTasksRequest],
    listing: &TaskListing,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        ended = show(client, requests, listing) => ended.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    }
}

async fn show(
    client: &mut Client,
    requests: &[ListTasksRequest],
    listing: &TaskListing,
) -> anyhow::Result<()> {
    let mut changes = Changes::open(client, requests).await?;
    let mut is_first = true;
    loop {
        let next_at = Instant::now() + PACE;
        let is_whole = match find(client, requests, listing).await {
            Ok(found) => {
                output::page(is_first)?;
                found.show(listing)?;
                is_first = false;
                changes.next().await? && changes.pass(next_at).await?
            }
            Err(error) if error.downcast_ref::<Status>().is_some_and(is_over) => false,
            Err(error) => return Err(error),
        };
        if !is_whole {
            sleep_until(next_at).await;
            changes = Changes::open(client, requests).await?;
        }
    }
}

/// What happens to the tasks of all requests.
struct Changes {
    streams: StreamMap<usize, Streaming<WatchEvent>>,
    wanted: usize,
}

impl Changes {
    /// Begins behind what there is already.
    async fn open(client: &mut Client, requests: &[ListTasksRequest]) -> anyhow::Result<Self> {
        let mut streams = StreamMap::new();
        for (index, request) in requests.iter().enumerate() {
            let ListTasksRequest { stack, service, node } = request.clone();
            let request = WatchRequest { stack, service, node };
            let open = ask_again(async || client.control.watch(request.clone()).await);
            let mut stream = open.await?.into_inner();
            while let Some(event) = stream.next().await {
                match event {
                    Ok(WatchEvent { event: Some(Event::Synced(_)) }) => break,
                    Ok(_) => {}
                    Err(status) if is_over(&status) => break,
                    Err(status) => return Err(status.into()),
                }
            }
            streams.insert(index, stream);
        }
        Ok(Self { streams, wanted: requests.len() })
    }

    /// Waits for the next. False: there may be more than it tells, as a stream has ended.
    async fn next(&mut self) -> Result<bool, Status> {
        match self.streams.next().await {
            Some((_, Ok(_))) => Ok(self.streams.len() == self.wanted),
            Some((_, Err(status))) if !is_over(&status) => Err(status),
            Some((_, Err(_))) | None => Ok(false),
        }
    }

    /// Lets pass what happens until then.
    async fn pass(&mut self, until: Instant) -> Result<bool, Status> {
        loop {
            tokio::select! {
                is_whole = self.next() => {
                    if !is_whole? {
                        return Ok(false);
                    }
                }
                () = sleep_until(until) => return Ok(true),
            }
        }
    }
}

/// It is to be asked for again: the agent was stopped, or the watch could not keep up.
fn is_over(status: &Status) -> bool {
    is_broken(status) || status.code() == Code::DataLoss
}
