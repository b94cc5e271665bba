//! `ctl diff` and `ctl export`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use shoal_proto::v1::ContainerRequest;

use crate::client::Client;
use crate::output;

/// Write a container's whole file system as a tar archive.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The container
    container: String,
    /// Where to [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn diff(client: &mut Client, container: String) -> anyhow::Result<ExitCode> {
    let request = ContainerRequest { container };
    for change in client.containers.diff_container(request).await?.into_inner().changes {
        output::line(change)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn export(client: &mut Client, args: Export) -> anyhow::Result<ExitCode> {
    if args.output.is_none() && io::stdout().is_terminal() {
        bail!("an archive is not for a terminal; name a file with -o, or redirect the output");
    }
    let request = ContainerRequest { container: args.container };
    let mut chunks = client.containers.export_container(request).await?.into_inner();
    let mut output: Box<dyn Write> = match &args.output {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("can't make {}", path.display()))?)
        }
        None => Box::new(io::stdout()),
    };
    while let Some(chunk) = chunks.message().await? {
        output.write_all(&chunk.data)?;
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}
