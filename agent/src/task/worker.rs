//! One task's way: accepted, preparing, ready, starting, running, and one of the ends. What it
//! reports is also on disk, so that an agent that starts anew knows how far the task was.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use shoal_image::Image;
use shoal_proto::time::{std_duration, timestamp};
use shoal_proto::v1::{ContainerSpec, Health, Network, Task, TaskState, TaskStatus};
use shoal_runtime::{ContainerState, ExitStatus, RuntimeError};
use tokio::sync::watch;

use super::{cleanup, container, fence};
use crate::container::health;
use crate::node::Node;

const STOP_GRACE: Duration = Duration::from_secs(10);

/// Why a task ends before its container does.
pub(super) enum Refusal {
    /// It can't be started: [`TaskState::Rejected`].
    Rejected(String),
    /// It was started and failed: [`TaskState::Failed`], with Docker's exit code.
    Failed(String, i32),
    /// It is no longer wanted.
    Unwanted,
}

/// How a container that ran came to its end.
enum End {
    Exited(Option<ExitStatus>),
    Unwanted,
    Unhealthy(String),
}

/// Takes the task from where it is to its end.
pub(super) async fn run(
    node: Node,
    task: Task,
    networks: BTreeMap<String, Network>,
    desired: watch::Receiver<TaskState>,
) {
    let status = node.statuses.status(&task.id).unwrap_or_default();
    let mut worker = Worker { node, task, networks, desired, status };
    if worker.status.state().is_terminal() {
        // Over before this agent began: the manager may not have heard.
        worker.node.reports.put(&worker.task.id, worker.status.clone());
        return;
    }
    let outcome = worker.live().await;
    worker.finish(outcome).await;
}

struct Worker {
    node: Node,
    task: Task,
    networks: BTreeMap<String, Network>,
    desired: watch::Receiver<TaskState>,
    status: TaskStatus,
}

impl Worker {
    fn report(&mut self, state: TaskState, message: impl Into<String>) {
        let from = self.status.state();
        self.status.set_state(state);
        self.status.since = Some(timestamp(SystemTime::now()));
        self.status.message = message.into();
        tracing::info!(
            task.id = self.task.id,
            task.name = %format_args!("{}.{}", self.task.service_name, self.task.slot),
            state.from = %from,
            state.to = %state,
            error = self.status.error,
            "task"
        );
        self.publish();
    }

    fn publish(&self) {
        // Without its status on disk, an agent that restarts would start the task anew.
        if let Err(error) = self.node.statuses.save_status(&self.task.id, &self.status) {
            tracing::warn!(task.id = self.task.id, %error, "can't keep the status on disk");
        }
        self.node.reports.put(&self.task.id, self.status.clone());
    }

    fn spec(&self) -> ContainerSpec {
        self.task.spec.clone().unwrap_or_default().container.unwrap_or_default()
    }

    /// The image that the container was made of, if it is still on this node.
    async fn image(&self) -> Option<Image> {
        match self.node.images.snapshot(&self.task.id).await {
            Ok(snapshot) => snapshot.and_then(|(_, image)| image),
            Err(error) => {
                tracing::warn!(task.id = self.task.id, %error, "the image's settings are unknown");
                None
            }
        }
    }

