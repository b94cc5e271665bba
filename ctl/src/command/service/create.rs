//! `ctl service create`.

use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{
    ContainerSpec, CreateServiceRequest, GlobalJobMode, GlobalMode, ReplicatedJobMode,
    ReplicatedMode, Resources, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec,
};

use super::options::{Networks, Options};
use super::wait::{MONITOR, Wait};
use crate::client::Client;
use crate::output;

/// Make a service of an image, print its id and wait until it runs.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ctl service create --name web --replicas 3 -p 8080:80 web:1.0\n  ctl service create --name agent --mode global --mount type=bind,source=/var/log,target=/log logs:2\n  ctl service create --name cleanup --schedule \"0 3 * * *\" --time-zone Europe/Berlin tools:1 clean --all\n  ctl service create --name db --secret source=db_key,target=key,mode=0400 --constraint node.labels.disk==ssd db:16"
)]
pub(crate) struct Create {
    /// The image
    image: String,
    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,

    /// Name of the service [default: one is made up]
    #[arg(long)]
    name: Option<String>,
    /// How many tasks it has: so many, or one on each node; jobs' tasks end [default: replicated,
    /// with a schedule replicated-job]
    #[arg(long, value_enum)]
    mode: Option<Kind>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

impl Kind {
    fn mode(self) -> Mode {
        match self {
            Self::Replicated => Mode::Replicated(ReplicatedMode { replicas: 1 }),
            Self::Global => Mode::Global(GlobalMode {}),
            Self::ReplicatedJob => {
                Mode::ReplicatedJob(ReplicatedJobMode { max_concurrent: 0, total_completions: 1 })
            }
            Self::GlobalJob => Mode::GlobalJob(GlobalJobMode {}),
        }
    }
}

pub(super) async fn run(client: &mut Client, args: Create) -> anyhow::Result<ExitCode> {
    let usual = match args.options.has_schedule() {
        true => Kind::ReplicatedJob,
        false => Kind::Replicated,
    };
    let mode = args.mode.unwrap_or(usual).mode();
    let container = ContainerSpec {
        set_args: !args.command.is_empty(),
        args: args.command,
        image: args.image.clone(),
        ..ContainerSpec::default()
    };
    let mut spec = ServiceSpec {
        name: args.name.unwrap_or_else(|| made_up(&args.image, random())),
        mode: Some(ServiceMode { mode: Some(mode) }),
        task: Some(TaskSpec {
            container: Some(container),
            restart: Some(RestartPolicy::default()),
            limits: Some(Resources::default()),
            reservations: Some(Resources::default()),
            ..TaskSpec::default()
        }),
        ..ServiceSpec::default()
    };
    args.options.apply(&mut spec, &Networks::new())?;
    let name = spec.name.clone();
    let request = CreateServiceRequest { spec: Some(spec) };
    let Some(service) = client.control.create_service(request).await?.into_inner().service else {
        bail!("service {name} went away while it was made");
    };
    output::line(&service.id)?;
    args.wait.for_service(client, service, MONITOR).await
}

/// The last part of the image's name, and four digits.
fn made_up(image: &str, number: u16) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    let bare = last.split(':').next().unwrap_or_default();
    format!("{bare}-{number:04x}")
}

/// From the seed that the standard library takes from the system for each process.
fn random() -> u16 {
    (RandomState::new().hash_one(0) & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_up_of_images() {
        for (image, name) in [
            ("web", "web-00ff"),
            ("registry:5000/team/web:1.2", "web-00ff"),
            ("team/web@sha256:0123", "web-00ff"),
        ] {
            assert_eq!(made_up(image, 0xff), name);
        }
    }
}
