//! `ctl cluster ca`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use shoal_proto::v1::{GetClusterRequest, GetClusterResponse, RotateCaRequest};

use crate::client::Client;
use crate::output;

/// How often to look how far a rotation is.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(crate) struct Ca {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replace the root, and all nodes' certificates with it, while everything goes on. Join tokens
    /// change with it; a node that is down holds the last step up until it is back or is removed
    Rotate(Rotate),
}

#[derive(Debug, Args)]
struct Rotate {
    /// Certificate of an authority of your own, as PEM
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// Its key, as PEM
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// Don't wait until it is done
    #[arg(short, long)]
    detach: bool,
}

pub(super) async fn run(client: &mut Client, command: Ca) -> anyhow::Result<()> {
    let Some(Command::Rotate(rotate)) = command.command else {
        let cluster = cluster(client).await?;
        output::line(cluster.root_pem.trim())?;
        if !cluster.next_root_pem.is_empty() {
            output::note(progress(&cluster));
        }
        return Ok(());
    };
    let read = |path: &Option<PathBuf>| match path {
        None => Ok(String::new()),
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
        }
    };
    let request =
        RotateCaRequest { cert_pem: read(&rotate.ca_cert)?, key_pem: read(&rotate.ca_key)? };
    let root = client.control.rotate_ca(request).await?.into_inner().root_pem;
    if !rotate.detach {
        wait(client).await?;
    }
    output::line(root.trim())
}

/// Until the rotation is done, with a word each time that it waits for other nodes.
async fn wait(client: &mut Client) -> anyhow::Result<()> {
    let mut told = String::new();
    loop {
        let cluster = cluster(client).await?;
        if cluster.next_root_pem.is_empty() {
            return Ok(());
        }
        let now = progress(&cluster);
        if now != told {
            output::note(&now);
            told = now;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn progress(cluster: &GetClusterResponse) -> String {
    match cluster.waiting_for.as_slice() {
        [] => "the root is being replaced".to_owned(),
        nodes => format!("the root is being replaced; waiting for {}", nodes.join(", ")),
    }
}

async fn cluster(client: &mut Client) -> anyhow::Result<GetClusterResponse> {
    Ok(client.control.get_cluster(GetClusterRequest {}).await?.into_inner())
}
