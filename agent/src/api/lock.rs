//! Takes the unlock key of a manager that is locked.

use shoal_manager::keys::UnlockKey;
use shoal_proto::v1::lock_server;
use shoal_proto::v1::{UnlockRequest, UnlockResponse};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use crate::seat::{Occupant, Seat};

/// A key, and where to say whether it is the right one.
pub(crate) type Attempt = (UnlockKey, oneshot::Sender<Result<(), String>>);

/// The service.
pub(crate) struct LockApi {
    seat: Seat,
    attempts: mpsc::Sender<Attempt>,
}

impl LockApi {
    pub(crate) fn new(seat: Seat, attempts: mpsc::Sender<Attempt>) -> Self {
        Self { seat, attempts }
    }
}

#[tonic::async_trait]
impl lock_server::Lock for LockApi {
    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let key: UnlockKey = request
            .into_inner()
            .key
            .parse()
            .map_err(|error| Status::invalid_argument(format!("{error}")))?;
        if !matches!(self.seat.occupant().await, Occupant::Locked) {
            return Err(Status::failed_precondition("this node is not locked"));
        }
        let (reply, answer) = oneshot::channel();
        let stopping = || Status::unavailable("the agent is stopping");
        self.attempts.send((key, reply)).await.map_err(|_| stopping())?;
        match answer.await.map_err(|_| stopping())? {
            Ok(()) => Ok(Response::new(UnlockResponse {})),
            Err(why) => Err(Status::permission_denied(why)),
        }
    }
}
