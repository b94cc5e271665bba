//! Stops a container, and what else is done to one that runs.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use shoal_proto::time::std_duration;
use shoal_proto::v1::{ContainerRecord, ContainerStatus, UpdateContainerRequest};
use shoal_runtime::spec::{self, ContainerOptions};

use super::start::blocking;
use super::{Single, SingleError, Singles};
use crate::container::{self, signal};

const KILL_AGAIN: Duration = Duration::from_secs(1);
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The container's stop signal: its own, its image's, or SIGTERM.
fn stop_signal(record: &ContainerRecord) -> i32 {
    let own = record.config.as_ref().and_then(|config| config.spec.as_ref());
    let own = own.map(|spec| spec.stop_signal.clone()).filter(|text| !text.is_empty());
    let image = || {
        let value: serde_json::Value = serde_json::from_str(&record.image_config).ok()?;
        value["config"]["StopSignal"].as_str().map(str::to_owned)
    };
    let text = own.or_else(image).unwrap_or_default();
    signal::parse(&text).unwrap_or(Signal::SIGTERM as i32)
}

impl Singles {
    /// The stop signal, the grace time, then SIGKILL for everything. Waits until it has ended;
    /// fine when it has already.
    pub(crate) async fn stop(
        &self,
        single: &Arc<Single>,
        grace: Option<Duration>,
        signal: Option<i32>,
    ) -> Result<(), SingleError> {
        let _busy = single.busy.lock().await;
        self.change(single, |record| record.stopped_by_user = true);
        self.stop_now(single, grace, signal).await
    }

    pub(super) async fn stop_now(
        &self,
        single: &Arc<Single>,
        grace: Option<Duration>,
        signal: Option<i32>,
    ) -> Result<(), SingleError> {
        if !single.is_up() {
            return Ok(());
        }
        single.set_stopping(true);
        let record = single.record();
        let own = record.config.as_ref().and_then(|config| config.spec.as_ref());
        let own = own.and_then(|spec| spec.stop_grace_period.as_ref()).map(std_duration);
        let grace = grace.or(own).unwrap_or(STOP_GRACE);
        let signal = signal.unwrap_or_else(|| stop_signal(&record));
        let ended = || single.until(|_| !single.is_up());
        let runtime = self.node().runtime.clone();
        let id = single.id.clone();
        if !grace.is_zero() {
            let asked = blocking({
                let (runtime, id) = (runtime.clone(), id.clone());
                move || {
                    runtime.signal(&id, signal)?;
                    // A signal reaches nobody who is frozen.
                    if runtime.is_paused(&id) { runtime.pause(&id, false) } else { Ok(()) }
                }
            });
            if asked.await.is_ok() && tokio::time::timeout(grace, ended()).await.is_ok() {
                return Ok(());
            }
        }
        // Again, should it be on its way up between two runs.
        loop {
            let (runtime, id) = (runtime.clone(), id.clone());
            let killed = blocking(move || runtime.kill_all(&id)).await;
            if tokio::time::timeout(KILL_AGAIN, ended()).await.is_ok() {
                return Ok(());
            }
            if let Err(error) = killed {
                tracing::warn!(container.id = single.id, %error, "it can't be killed yet");
            }
        }
    }

    pub(crate) async fn kill(&self, single: &Arc<Single>, number: i32) -> Result<(), SingleError> {
        self.running(single)?;
        if number == Signal::SIGKILL as i32 {
            // As docker kill: an end that somebody wanted.
            self.change(single, |record| record.stopped_by_user = true);
            single.set_stopping(true);
        }
        let (runtime, id) = (self.node().runtime.clone(), single.id.clone());
        let sent = blocking(move || {
            runtime.signal(&id, number)?;
            let frozen = number == Signal::SIGKILL as i32 && runtime.is_paused(&id);
            if frozen { runtime.pause(&id, false) } else { Ok(()) }
        });
        sent.await.map_err(|error| SingleError::Failed(error.to_string()))
    }

    pub(crate) fn running(&self, single: &Single) -> Result<(), SingleError> {
        match single.state().status() {
            ContainerStatus::Running | ContainerStatus::Paused => Ok(()),
            _ => Err(SingleError::Conflict(format!("container {} is not running", single.name()))),
        }
    }

    pub(crate) async fn pause(&self, single: &Single, paused: bool) -> Result<(), SingleError> {
        let _busy = single.busy.lock().await;
        let (from, to) = match paused {
            true => (ContainerStatus::Running, ContainerStatus::Paused),
            false => (ContainerStatus::Paused, ContainerStatus::Running),
        };
        if single.state().status() != from {
            let word = if paused { "not running" } else { "not paused" };
            return Err(SingleError::Conflict(format!("container {} is {word}", single.name())));
        }
        self.node()
            .runtime
            .pause(&single.id, paused)
            .map_err(|error| SingleError::Failed(error.to_string()))?;
        self.change_state(single, |state| state.set_status(to));
        Ok(())
    }

    pub(crate) async fn update(
        &self,
        single: &Single,
        request: UpdateContainerRequest,
    ) -> Result<(), SingleError> {
        let _busy = single.busy.lock().await;
        if let Some(limits) = &request.limits {
            let mut options = ContainerOptions::default();
            container::limit(&mut options, limits).map_err(SingleError::Invalid)?;
            let mut resources = spec::resources(&options)
                .map_err(|error| SingleError::Invalid(error.to_string()))?;
            // Devices stay as they are.
            resources.set_devices(None);
            if single.is_up() {
                let (runtime, id) = (self.node().runtime.clone(), single.id.clone());
                blocking(move || runtime.update(&id, &resources))
                    .await
                    .map_err(|error| SingleError::Failed(error.to_string()))?;
            }
        }
        self.change(single, |record| {
            let config = record.config.get_or_insert_default();
            if let Some(restart) = request.restart {
                config.restart = Some(restart);
            }
            if let Some(new) = request.limits {
                merge(config.limits.get_or_insert_default(), new);
            }
        });
        Ok(())
    }
}

/// What is given replaces what there was.
fn merge(own: &mut shoal_proto::v1::ContainerLimits, new: shoal_proto::v1::ContainerLimits) {
    let none = shoal_proto::v1::ContainerLimits::default();
    macro_rules! take {
        ($($field:ident),*) => {$(
            if new.$field != none.$field {
                own.$field = new.$field;
            }
        )*};
    }
    take!(
        memory_bytes,
        memory_swap_bytes,
        memory_reservation_bytes,
        nano_cpus,
        cpu_shares,
        cpu_quota,
        cpu_period,
        cpuset_cpus,
        cpuset_mems,
        pids,
        block_io
    );
}
