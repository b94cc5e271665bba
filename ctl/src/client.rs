//! The connection to an agent's socket.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use shoal_proto::v1::containers_client::ContainersClient;
use shoal_proto::v1::control_client::ControlClient;
use shoal_proto::v1::images_client::ImagesClient;
use shoal_proto::v1::lock_client::LockClient;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

/// An agent's services.
pub(crate) struct Client {
    pub(crate) control: ControlClient<InterceptedService<Channel, Freshness>>,
    pub(crate) lock: LockClient<Channel>,
    pub(crate) images: ImagesClient<Channel>,
    pub(crate) containers: ContainersClient<Channel>,
}

/// How fresh answers have to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Freshness {
    /// What the manager knows will do, even when it is cut off from the others.
    pub(crate) stale: bool,
}

impl Interceptor for Freshness {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if self.stale {
            request.metadata_mut().insert("shoal-read", MetadataValue::from_static("stale"));
        }
        Ok(request)
    }
}

/// Messages may be as large as the largest listing of a large cluster.
const MAX_MESSAGE: usize = 256 << 20;

pub(crate) async fn connect(host: &str, freshness: Freshness) -> anyhow::Result<Client> {
    let Some(path) = host.strip_prefix("unix://") else {
        bail!("the host {host:?} is not a socket; write it as unix:///run/shoal/shoal.sock");
    };
    let path = PathBuf::from(path);
    // Once by hand, for a message that says what to do.
    match UnixStream::connect(&path).await {
        Ok(_) => {}
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => bail!(
                "no agent answers at {host}; is it running? start it with \"agent\" as root, or \
                 \"systemctl start shoal\""
            ),
            ErrorKind::PermissionDenied => bail!(
                "you may not use {host}; be root, or a member of the socket's group \
                 (agent --group)"
            ),
            _ => return Err(error).with_context(|| format!("can't connect to {host}")),
        },
    }
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // The address means nothing here; the connector knows the way.
    let channel = Endpoint::from_static("http://agent").connect_with_connector(connector).await?;
    Ok(Client {
        control: ControlClient::with_interceptor(channel.clone(), freshness)
            .max_decoding_message_size(MAX_MESSAGE),
        lock: LockClient::new(channel.clone()),
        images: ImagesClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
        containers: ContainersClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
    })
}
