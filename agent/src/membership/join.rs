//! From a host to a node of a cluster that is there: a certificate for a token, and later for the
//! old certificate.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use shoal_manager::ca::{JoinToken, NodeCertificate, NodeKey, manager_client};
use shoal_manager::keys;
use shoal_manager::raft::DataKey;
use shoal_proto::PROTOCOL;
use shoal_proto::time::timestamp;
use shoal_proto::v1::node_ca_client::NodeCaClient;
use shoal_proto::v1::{GetRootRequest, IssueCertificateRequest, NodeRole};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};

use super::NodeFolder;
use crate::config::Config;
use crate::host;
use crate::identity::Identity;

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the managers, one after the other, until one takes this host.
pub(super) async fn join(
    config: &Config,
    folder: &NodeFolder,
    addresses: &[String],
    token: &str,
    own_address: &str,
) -> anyhow::Result<Identity> {
    let token: JoinToken = token.parse()?;
    let name = config.name.clone().unwrap_or_else(host::name);
    let mut refusals = Vec::new();
    for address in addresses {
        match ask(address, &name, own_address, &token).await {
            Ok(issued) => {
                let identity = Identity {
                    node: issued.certificate.identity().node,
                    cluster: issued.certificate.identity().cluster.clone(),
                };
                issued.keep(folder, None)?;
                folder.keep_managers(addresses)?;
                // Last: a join that was cut off has not happened.
                identity.save(&config.data_dir)?;
                tracing::info!(node.id = %identity.node, cluster = identity.cluster, "joined");
                return Ok(identity);
            }
            Err(error) => refusals.push(format!("{address}: {error:#}")),
        }
    }
    bail!("can't join the cluster: {}", refusals.join("; "))
}

/// A certificate as a manager has issued it.
pub(super) struct Issued {
    pub(super) certificate: NodeCertificate,
    /// A manager's number.
    pub(super) raft_id: Option<NonZeroU64>,
}

impl Issued {
    /// Writes it, and what goes with its role: what is left of another one goes.
    /// `key` is the data key that the node has, when it is a manager of another number now.
    pub(super) fn keep(&self, folder: &NodeFolder, key: Option<&DataKey>) -> anyhow::Result<()> {
        let Some(raft_id) = self.raft_id else {
            self.certificate.store(folder.path(), None)?;
            return folder.leave_managers();
        };
        folder.become_manager(raft_id)?;
        let key = match key {
            Some(key) => key.clone(),
            None => keys::load_or_create(folder.path(), None)?,
        };
        Ok(self.certificate.store(folder.path(), Some(&key))?)
    }
}

async fn ask(
    address: &str,
    name: &str,
    own_address: &str,
    token: &JoinToken,
) -> anyhow::Result<Issued> {
    // The root is not known yet: whatever is shown is taken, and nothing is said to it.
    let stranger = connect_to_anyone(address).await?;
    let root = NodeCaClient::new(stranger).get_root(GetRootRequest {}).await.map_err(words)?;
    let root = root.into_inner().root_pem;
    token.check_root(&root)?;
    // From here on only whoever has a certificate of that root is talked to.
    let channel = connect(address, manager_client(&root)).await?;
    let issued = request(channel, &token.to_string(), name, own_address, None).await?;
    token.check_root(issued.certificate.roots_pem())?;
    Ok(issued)
}

/// `cluster` is the one that it has to be of, when that is known.
async fn request(
    channel: Channel,
    token: &str,
    name: &str,
    address: &str,
    cluster: Option<&str>,
) -> anyhow::Result<Issued> {
    let key = NodeKey::generate()?;
    let request = IssueCertificateRequest {
        token: token.to_owned(),
        csr_pem: key.request_pem().to_owned(),
        node_name: name.to_owned(),
        now: Some(timestamp(SystemTime::now())),
        protocol: PROTOCOL,
        address: address.to_owned(),
    };
    let answer = NodeCaClient::new(channel).issue_certificate(request).await.map_err(words)?;
    let answer = answer.into_inner();
    let cluster = cluster.unwrap_or(&answer.cluster_id);
    let certificate = key.certified(&answer.certificate_pem, &answer.root_pem, cluster)?;
    let raft_id = match certificate.identity().role {
        NodeRole::Worker => None,
        NodeRole::Manager => {
            Some(NonZeroU64::new(answer.raft_id).context("the manager gives no number")?)
        }
    };
    Ok(Issued { certificate, raft_id })
}

/// A new certificate for the old one.
pub(super) async fn renew(address: &str, certificate: &NodeCertificate) -> anyhow::Result<Issued> {
    let channel = connect(address, certificate.client_config()).await?;
    request(channel, "", "", "", Some(&certificate.identity().cluster)).await
}

/// Without gRPC's code before them.
fn words(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

fn endpoint(scheme: &str, address: &str) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .with_context(|| format!("{address:?} is not of the form ADDR:PORT"))?;
    Ok(endpoint.connect_timeout(PATIENCE).timeout(PATIENCE))
}

async fn connect(address: &str, tls: ClientTlsConfig) -> anyhow::Result<Channel> {
    let endpoint = endpoint("https", address)?.tls_config(tls)?;
    endpoint.connect().await.context("no manager of the cluster answers there")
}

async fn connect_to_anyone(address: &str) -> anyhow::Result<Channel> {
    let provider = CryptoProvider::get_default().context("no cryptography is set up")?.clone();
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let target = address.to_owned();
    let dial = tower::service_fn(move |_: Uri| {
        let (connector, target) = (connector.clone(), target.clone());
        async move {
            let stream = TcpStream::connect(&target).await?;
            let name =
                ServerName::try_from("manager.shoal.internal").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    endpoint("http", address)?
        .connect_with_connector(dial)
        .await
        .context("nothing answers there; is it a manager's --advertise address and port?")
}

/// Takes any certificate: for the one question whose answer the token checks.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
