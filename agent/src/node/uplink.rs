//! The way to the leader for single requests, while this node has a session with it.

use std::time::Duration;

use shoal_proto::v1::dispatcher_client::DispatcherClient;
use shoal_proto::v1::{PlaceContainerRequest, PlaceContainerResponse};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A new leader is found in less.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Uplink {
    channel: watch::Sender<Option<Channel>>,
}

/// Open until dropped.
pub(crate) struct Open<'a>(&'a Uplink);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.channel.send_replace(None);
    }
}

impl Uplink {
    /// A session has begun there.
    pub(crate) fn open(&self, channel: Channel) -> Open<'_> {
        self.channel.send_replace(Some(channel));
        Open(self)
    }

    /// Tells the managers where a container is to be; waits a while for a leader.
    ///
    /// # Errors
    /// They refuse, or none was found.
    pub(crate) async fn place(
        &self,
        request: &PlaceContainerRequest,
    ) -> Result<PlaceContainerResponse, Status> {
        let deadline = Instant::now() + PATIENCE;
        let mut channels = self.channel.subscribe();
        let mut last = "no manager is in reach".to_owned();
        loop {
            let Ok(channel) = timeout_at(deadline, channels.wait_for(Option::is_some)).await else {
                return Err(Status::unavailable(last));
            };
            // The sender is in `self`.
            let Some(channel) = channel.ok().and_then(|channel| channel.clone()) else { continue };
            let mut client = DispatcherClient::new(channel);
            match timeout_at(deadline, client.place_container(request.clone())).await {
                Ok(Ok(placed)) => return Ok(placed.into_inner()),
                // Saying it again does no harm.
                Ok(Err(status))
                    if matches!(
                        status.code(),
                        Code::Unavailable | Code::Aborted | Code::Unknown
                    ) =>
                {
                    status.message().clone_into(&mut last);
                }
                Ok(Err(status)) => return Err(status),
                Err(_) => return Err(Status::unavailable("the managers do not answer")),
            }
            if Instant::now() > deadline {
                return Err(Status::unavailable(last));
            }
            sleep(RETRY).await;
        }
    }
}