    async fn until_unwanted(desired: &mut watch::Receiver<TaskState>) {
        // Without a sender nobody will ever want it to stop.
        if desired.wait_for(|state| *state > TaskState::Running).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn live(&mut self) -> Result<End, Refusal> {
        if self.status.state() >= TaskState::Starting {
            return self.resume().await;
        }
        if *self.desired.borrow() > TaskState::Running {
            return Err(Refusal::Unwanted);
        }
        // What a crash has left of an earlier try.
        cleanup::release(&self.node, &self.task.id).await;
        self.report(TaskState::Accepted, "accepted");
        let image = self.spec().image;
        self.report(TaskState::Preparing, format!("preparing image {image}"));
        let mut desired = self.desired.clone();
        let prepared = tokio::select! {
            prepared = container::prepare(&self.node, &self.task) => prepared?,
            () = Self::until_unwanted(&mut desired) => return Err(Refusal::Unwanted),
        };
        self.report(TaskState::Ready, "ready");
        let go = self.desired.wait_for(|state| *state >= TaskState::Running).await;
        if go.is_ok_and(|state| *state > TaskState::Running) {
            return Err(Refusal::Unwanted);
        }
        self.report(TaskState::Starting, "starting");
        let pid = container::start(&self.node, &self.task, &self.networks, prepared).await?;
        self.status.container_id.clone_from(&self.task.id);
        self.status.pid = pid;
        self.supervise().await
    }

    /// Goes on with a container that an agent before this one has started.
    async fn resume(&mut self) -> Result<End, Refusal> {
        match self.node.runtime.state(&self.task.id) {
            Ok(ContainerState::Running { pid, .. }) => {
                self.status.pid = pid;
                let ports = container::ports(&self.task);
                if let Err(error) = self.node.network.claim_ports(&self.task.id, &ports).await {
                    tracing::warn!(task.id = self.task.id, %error, "a port of a running task");
                }
                self.supervise().await
            }
            Ok(ContainerState::Exited(exit)) => Ok(End::Exited(Some(exit))),
            Ok(ContainerState::Created { .. }) => Err(Refusal::Failed(
                "the agent ended while the container was being started".to_owned(),
                137,
            )),
            Ok(ContainerState::Dead) | Err(RuntimeError::Missing(_)) => Ok(End::Exited(None)),
            Err(error) => Err(Refusal::Failed(error.to_string(), 137)),
        }
    }

    /// Until the container ends, is not wanted, or turns out ill.
    async fn supervise(&mut self) -> Result<End, Refusal> {
        let image = self.image().await;
        let image = image.as_ref().and_then(|image| image.health_check.as_ref());
        let check = health::Check::of(&self.spec(), image);
        match &check {
            None => self.report(TaskState::Running, "running"),
            Some(_) if self.status.state() == TaskState::Running => self.publish(),
            Some(_) => {
                self.status.set_health(Health::Starting);
                self.report(TaskState::Starting, "waits for its first health check");
            }
        }
        let node = self.node.clone();
        let id = self.task.id.clone();
        let mut desired = self.desired.clone();
        let (verdicts, mut inbox) = tokio::sync::mpsc::channel(1);
        let checks = check
            .map(|check| tokio::spawn(health::run(self.node.clone(), id.clone(), check, verdicts)));
        let exit = node.runtime.wait(&id);
        tokio::pin!(exit);
        let fenced = self.is_fenced();
        let lease = async {
            match fenced {
                true => fence::follow(&node, &id).await,
                false => std::future::pending().await,
            }
        };
        tokio::pin!(lease);
        let end = loop {
            tokio::select! {
                exit = &mut exit => break End::Exited(exit.ok().flatten()),
                () = &mut lease => {}
                () = Self::until_unwanted(&mut desired) => break End::Unwanted,
                Some(verdict) = inbox.recv() => match verdict {
                    health::Verdict::Healthy => {
                        self.status.set_health(Health::Healthy);
                        self.report(TaskState::Running, "running");
                    }
                    // One that was healthy before this agent began is running.
                    health::Verdict::NotYet(_) if self.status.state() == TaskState::Running => {}
                    health::Verdict::NotYet(output) => {
                        self.status.message = format!("health check: {output}");
                        self.publish();
                    }
                    health::Verdict::Unhealthy(output) => {
                        self.status.set_health(Health::Unhealthy);
                        break End::Unhealthy(output);
                    }
                },
            }
        };
        if let Some(checks) = checks {
            checks.abort();
        }
        match end {
            End::Exited(_) => {}
            End::Unwanted | End::Unhealthy(_) => self.stop().await,
        }
        Ok(end)
    }

    fn is_fenced(&self) -> bool {
        self.task.spec.as_ref().is_some_and(|spec| spec.fenced)
    }

    fn is_fenced_off(&self, exit: ExitStatus) -> bool {
        let killed = exit.signal == Some(Signal::SIGKILL as i32) && !exit.oom_killed;
        self.is_fenced() && killed && fence::has_run_out(&self.node)
    }

    /// The stop signal, the grace time, then SIGKILL for everything.
    async fn stop(&mut self) {
        let spec = self.spec();
        let signal = container::stop_signal(&spec, self.image().await.as_ref());
        let grace = spec.stop_grace_period.as_ref().map_or(STOP_GRACE, std_duration);
        let (runtime, id) = (self.node.runtime.clone(), self.task.id.clone());
        let asked = tokio::task::spawn_blocking(move || runtime.signal(&id, signal)).await;
        let wait = self.node.runtime.wait(&self.task.id);
        let asked = matches!(asked, Ok(Ok(())));
        if asked
            && signal != Signal::SIGKILL as i32
            && tokio::time::timeout(grace, wait).await.is_ok()
        {
            return;
        }
        let (runtime, id) = (self.node.runtime.clone(), self.task.id.clone());
        let killed = tokio::task::spawn_blocking(move || runtime.kill_all(&id)).await;
        if let Ok(Err(error)) = killed {
            tracing::warn!(task.id = self.task.id, %error, "kill");
        }
    }

    /// Takes apart what the container had, then reports the end: its address is free from then on.
    async fn finish(&mut self, outcome: Result<End, Refusal>) {
        let exit = match &outcome {
            Ok(End::Exited(exit)) => *exit,
            // How it took the signal.
            Ok(End::Unwanted | End::Unhealthy(_)) => {
                self.node.runtime.wait(&self.task.id).await.unwrap_or_default()
            }
            Err(_) => None,
        };
        cleanup::release(&self.node, &self.task.id).await;
        self.status.exit_code = exit.map(|exit| exit.code);
        self.status.oom_killed = exit.is_some_and(|exit| exit.oom_killed);
        self.status.pid = 0;
        let unwanted = *self.desired.borrow() > TaskState::Running;
        let (state, message, error) = match outcome {
            Ok(End::Unwanted) | Err(Refusal::Unwanted) => {
                (TaskState::Shutdown, "shut down", String::new())
            }
            Ok(End::Exited(_)) if unwanted => (TaskState::Shutdown, "shut down", String::new()),
            Ok(End::Exited(Some(exit))) if exit.code == 0 => {
                (TaskState::Complete, "finished", String::new())
            }
            Ok(End::Exited(Some(exit))) if self.is_fenced_off(exit) => (
                TaskState::Failed,
                "failed",
                "no manager was reached for longer than the fencing lease".to_owned(),
            ),
            Ok(End::Exited(exit)) => (TaskState::Failed, "failed", describe(exit)),
            Ok(End::Unhealthy(output)) => {
                (TaskState::Failed, "failed", format!("health check failed: {output}"))
            }
            Err(Refusal::Failed(error, code)) => {
                self.status.exit_code = Some(code);
                (TaskState::Failed, "failed", error)
            }
            Err(Refusal::Rejected(error)) => (TaskState::Rejected, "rejected", error),
        };
        self.status.error = error;
        self.report(state, message);
    }
}

fn describe(exit: Option<ExitStatus>) -> String {
    match exit {
        None => "the container is gone: its host restarted, or its shim was killed".to_owned(),
        Some(ExitStatus { oom_killed: true, code, .. }) => {
            format!("out of memory: the kernel killed it (exit code {code})")
        }
        Some(ExitStatus { signal: Some(signal), code, .. }) => {
            let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
            format!("killed by {name} (exit code {code})")
        }
        Some(exit) => format!("exit code {}", exit.code),
    }
}
