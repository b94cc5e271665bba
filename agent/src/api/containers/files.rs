//! Files in and out of containers.

use bytes::Bytes;
use shoal_proto::v1::copy_from_container_response::Part as FromPart;
use shoal_proto::v1::copy_to_container_request::Part as ToPart;
use shoal_proto::v1::{
    CopyFromContainerRequest, CopyFromContainerResponse, CopyToContainerRequest, PathInfo, TarChunk,
};
use shoal_runtime::{Archive, Rootfs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use super::{ContainersApi, Events, runtime_error};
use crate::node::Node;

const CHUNK: usize = 64 << 10;
/// A tar archive's header.
const BLOCK: usize = 512;

async fn rootfs(node: &Node, id: &str) -> Result<Rootfs, Status> {
    let snapshot = node.images.snapshot(id).await;
    let snapshot = snapshot.map_err(|error| Status::unknown(error.to_string()))?;
    let (snapshot, _) =
        snapshot.ok_or_else(|| Status::failed_precondition("the container's files are gone"))?;
    Ok(Rootfs::Overlay { lower: snapshot.lower, upper: snapshot.upper, work: snapshot.work })
}

async fn spawn(node: &Node, id: &str, archive: &Archive) -> Result<Child, Status> {
    let rootfs = rootfs(node, id).await?;
    node.runtime.archive(id, rootfs, archive).map_err(|error| runtime_error(&error))
}

pub(super) async fn diff(node: &Node, id: &str) -> Result<Vec<String>, Status> {
    let rootfs = rootfs(node, id).await?;
    let found = tokio::task::spawn_blocking(move || shoal_runtime::diff(&rootfs)).await;
    let found = found.map_err(|error| Status::internal(error.to_string()))?;
    let found = found.map_err(|error| Status::unknown(error.to_string()))?;
    Ok(found.into_iter().map(|(letter, path)| format!("{letter} {}", path.display())).collect())
}

/// What the process says on standard error, once it has ended.
async fn outcome(mut child: Child) -> Result<(), Status> {
    let mut message = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What can be read of the message is better than none.
        let _ = stderr.read_to_string(&mut message).await;
    }
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(_) if message.starts_with("there is no ") => Err(Status::not_found(message)),
        Ok(status) if message.is_empty() => Err(Status::unknown(status.to_string())),
        Ok(_) => Err(Status::unknown(message)),
        Err(error) => Err(Status::unknown(error.to_string())),
    }
}

pub(super) async fn export(node: &Node, id: &str) -> Result<Events<TarChunk>, Status> {
    let mut child = spawn(node, id, &Archive::Export).await?;
    drop(child.stdin.take());
    let stdout = child.stdout.take();
    Ok(Box::pin(async_stream::stream! {
        if let Some(mut stdout) = stdout {
            let mut buffer = vec![0; CHUNK];
            while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
                yield Ok(TarChunk { data: buffer[..count].to_vec() });
            }
        }
        if let Err(status) = outcome(child).await {
            yield Err(status);
        }
    }))
}

/// Answers once the first entry is there, so that a path that is missing is an error of the call.
pub(super) async fn copy_from(
    node: &Node,
    id: &str,
    request: &CopyFromContainerRequest,
) -> Result<Events<CopyFromContainerResponse>, Status> {
    let archive = Archive::Pack { path: request.path.clone().into(), follow: request.follow_link };
    let mut child = spawn(node, id, &archive).await?;
    drop(child.stdin.take());
    let Some(mut stdout) = child.stdout.take() else {
        return Err(Status::internal("no pipe from the process"));
    };
    let mut first = vec![0; BLOCK];
    if stdout.read_exact(&mut first).await.is_err() {
        outcome(child).await?;
        return Err(Status::unknown("the archive is empty"));
    }
    let info = info(&first, &request.path);
    let wrap = |part| Ok(CopyFromContainerResponse { part: Some(part) });
    Ok(Box::pin(async_stream::stream! {
        yield wrap(FromPart::Info(info));
        yield wrap(FromPart::Data(first));
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
            yield wrap(FromPart::Data(buffer[..count].to_vec()));
        }
        if let Err(status) = outcome(child).await {
            yield Err(status);
        }
    }))
}

/// From the first header of an archive (tar(5): the size is octal at 124, the type at 156).
fn info(header: &[u8], path: &str) -> PathInfo {
    let field = |from: usize, length: usize| {
        String::from_utf8_lossy(&header[from..from + length]).trim_matches(['\0', ' ']).to_owned()
    };
    let contents = path.ends_with("/.");
    PathInfo {
        name: if contents {
            ".".to_owned()
        } else {
            field(0, 100).trim_end_matches('/').to_owned()
        },
        is_folder: contents || header[156] == b'5',
        size: u64::from_str_radix(&field(124, 12), 8).unwrap_or(0),
    }
}

pub(super) async fn copy_to(
    api: &ContainersApi,
    mut parts: Streaming<CopyToContainerRequest>,
) -> Result<String, Status> {
    let first = parts.next().await.transpose()?.and_then(|first| first.part);
    let Some(ToPart::Header(header)) = first else {
        return Err(Status::invalid_argument("a copy begins with its header"));
    };
    let target = api.target(&header.container)?;
    let archive = Archive::Unpack {
        path: header.path.into(),
        keep_owners: header.keep_owners,
        must_be_folder: header.must_be_folder,
    };
    let mut child = spawn(api.node(), target.id(), &archive).await?;
    drop(child.stdout.take());
    if let Some(mut stdin) = child.stdin.take() {
        while let Some(part) = parts.next().await.transpose()? {
            if let Some(ToPart::Data(data)) = part.part
                && stdin.write_all(&Bytes::from(data)).await.is_err()
            {
                // It has ended, and says why.
                break;
            }
        }
    }
    outcome(child).await?;
    Ok(target.id().to_owned())
}
