//! A node's certificate as it is now: it changes while the node runs, and connections that begin
//! show and trust the newest.

use std::sync::Arc;

use tokio::sync::watch;

use super::NodeCertificate;

/// Clones share it.
#[derive(Clone)]
pub struct Credentials {
    current: Arc<watch::Sender<NodeCertificate>>,
}

impl Credentials {
    /// Begins with that one.
    #[must_use]
    pub fn new(certificate: NodeCertificate) -> Self {
        Self { current: Arc::new(watch::channel(certificate).0) }
    }

    /// The newest.
    #[must_use]
    pub fn current(&self) -> NodeCertificate {
        self.current.borrow().clone()
    }

    /// There is a newer one.
    pub fn replace(&self, certificate: NodeCertificate) {
        self.current.send_replace(certificate);
    }

    /// Tells of each new one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<NodeCertificate> {
        self.current.subscribe()
    }
}
