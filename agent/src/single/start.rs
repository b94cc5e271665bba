//! Starts a container: namespaces, address, ports, the container itself, its command.

use std::sync::Arc;

use oci_spec::image::ImageConfiguration;
use shoal_proto::v1::ContainerStatus;
use shoal_runtime::{ConsoleReader, ConsoleWriter, Namespace, Rootfs, RuntimeError};

use super::{Single, SingleError, Singles, keep, network, now};
use crate::container::{self, Place, Wanted};

/// Why it could not be started, with Docker's exit code: 127 for a command that is not there, 126
/// for one that can't be executed, 125 for all else.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl From<SingleError> for Failure {
    fn from(error: SingleError) -> Self {
        Self { code: 125, message: error.to_string() }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { code: 125, message }
    }
}

fn failure(error: RuntimeError) -> Failure {
    match error {
        RuntimeError::Exec { code, message } => Failure { code, message },
        error => Failure { code: 125, message: error.to_string() },
    }
}

/// Both directions of a container's standard streams.
pub(crate) type Console = (ConsoleReader, ConsoleWriter);

impl Singles {
    /// Starts it, attached before its command runs where asked: `Some(true)` with its standard
    /// input. Fine when it runs already, and then not attached.
    pub(crate) async fn start(
        &self,
        single: &Arc<Single>,
        attach: Option<bool>,
    ) -> Result<Option<Console>, Failure> {
        let _busy = single.busy.lock().await;
        if single.is_up() {
            return Ok(None);
        }
        single.set_stopping(false);
        self.change(single, |record| record.stopped_by_user = false);
        let console = self.start_once(single, attach).await?;
        self.change_state(single, |state| state.restart_count = 0);
        keep::spawn(self, single);
        Ok(console)
    }

    /// On a failure nothing of the run remains, and the state says why.
    pub(super) async fn start_once(
        &self,
        single: &Single,
        attach: Option<bool>,
    ) -> Result<Option<Console>, Failure> {
        let started = self.try_start(single, attach).await;
        if let Err(failure) = &started {
            self.release(single).await;
            self.change_state(single, |state| {
                let was_run = state.started_at.is_some();
                let status =
                    if was_run { ContainerStatus::Exited } else { ContainerStatus::Created };
                state.set_status(status);
                state.pid = 0;
                state.exit_code = failure.code;
                state.error.clone_from(&failure.message);
                state.finished_at = now();
            });
        }
        started
    }

    async fn try_start(
        &self,
        single: &Single,
        attach: Option<bool>,
    ) -> Result<Option<Console>, Failure> {
        let node = self.node();
        let record = single.record();
        let config = record.config.clone().unwrap_or_default();
        let image: ImageConfiguration = serde_json::from_str(&record.image_config)
            .map_err(|error| format!("the container's image configuration: {error}"))?;
        // What a run that a crash ended has left.
        self.release(single).await;
        let snapshot = node.images.snapshot(&single.id).await.map_err(|error| error.to_string())?;
        let (snapshot, _) = snapshot.ok_or_else(|| "its files are gone".to_owned())?;
        let places = self.places(single).await?;
        self.claim_ports(single).await?;
        let place = Place {
            files: Vec::new(),
            hostname: match config.network_mode.as_str() {
                // As Docker: who shares the host's network has its name.
                "host" if network::has_no_hostname(&config) => crate::host::name(),
                _ => network::hostname(&single.id, &config),
            },
            addresses: places.iter().map(|place| place.address).collect(),
            nameservers: places.iter().map(|place| place.network.gateway).collect(),
            namespaces: self.namespaces(&config)?,
        };
        let wanted = Wanted { id: &single.id, config: &config, image: &image, place: &place };
        let rootfs =
            Rootfs::Overlay { lower: snapshot.lower, upper: snapshot.upper, work: snapshot.work };
        let request = container::build(node, &wanted, rootfs)?;
        let args = request.spec.process().as_ref().and_then(|process| process.args().clone());
        let private = place.namespaces.network == Namespace::Private;
        let (runtime, id) = (node.runtime.clone(), single.id.clone());
        let created = blocking(move || runtime.create(&id, request)).await.map_err(failure)?;
        if private {
            // Before its interface is there, so that no packet of its own is ahead of the rules.
            self.change(single, |record| record.attached = true);
            self.apply_network().await;
            self.shared.placing.notify_one();
            let requests = self.interfaces(&places).await?;
            let attached = node.network.attach(&single.id, &created.netns, &requests).await;
            attached.map_err(|error| error.to_string())?;
        }
        let console = match attach {
            Some(input) => Some(node.runtime.attach(&single.id, input).await.map_err(failure)?),
            None => None,
        };
        let (runtime, id) = (node.runtime.clone(), single.id.clone());
        blocking(move || runtime.start(&id)).await.map_err(failure)?;
        self.change(single, |record| record.args = args.unwrap_or_default());
        self.change_state(single, |state| {
            state.set_status(ContainerStatus::Running);
            state.pid = created.pid;
            state.exit_code = 0;
            state.oom_killed = false;
            state.error.clear();
            state.started_at = now();
            state.finished_at = None;
            state.health = 0;
            state.health_output.clear();
        });
        Ok(console)
    }

    /// Takes apart what a run has of the host's; files and log stay.
    pub(super) async fn release(&self, single: &Single) {
        let node = self.node();
        crate::task::release_run(node, &single.id).await;
        let record = single.record();
        if record.attached || !record.address.is_empty() || !record.ports.is_empty() {
            self.change(single, |record| {
                record.attached = false;
                record.address.clear();
                record.ports.clear();
            });
            self.apply_network().await;
            self.shared.placing.notify_one();
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RuntimeError::Setup(format!("the work ended early: {error}"))))
}
