//! A running container's keeper: watches over its health, sees its end, and brings it back where
//! its restart policy says so.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_proto::time::system_time;
use shoal_proto::v1::{
    ContainerRecord, ContainerRestart, ContainerStateInfo, ContainerStatus, Health,
};
use shoal_runtime::{ContainerState, ExitStatus};
use tokio::sync::mpsc;

use super::{Single, Singles, lock, now};
use crate::container::health::{self, Check};

/// The wait before the first restart; doubles with each up to [`LAST_WAIT`] (Docker's numbers).
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(60);
/// One that ran for so long begins with the first wait again.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// Of a container whose end nobody has recorded: the host has restarted, or its shim was killed.
const UNKNOWN: i32 = 255;

/// Keeps a container that runs, until its end without a restart.
pub(super) fn spawn(singles: &Singles, single: &Arc<Single>) {
    let keeper = tokio::spawn(keep(singles.clone(), single.clone()));
    // The one before has ended: it is what ends a run.
    *lock(&single.keeper) = Some(keeper);
}

impl Singles {
    /// Goes on with what an agent before this one has left.
    pub(crate) async fn resume(&self) {
        for single in self.all() {
            if !single.is_up() {
                continue;
            }
            if matches!(self.node().runtime.state(&single.id), Ok(ContainerState::Running { .. })) {
                let ports: Vec<_> =
                    single.record().ports.iter().filter_map(crate::task::port).collect();
                let claimed = self.node().network.claim_ports(&single.id, &ports).await;
                if let Err(error) = claimed {
                    tracing::warn!(container.id = single.id, %error, "a port of a container");
                }
            }
            spawn(self, &single);
        }
        self.apply_network().await;
        for single in self.all() {
            // Those that were to run always and were down when the host went down.
            let record = single.record();
            if !single.is_up() && record.state.is_some_and(|state| state.started_at.is_some()) {
                let restart = record.config.unwrap_or_default().restart.unwrap_or_default();
                if restart.condition() == ContainerRestart::Always && !single.is_stopping() {
                    let this = self.clone();
                    tokio::spawn(async move {
                        if let Err(failure) = this.start(&single, None).await {
                            tracing::warn!(
                                container.id = single.id,
                                error = failure.message,
                                "start"
                            );
                        }
                    });
                }
            }
        }
    }
}

async fn keep(singles: Singles, single: Arc<Single>) {
    let mut wait = FIRST_WAIT;
    loop {
        let checks = watch_health(&singles, &single);
        let exit = singles.node().runtime.wait(&single.id).await.ok().flatten();
        if let Some(checks) = checks {
            checks.abort();
        }
        end(&singles, &single, exit).await;
        let ran = run_time(&single.state());
        if ran >= GOOD_RUN {
            wait = FIRST_WAIT;
        }
        if !is_to_restart(&single) {
            break;
        }
        singles.change_state(&single, |state| state.set_status(ContainerStatus::Restarting));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = single.until(|_| single.is_stopping()) => {}
        }
        wait = (wait * 2).min(LAST_WAIT);
        loop {
            if single.is_stopping() {
                singles.change_state(&single, |state| state.set_status(ContainerStatus::Exited));
                return;
            }
            singles.change_state(&single, |state| state.restart_count += 1);
            if singles.start_once(&single, None).await.is_ok() {
                break;
            }
            if !is_to_restart(&single) {
                return;
            }
            singles.change_state(&single, |state| state.set_status(ContainerStatus::Restarting));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = single.until(|_| single.is_stopping()) => {}
            }
            wait = (wait * 2).min(LAST_WAIT);
        }
    }
    if single.record().config.is_some_and(|config| config.auto_remove) {
        let this = singles.clone();
        // Not from here: removal waits for this keeper.
        tokio::spawn(async move {
            if let Err(error) = this.remove(&single, true, true).await {
                tracing::warn!(container.id = single.id, %error, "can't remove it");
            }
        });
    }
}

/// Records the end and gives back what the run had.
async fn end(singles: &Singles, single: &Single, exit: Option<ExitStatus>) {
    singles.release(single).await;
    singles.change_state(single, |state| {
        state.set_status(ContainerStatus::Exited);
        state.pid = 0;
        state.exit_code = exit.map_or(UNKNOWN, |exit| exit.code);
        state.oom_killed = exit.is_some_and(|exit| exit.oom_killed);
        state.error = match exit {
            None => {
                "its end was not recorded: the host restarted, or its shim was killed".to_owned()
            }
            Some(exit) if exit.oom_killed => "out of memory".to_owned(),
            Some(_) => String::new(),
        };
        let finished = exit.map(|exit| shoal_proto::time::timestamp(exit.finished_at));
        state.finished_at = finished.or_else(now);
    });
}

fn run_time(state: &ContainerStateInfo) -> Duration {
    let time = |stamp: &Option<shoal_proto::Timestamp>| {
        stamp.as_ref().map_or(SystemTime::UNIX_EPOCH, system_time)
    };
    time(&state.finished_at).duration_since(time(&state.started_at)).unwrap_or_default()
}

fn is_to_restart(single: &Single) -> bool {
    let record = single.record();
    let (config, state) = (record.config.unwrap_or_default(), record.state.unwrap_or_default());
    let policy = config.restart.unwrap_or_default();
    !single.is_stopping()
        && match policy.condition() {
            ContainerRestart::No => false,
            ContainerRestart::Always => true,
            ContainerRestart::UnlessStopped => !record.stopped_by_user,
            ContainerRestart::OnFailure => {
                let tries_left =
                    policy.max_retries == 0 || state.restart_count < policy.max_retries;
                state.exit_code != 0 && tries_left
            }
        }
}

/// The health check that the container or its image has.
fn check(record: &ContainerRecord) -> Option<Check> {
    let spec = record.config.clone().unwrap_or_default().spec.unwrap_or_default();
    let image = shoal_image::read_health_check(record.image_config.as_bytes());
    Check::of(&spec, image.as_ref())
}

fn watch_health(singles: &Singles, single: &Arc<Single>) -> Option<tokio::task::JoinHandle<()>> {
    let check = check(&single.record())?;
    let state = single.state();
    if state.health() == Health::None {
        singles.change_state(single, |state| state.set_health(Health::Starting));
    }
    let (singles, single) = (singles.clone(), single.clone());
    Some(tokio::spawn(async move {
        let (verdicts, mut inbox) = mpsc::channel(1);
        let runs = health::run(singles.node().clone(), single.id.clone(), check, verdicts);
        let listens = async {
            while let Some(verdict) = inbox.recv().await {
                singles.change_state(&single, |state| match verdict {
                    health::Verdict::Healthy => {
                        state.set_health(Health::Healthy);
                        state.health_output.clear();
                    }
                    health::Verdict::NotYet(output) => state.health_output = output,
                    health::Verdict::Unhealthy(output) => {
                        state.set_health(Health::Unhealthy);
                        state.health_output = output;
                    }
                });
            }
        };
        tokio::join!(runs, listens);
    }))
}
