//! `ctl cp`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use shoal_proto::v1::copy_from_container_response::Part as FromPart;
use shoal_proto::v1::copy_to_container_request::Part as ToPart;
use shoal_proto::v1::{CopyFromContainerRequest, CopyToContainerRequest, CopyToHeader};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::Client;

/// Bytes in one message.
const CHUNK: usize = 64 << 10;
/// Messages under way.
const BACKLOG: usize = 8;

/// Copy files between a container and this machine.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ctl cp web:/etc/app.conf .\n  ctl cp ./site/. web:/srv/site\n  tar -c x | ctl cp - web:/srv"
)]
pub(crate) struct Copy {
    /// Keep owners and groups
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link at the source's end points at
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// CONTAINER:PATH, a path here, or - for a tar archive
    source: String,
    /// CONTAINER:PATH, a path here, or - for a tar archive
    target: String,
}

enum Side<'a> {
    Container(&'a str, &'a str),
    Here(&'a str),
}

/// A path that begins with a slash or a dot is one here, whatever colons it has.
fn side(text: &str) -> Side<'_> {
    match text.split_once(':') {
        Some((container, path)) if !text.starts_with(['/', '.']) && !container.is_empty() => {
            Side::Container(container, path)
        }
        _ => Side::Here(text),
    }
}

pub(super) async fn run(client: &mut Client, args: Copy) -> anyhow::Result<ExitCode> {
    match (side(&args.source), side(&args.target)) {
        (Side::Container(container, path), Side::Here(target)) => {
            from(client, container, path, target, &args).await
        }
        (Side::Here(source), Side::Container(container, path)) => {
            to(client, source, container, path, &args).await
        }
        (Side::Here(_), Side::Here(_)) => bail!("neither side is a container: CONTAINER:PATH"),
        (Side::Container(..), Side::Container(..)) => {
            bail!("containers can't be copied between: go by way of a path here")
        }
    }
}

async fn from(
    client: &mut Client,
    container: &str,
    path: &str,
    target: &str,
    args: &Copy,
) -> anyhow::Result<ExitCode> {
    let request = CopyFromContainerRequest {
        container: container.to_owned(),
        path: path.to_owned(),
        follow_link: args.follow_link,
    };
    let mut parts = client.containers.copy_from_container(request).await?.into_inner();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(BACKLOG);
    let mut receiver = Some(receiver);
    let mut unpacking = None;
    while let Some(part) = parts.message().await? {
        match part.part {
            Some(FromPart::Info(info)) => {
                if target != "-"
                    && let Some(receiver) = receiver.take()
                {
                    let contents = path.ends_with("/.");
                    let plan =
                        Unpack::new(Path::new(target), info.is_folder, contents, args.archive)?;
                    unpacking = Some(tokio::task::spawn_blocking(move || plan.run(receiver)));
                }
            }
            Some(FromPart::Data(data)) if target == "-" => io::stdout().write_all(&data)?,
            Some(FromPart::Data(data)) => {
                // Blocks while the disk is behind. Gone: the unpacking has failed and says why.
                let sent = tokio::task::block_in_place(|| sender.send(data));
                if sent.is_err() {
                    break;
                }
            }
            None => {}
        }
    }
    drop(sender);
    if let Some(unpacking) = unpacking {
        unpacking.await??;
    }
    io::stdout().flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Unpacks an archive of one entry, or of a folder's contents.
struct Unpack {
    folder: PathBuf,
    /// The first entry's name here.
    name: Option<PathBuf>,
    keep_owners: bool,
}

impl Unpack {
    /// As cp(1): into a folder that is there, else under the target's name.
    fn new(
        target: &Path,
        is_folder: bool,
        contents: bool,
        keep_owners: bool,
    ) -> anyhow::Result<Self> {
        let wants_folder = target.as_os_str().to_string_lossy().ends_with('/');
        if target.is_dir() {
            return Ok(Self { folder: target.to_owned(), name: None, keep_owners });
        }
        if target.exists() && is_folder {
            bail!("{} is no folder", target.display());
        }
        if wants_folder && !is_folder {
            bail!("there is no folder {}", target.display());
        }
        if contents {
            fs::create_dir(target).with_context(|| format!("can't make {}", target.display()))?;
            return Ok(Self { folder: target.to_owned(), name: None, keep_owners });
        }
        let parent = match target.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => Path::new("/"),
        };
        if !parent.is_dir() {
            bail!("there is no folder {}", parent.display());
        }
        let name = target.file_name().map(PathBuf::from);
        Ok(Self { folder: parent.to_owned(), name, keep_owners })
    }

    fn run(self, chunks: std::sync::mpsc::Receiver<Vec<u8>>) -> anyhow::Result<()> {
        let mut archive = tar::Archive::new(Chunks { chunks, current: Vec::new(), at: 0 });
        archive.set_preserve_ownerships(self.keep_owners);
        archive.set_preserve_permissions(true);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let own = entry.path()?.into_owned();
            let place = self.place(&own);
            let within = place.strip_prefix(&self.folder).unwrap_or(&place).to_owned();
            // Links that the archive made must not lead out of the folder.
            let mut walked = self.folder.clone();
            for part in within.parent().into_iter().flat_map(Path::components) {
                walked.push(part);
                if fs::symlink_metadata(&walked).is_ok_and(|found| found.is_symlink()) {
                    bail!("{} is a link: nothing is copied through it", walked.display());
                }
            }
            if entry.header().entry_type().is_hard_link() {
                let target = entry.link_name()?.map(|name| name.into_owned()).unwrap_or_default();
                let target = self.place(&target);
                let _ = fs::remove_file(&place);
                fs::hard_link(&target, &place)
                    .with_context(|| format!("can't link {}", place.display()))?;
                continue;
            }
            entry.unpack(&place).with_context(|| format!("can't write {}", place.display()))?;
        }
        Ok(())
    }

    fn place(&self, path: &Path) -> PathBuf {
        let parts = path.components().filter_map(|part| match part {
            Component::Normal(part) => Some(part),
            _ => None,
        });
        match &self.name {
            None => self.folder.join(parts.collect::<PathBuf>()),
            Some(name) => self.folder.join(name).join(parts.skip(1).collect::<PathBuf>()),
        }
        .components()
        .collect()
    }
}

