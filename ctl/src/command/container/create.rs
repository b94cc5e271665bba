//! `ctl create`, and the first half of `ctl run`.

use std::fs;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use shoal_proto::v1::{ContainerConfig, CreateContainerRequest, CreateContainerResponse};

use super::options::Options;
use crate::client::Client;
use crate::output;

/// Make a container without starting it.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Create {
    #[command(flatten)]
    options: Options,
}

pub(super) async fn run(client: &mut Client, args: Create) -> anyhow::Result<ExitCode> {
    let (created, _) = create(client, args.options, |_| {}).await?;
    output::line(created.id)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes it; returns it with its configuration.
pub(super) async fn create(
    client: &mut Client,
    options: Options,
    change: impl FnOnce(&mut ContainerConfig),
) -> anyhow::Result<(CreateContainerResponse, ContainerConfig)> {
    let pull = options.pull.clone();
    // Opened first: a file that can't be written must not leave a container.
    let cidfile = match &options.cidfile {
        None => None,
        Some(path) => Some(
            fs::File::create_new(path)
                .with_context(|| format!("can't make the file {}", path.display()))?,
        ),
    };
    let mut config = options.config()?;
    change(&mut config);
    let request = CreateContainerRequest { config: Some(config.clone()), pull };
    let created = client.containers.create_container(request).await?.into_inner();
    for warning in &created.warnings {
        output::note(format!("warning: {warning}"));
    }
    if let Some(mut file) = cidfile {
        file.write_all(created.id.as_bytes())?;
    }
    Ok((created, config))
}
