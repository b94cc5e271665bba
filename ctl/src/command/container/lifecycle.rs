//! Start, stop and the like: the same done to each container that is named. One that can't be
//! done does not keep the others from it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use shoal_proto::time::proto_duration;
use shoal_proto::v1::{
    ContainerRequest, ContainerRestartPolicy, ContainerStatus, KillContainerRequest,
    ListContainersRequest, RemoveContainerRequest, RenameContainerRequest, StopContainerRequest,
    UpdateContainerRequest, WaitContainerRequest,
};
use tonic::Status;

use super::Names;
use super::limits::Limits;
use super::options::restart_policy;
use super::run::{Keys, attach_to};
use super::session::Session;
use crate::client::Client;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Attach to its output, and wait for its end
    #[arg(short, long)]
    attach: bool,
    /// Bring standard input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach from a container with a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds between the stop signal and SIGKILL [default: the container's own, else 10]
    #[arg(short = 't', long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u64>,
    /// Signal that asks it to stop [default: the container's own]
    #[arg(short, long, default_value = "", hide_default_value = true)]
    signal: String,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The signal, by name or number
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Also those that run: they are killed
    #[arg(short, long)]
    force: bool,
    /// With their anonymous volumes
    #[arg(short, long)]
    volumes: bool,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    limits: Limits,
    /// When it ends: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = restart_policy)]
    restart: Option<ContainerRestartPolicy>,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

/// What came of each, told as it comes.
struct Outcome {
    code: ExitCode,
}

impl Outcome {
    fn new() -> Self {
        Self { code: ExitCode::SUCCESS }
    }

    fn add<T>(
        &mut self,
        result: Result<T, Status>,
        say: impl FnOnce(T) -> String,
    ) -> anyhow::Result<()> {
        match result {
            Ok(value) => output::line(say(value)),
            Err(status) => {
                output::complain(&status.into());
                self.code = ExitCode::FAILURE;
                Ok(())
            }
        }
    }
}

pub(super) async fn start(client: &mut Client, args: Start) -> anyhow::Result<ExitCode> {
    if (args.attach || args.interactive)
        && let [container] = &args.containers[..]
    {
        let request = ContainerRequest { container: container.clone() };
        let found = client.containers.inspect_container(request).await?.into_inner();
        let config = found.config.unwrap_or_default();
        let session = Session {
            signals_to: Some(container),
            stdin: args.interactive && config.open_stdin,
            tty: config.spec.is_some_and(|spec| spec.tty),
            detach_keys: args.detach_keys.bytes(),
        };
        return Ok(attach_to(client, container, &session, true).await?.code());
    }
    if args.attach || args.interactive {
        anyhow::bail!("only one container can be attached to at a time");
    }
    let mut outcome = Outcome::new();
    for name in args.containers {
        let request = ContainerRequest { container: name.clone() };
        outcome.add(client.containers.start_container(request).await, |_| name)?;
    }
    Ok(outcome.code)
}

fn stop_request(args: &Stop, name: &str) -> StopContainerRequest {
    StopContainerRequest {
        container: name.to_owned(),
        grace: args.time.map(|seconds| proto_duration(Duration::from_secs(seconds))),
        signal: args.signal.clone(),
    }
}

pub(super) async fn stop(client: &mut Client, args: Stop) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::new();
    for name in &args.containers {
        let stopped = client.containers.stop_container(stop_request(&args, name)).await;
        outcome.add(stopped, |_| name.clone())?;
    }
    Ok(outcome.code)
}

pub(super) async fn restart(client: &mut Client, args: Stop) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::new();
    for name in &args.containers {
        let restarted = client.containers.restart_container(stop_request(&args, name)).await;
        outcome.add(restarted, |_| name.clone())?;
    }
    Ok(outcome.code)
}

pub(super) async fn kill(client: &mut Client, args: Kill) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::new();
    for name in args.containers {
        let request = KillContainerRequest { container: name.clone(), signal: args.signal.clone() };
        outcome.add(client.containers.kill_container(request).await, |_| name)?;
    }
    Ok(outcome.code)
}

pub(super) async fn pause(
    client: &mut Client,
    names: Names,
    paused: bool,
) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::new();
    for name in names.containers {
        let request = ContainerRequest { container: name.clone() };
        let done = match paused {
            true => client.containers.pause_container(request).await,
            false => client.containers.unpause_container(request).await,
        };
        outcome.add(done, |_| name)?;
    }
    Ok(outcome.code)
}

pub(super) async fn wait(client: &mut Client, names: Names) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::new();
    for name in names.containers {
        let request = WaitContainerRequest { container: name, next: false };
        let waited = client.containers.wait_container(request).await;
        outcome.add(waited, |exit| exit.into_inner().exit_code.to_string())?;
    }
    Ok(outcome.code)
}

pub(super) async fn remove(client: &mut Client, args: Remove) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::new();
    let Remove { force, volumes, containers } = args;
    for name in containers {
        let request = RemoveContainerRequest { container: name.clone(), force, volumes };
        let removed = match client.containers.remove_container(request).await {
            // rm -f is for having it gone.
            Err(status) if force && status.code() == tonic::Code::NotFound => continue,
            removed => removed,
        };
        outcome.add(removed, |_| name)?;
    }
    Ok(outcome.code)
}

pub(super) async fn rename(
    client: &mut Client,
    container: String,
    name: String,
) -> anyhow::Result<ExitCode> {
    client.containers.rename_container(RenameContainerRequest { container, name }).await?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn update(client: &mut Client, args: Update) -> anyhow::Result<ExitCode> {
    if args.limits.is_empty() && args.restart.is_none() {
        anyhow::bail!("nothing to change; name a limit or a restart policy");
    }
    let mut outcome = Outcome::new();
    for name in &args.containers {
        let request = UpdateContainerRequest {
            container: name.clone(),
            limits: (!args.limits.is_empty()).then(|| args.limits.wire()),
            restart: args.restart,
        };
        outcome.add(client.containers.update_container(request).await, |_| name.clone())?;
    }
    Ok(outcome.code)
}

pub(super) async fn prune(client: &mut Client, args: Prune) -> anyhow::Result<ExitCode> {
    if !args.force {
        output::note("This removes all containers that don't run. Go on? [y/N]");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let request = ListContainersRequest { all: true };
    let listed = client.containers.list_containers(request).await?.into_inner().containers;
    let mut outcome = Outcome::new();
    for container in listed.into_iter().filter(|one| one.task_id.is_empty()) {
        let status = container.state.unwrap_or_default().status();
        if !matches!(status, ContainerStatus::Created | ContainerStatus::Exited) {
            continue;
        }
        let id = container.id;
        let request =
            RemoveContainerRequest { container: id.clone(), force: false, volumes: false };
        outcome.add(client.containers.remove_container(request).await, |_| id)?;
    }
    Ok(outcome.code)
}