/// Messages, read as a file.
struct Chunks {
    chunks: std::sync::mpsc::Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(next) => (self.current, self.at) = (next, 0),
                Err(_) => return Ok(0),
            }
        }
        let count = (&self.current[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

async fn to(
    client: &mut Client,
    source: &str,
    container: &str,
    path: &str,
    args: &Copy,
) -> anyhow::Result<ExitCode> {
    let contents = source.ends_with("/.");
    let from_archive = source == "-";
    if !from_archive {
        fs::symlink_metadata(source).with_context(|| format!("can't copy {source}"))?;
    }
    let header = CopyToHeader {
        container: container.to_owned(),
        path: path.to_owned(),
        keep_owners: args.archive,
        must_be_folder: from_archive || path.ends_with('/') && !Path::new(source).is_dir(),
    };
    let (sender, parts) = mpsc::channel::<CopyToContainerRequest>(BACKLOG);
    sender.send(CopyToContainerRequest { part: Some(ToPart::Header(header)) }).await?;
    let source = PathBuf::from(source);
    let follow = args.follow_link;
    let packing = tokio::task::spawn_blocking(move || {
        let mut messages = Messages { sender, buffer: Vec::with_capacity(CHUNK) };
        let packed = pack(&source, from_archive, contents, follow, &mut messages);
        packed.and_then(|()| messages.flush().map_err(Into::into))
    });
    let copied =
        client.containers.copy_to_container(ReceiverStream::new(parts).map(|part| part)).await;
    let packed = packing.await?;
    match copied {
        Ok(_) => packed?,
        // The agent's reason is the first one.
        Err(status) => return Err(status.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn pack(
    source: &Path,
    from_archive: bool,
    contents: bool,
    follow: bool,
    output: &mut Messages,
) -> anyhow::Result<()> {
    if from_archive {
        io::copy(&mut io::stdin().lock(), output)?;
        return Ok(());
    }
    let mut builder = tar::Builder::new(output);
    builder.follow_symlinks(false);
    let real = match follow || contents {
        true => fs::canonicalize(source)?,
        false => source.to_owned(),
    };
    let found = fs::symlink_metadata(&real)?;
    // The target takes the first part's place; of contents there is none.
    let name = match real.file_name().or_else(|| source.file_name()) {
        Some(name) => PathBuf::from(name),
        None => PathBuf::from("root"),
    };
    if contents {
        for entry in fs::read_dir(&real)? {
            let entry = entry?;
            add(&mut builder, &entry.path(), Path::new(&entry.file_name()))?;
        }
    } else if found.is_dir() {
        builder.append_dir_all(&name, &real)?;
    } else if found.is_file() {
        builder.append_file(&name, &mut File::open(&real)?)?;
    } else {
        builder.append_path_with_name(&real, &name)?;
    }
    builder.finish()?;
    Ok(())
}

fn add(builder: &mut tar::Builder<&mut Messages>, path: &Path, name: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        return builder.append_dir_all(name, path);
    }
    builder.append_path_with_name(path, name)
}

/// A file, written as messages.
struct Messages {
    sender: mpsc::Sender<CopyToContainerRequest>,
    buffer: Vec<u8>,
}

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.buffer);
        let message = CopyToContainerRequest { part: Some(ToPart::Data(data)) };
        self.sender.blocking_send(message).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
