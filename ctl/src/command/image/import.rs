//! `ctl image import`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use shoal_proto::v1::import_image_request::Part;
use shoal_proto::v1::{ImportImageHeader, ImportImageRequest};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Client;
use crate::output;

/// Bytes in one message.
const CHUNK: usize = 128 << 10;
/// Messages under way.
const BACKLOG: usize = 8;

/// Make an image of a tar archive of a root file system, plain or compressed with gzip or zstd.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ctl image import rootfs.tar.gz app:1.0 --cmd '[\"/bin/app\"]' --expose 8080\n  tar -C rootfs -c . | ctl image import - app:1.0 --cmd '[\"/bin/app\"]'"
)]
pub(crate) struct Import {
    /// The archive, or - for standard input
    file: PathBuf,
    /// Name of the image: NAME[:TAG]
    image: String,
    /// Command: a JSON list of arguments, or a line that /bin/sh runs
    #[arg(long)]
    cmd: Option<String>,
    /// Entrypoint: a JSON list of arguments, or a line that /bin/sh runs
    #[arg(long)]
    entrypoint: Option<String>,
    /// Variable in the image: NAME=VALUE
    #[arg(short, long)]
    env: Vec<String>,
    /// Port that the image's program listens on: 8080 or 53/udp
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR", default_value = "")]
    workdir: String,
    /// User, and group, of the command
    #[arg(long, default_value = "")]
    user: String,
    /// Label: NAME=VALUE
    #[arg(long)]
    label: Vec<String>,
}

/// As in a Dockerfile: JSON is taken as it is, anything else is for the shell.
fn command(text: Option<&String>) -> anyhow::Result<Vec<String>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .with_context(|| format!("{text} is no JSON list of texts, such as [\"/bin/app\"]"));
    }
    Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()])
}

fn port(text: &String) -> String {
    if text.contains('/') { text.clone() } else { format!("{text}/tcp") }
}

pub(super) async fn run(client: &mut Client, args: Import) -> anyhow::Result<ExitCode> {
    let header = ImportImageHeader {
        reference: args.image.clone(),
        cmd: command(args.cmd.as_ref())?,
        entrypoint: command(args.entrypoint.as_ref())?,
        env: args.env,
        expose: args.expose.iter().map(port).collect(),
        working_dir: args.workdir,
        user: args.user,
        labels: args
            .label
            .iter()
            .map(|label| label.split_once('=').unwrap_or((label, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    };
    let archive: Box<dyn AsyncRead + Send + Unpin> = match args.file == Path::new("-") {
        true => Box::new(tokio::io::stdin()),
        false => Box::new(
            tokio::fs::File::open(&args.file)
                .await
                .with_context(|| format!("can't read the archive {}", args.file.display()))?,
        ),
    };
    let (sender, stream) = mpsc::channel(BACKLOG);
    sender.send(ImportImageRequest { part: Some(Part::Header(header)) }).await?;
    let import =
        async { Ok(client.images.import_image(ReceiverStream::new(stream)).await?.into_inner()) };
    // An archive that can't be read to its end cancels the import: half of one is never an image.
    let ((), imported) = tokio::try_join!(send(archive, sender), import)?;
    let image = imported.image.unwrap_or_default();
    output::line(image.id)?;
    Ok(ExitCode::SUCCESS)
}

async fn send(
    mut archive: Box<dyn AsyncRead + Send + Unpin>,
    sender: mpsc::Sender<ImportImageRequest>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = archive.read(&mut buffer).await.context("can't read the archive")?;
        if length == 0 {
            return Ok(());
        }
        let data = buffer[..length].to_vec().into();
        if sender.send(ImportImageRequest { part: Some(Part::Data(data)) }).await.is_err() {
            return Ok(());
        }
    }
}
