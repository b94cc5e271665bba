//! The node's images.

use std::io;
use std::pin::Pin;
use std::str::FromStr;

use shoal_image::{
    ImageError, ImageStore, ImageSummary, ImportOptions, LayerState, Platform, PullEvent, Reference,
};
use shoal_proto::time::timestamp;
use shoal_proto::v1;
use shoal_proto::v1::images_server::Images;
use shoal_proto::v1::pull_image_progress::Progress;
use shoal_proto::v1::{PullImageProgress, import_image_request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::io::StreamReader;
use tonic::{Request, Response, Status, Streaming};

/// Progress messages that wait for the client; further ones of the same kind are dropped.
const BACKLOG: usize = 64;

/// The node's images, served.
pub(crate) struct ImagesApi {
    images: ImageStore,
}

impl ImagesApi {
    pub(crate) fn new(images: ImageStore) -> Self {
        Self { images }
    }
}

fn refused(error: &ImageError) -> Status {
    let message = error.to_string();
    match error {
        ImageError::NotHere(_) => Status::not_found(message),
        ImageError::InUse { .. } => Status::failed_precondition(message),
        _ => Status::unknown(message),
    }
}

fn platform(platform: Option<v1::Platform>) -> Platform {
    match platform {
        Some(wanted) if !wanted.architecture.is_empty() => {
            Platform::new(&wanted.os, &wanted.architecture, None)
        }
        _ => Platform::host(),
    }
}

fn wire(image: ImageSummary) -> v1::ImageSummary {
    v1::ImageSummary {
        id: image.id.to_string(),
        tags: image.tags,
        digests: image.digests,
        created: image.created.map(timestamp),
        size: image.size,
        platform: Some(v1::Platform {
            architecture: image.platform.architecture,
            os: image.platform.os,
        }),
    }
}

fn summary(image: &shoal_image::Image) -> v1::ImageSummary {
    v1::ImageSummary {
        id: image.id.to_string(),
        tags: image.tags.clone(),
        digests: image.digests.clone(),
        created: None,
        size: image.size,
        platform: Some(v1::Platform {
            architecture: image.platform.architecture.clone(),
            os: image.platform.os.clone(),
        }),
    }
}

fn progress(event: PullEvent) -> PullImageProgress {
    let progress = match event {
        PullEvent::Resolved(digest) => Progress::ResolvedDigest(digest.to_string()),
        PullEvent::Layer(layer) => Progress::Layer(v1::LayerProgress {
            digest: layer.digest.to_string(),
            state: match layer.state {
                LayerState::Waiting => "waiting",
                LayerState::Downloading => "downloading",
                LayerState::Exists => "exists",
                LayerState::Done => "done",
            }
            .to_owned(),
            current_bytes: layer.current,
            total_bytes: layer.total,
        }),
    };
    PullImageProgress { progress: Some(progress) }
}

#[tonic::async_trait]
impl Images for ImagesApi {
    type PullImageStream = Pin<Box<dyn Stream<Item = Result<PullImageProgress, Status>> + Send>>;

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        let request = request.into_inner();
        let reference = Reference::from_str(&request.reference)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let platform = platform(request.platform);
        let images = self.images.clone();
        let (sender, stream) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            let tell = sender.clone();
            let pull = images.pull(&reference, &platform, |event| {
                // A client that reads slowly sees fewer steps.
                let _ = tell.try_send(Ok(progress(event)));
            });
            let result = tokio::select! {
                result = pull => result,
                // The client went away: so does the work, unless others wait for it too.
                () = sender.closed() => return,
            };
            let last = match result {
                Ok(image) => {
                    Ok(PullImageProgress { progress: Some(Progress::Done(summary(&image))) })
                }
                Err(error) => Err(refused(&error)),
            };
            // Gone meanwhile: nobody to tell.
            let _ = sender.send(last).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn import_image(
        &self,
        request: Request<Streaming<v1::ImportImageRequest>>,
    ) -> Result<Response<v1::ImportImageResponse>, Status> {
        use import_image_request::Part;
        let mut parts = request.into_inner();
        let first = parts.next().await.transpose()?.and_then(|first| first.part);
        let Some(Part::Header(header)) = first else {
            return Err(Status::invalid_argument("an import begins with its header"));
        };
        let reference = Reference::from_str(&header.reference)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut options = ImportOptions::new(reference);
        options.cmd = header.cmd;
        options.entrypoint = header.entrypoint;
        options.env = header.env;
        options.expose = header.expose;
        options.working_dir = Some(header.working_dir).filter(|dir| !dir.is_empty());
        options.user = Some(header.user).filter(|user| !user.is_empty());
        options.labels = header.labels.into_iter().collect();
        let bytes = parts.map(|part| match part.map(|part| part.part) {
            Ok(Some(Part::Data(bytes))) => Ok(bytes),
            Ok(_) => Err(io::Error::from(io::ErrorKind::InvalidData)),
            Err(status) => Err(io::Error::other(status.message().to_owned())),
        });
        let image = self
            .images
            .import(StreamReader::new(bytes), options)
            .await
            .map_err(|error| refused(&error))?;
        Ok(Response::new(v1::ImportImageResponse { image: Some(summary(&image)) }))
    }

    async fn list_images(
        &self,
        _request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let images = self.images.list().await.map_err(|error| refused(&error))?;
        let images = images.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let v1::RemoveImageRequest { image, force } = request.into_inner();
        let removed = self.images.remove(&image, force).await.map_err(|error| refused(&error))?;
        Ok(Response::new(v1::RemoveImageResponse {
            untagged: removed.untagged,
            deleted: removed.deleted.iter().map(ToString::to_string).collect(),
        }))
    }
}
