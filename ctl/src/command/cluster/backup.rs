//! `ctl cluster backup`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use shoal_proto::v1::BackupRequest;

use crate::client::Client;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Where to; it holds the cluster's keys and secrets, and is for its owner alone
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn run(client: &mut Client, command: &Backup) -> anyhow::Result<()> {
    let mut parts = client.control.backup(BackupRequest {}).await?.into_inner();
    let path = &command.file;
    // Whole or not at all: a file of that name that is there stays until then.
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = || format!("can't write {}", path.display());
    let open =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
    let mut file = open.with_context(failed)?;
    let mut size = 0;
    while let Some(part) = parts.message().await? {
        size += part.data.len();
        file.write_all(&part.data).with_context(failed)?;
    }
    file.sync_all().and_then(|()| fs::rename(&partial, path)).with_context(failed)?;
    output::line(format!("{} ({size} bytes)", path.display()))
}
