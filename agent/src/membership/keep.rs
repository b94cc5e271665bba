//! Keeps a node's certificate good and its part in the cluster as the managers want it: renews in
//! good time, takes new roots, becomes a manager or a worker.

use std::time::{Duration, SystemTime};

use shoal_manager::ca::{Credentials, NodeCertificate};
use shoal_manager::keys;
use shoal_proto::v1::{NodeRole, Standing};
use tokio::sync::watch;
use tokio::time::Instant;

use super::NodeFolder;
use super::join::{self, Issued};
use crate::identity::random_bits;
use crate::seat::Seat;
use crate::session::Managers;

/// Between two renewals that are due by age.
const RETRY: Duration = Duration::from_secs(60);
/// Between two of what managers wait for.
const SOON: Duration = Duration::from_secs(1);
/// All nodes hear of a new root at once: each waits for a part of this.
const SPREAD: Duration = Duration::from_secs(2);

/// What it works with.
pub(crate) struct Keeper<'a> {
    pub(crate) folder: NodeFolder,
    pub(crate) credentials: Credentials,
    pub(crate) managers: &'a Managers,
    pub(crate) seat: &'a Seat,
}

/// Why there has to be another certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Age,
    Roots,
    Role,
}

impl Keeper<'_> {
    /// Never ends.
    pub(crate) async fn run(mut self) {
        let mut standing = self.managers.standing();
        let mut not_before = Instant::now();
        loop {
            let reason = self.until_due(&mut standing, not_before).await;
            let began = Instant::now();
            if reason == Reason::Roots {
                tokio::time::sleep(SPREAD.mul_f64(jitter())).await;
            }
            if let Err(error) = self.renew().await {
                let error = format!("{error:#}");
                tracing::warn!(error, ?reason, "the certificate can't be renewed yet");
            }
            // Also after one that came: where the clock is wrong it may be due at once again.
            match reason {
                Reason::Age => not_before = began + RETRY,
                Reason::Roots | Reason::Role => tokio::time::sleep_until(began + SOON).await,
            }
        }
    }

    /// Waits until there has to be another certificate: not before that time because of its age, at
    /// once when the managers want one.
    async fn until_due(
        &self,
        standing: &mut watch::Receiver<Option<Standing>>,
        not_before: Instant,
    ) -> Reason {
        let certificate = self.credentials.current();
        let place = (jitter() * f64::from(u32::MAX)) as u32;
        let age = certificate.renew_at(place).duration_since(SystemTime::now());
        let age =
            tokio::time::sleep_until(not_before.max(Instant::now() + age.unwrap_or_default()));
        tokio::pin!(age);
        loop {
            let said = standing.borrow_and_update().clone();
            if let Some(reason) = said.and_then(|said| self.differs(&certificate, &said)) {
                return reason;
            }
            tokio::select! {
                () = &mut age => return Reason::Age,
                // The sender lives as long as the managers' addresses.
                _ = standing.changed() => {}
            }
        }
    }

    fn differs(&self, certificate: &NodeCertificate, said: &Standing) -> Option<Reason> {
        let identity = certificate.identity();
        let number = self.seat.raft_id().map_or(0, |id| id.get());
        let is_other_manager = said.role() == NodeRole::Manager && said.raft_id != number;
        if said.role() != identity.role || is_other_manager {
            return Some(Reason::Role);
        }
        (said.trusted_roots != certificate.trusted_roots()).then_some(Reason::Roots)
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        let certificate = self.credentials.current();
        if certificate.expires_at() <= SystemTime::now()
            && let Some(own) = self.seat.issue()
        {
            // No manager talks to this one; it has all that is needed itself.
            return self.take(Issued { certificate: own, raft_id: self.seat.raft_id() }).await;
        }
        let mut last = None;
        for address in self.managers.addresses() {
            match join::renew(&address, &certificate).await {
                Ok(issued) => return self.take(issued).await,
                Err(error) => last = Some(error.context(address)),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no manager is known")))
    }

    async fn take(&mut self, issued: Issued) -> anyhow::Result<()> {
        let role = issued.certificate.identity().role;
        match (self.seat.raft_id(), issued.raft_id) {
            // What an earlier try has left half done is done again.
            (None, None) if keys::exist(self.folder.path()) => {
                issued.keep(&self.folder, None)?;
                self.credentials.replace(issued.certificate);
            }
            (old, new) if old == new => {
                issued.certificate.store(self.folder.path(), self.seat.data_key().as_ref())?;
                tracing::info!("certificate renewed");
                self.credentials.replace(issued.certificate);
            }
            (old, new) => {
                let key = self.seat.data_key().filter(|_| new.is_some());
                if old.is_some() {
                    self.seat.leave().await;
                }
                issued.keep(&self.folder, key.as_ref())?;
                tracing::info!(%role, "this node is a {role} from now on");
                self.credentials.replace(issued.certificate);
                if new.is_some() {
                    self.seat.take(&self.folder, &self.credentials, key).await?;
                }
            }
        }
        Ok(())
    }
}

/// From 0 to 1.
fn jitter() -> f64 {
    let bits = random_bits().map_or(0, |bits| bits as u32);
    f64::from(bits) / f64::from(u32::MAX)
}
