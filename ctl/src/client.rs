//! The connection to an agent's socket.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use shoal_proto::v1::containers_client::ContainersClient;
use shoal_proto::v1::control_client::ControlClient;
use shoal_proto::v1::images_client::ImagesClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// An agent's services.
pub(crate) struct Client {
    pub(crate) control: ControlClient<Channel>,
    pub(crate) images: ImagesClient<Channel>,
    pub(crate) containers: ContainersClient<Channel>,
}

/// Messages may be as large as the largest listing of a large cluster.
const MAX_MESSAGE: usize = 256 << 20;

pub(crate) async fn connect(host: &str) -> anyhow::Result<Client> {
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
        control: ControlClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
        images: ImagesClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
        containers: ContainersClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
    })
}
