//! From a host to a node of a cluster that is there: a certificate for a token, and later for the
//! old certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use shoal_manager::ca::{JoinToken, NodeCertificate, NodeKey, manager_client};
use shoal_proto::time::timestamp;
use shoal_proto::v1::node_ca_client::NodeCaClient;
use shoal_proto::v1::{GetRootRequest, IssueCertificateRequest, IssueCertificateResponse};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};

use crate::identity::{Identity, random_bits};
use crate::session::Managers;

const PATIENCE: Duration = Duration::from_secs(10);
/// Before the next try to renew a certificate.
const RETRY: Duration = Duration::from_secs(60);

/// What a node that has joined knows of its cluster.
pub(crate) struct Membership {
    pub(crate) identity: Identity,
    pub(crate) certificate: NodeCertificate,
    /// Where managers listen.
    pub(crate) managers: Vec<String>,
}

/// The folder of what a node keeps of its membership.
fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("node")
}

fn managers_file(data_dir: &Path) -> PathBuf {
    folder(data_dir).join("managers")
}

/// What an earlier start has joined; none on a host that has not.
pub(crate) fn load(data_dir: &Path) -> anyhow::Result<Option<Membership>> {
    // Written last: a join that was cut off has not happened.
    if !Identity::exists(data_dir) {
        return Ok(None);
    }
    let file = managers_file(data_dir);
    let managers = match std::fs::read_to_string(&file) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
    };
    let identity = Identity::load(data_dir)?;
    let certificate = NodeCertificate::load(&folder(data_dir), &identity.cluster)?
        .with_context(|| format!("{} holds no certificate", folder(data_dir).display()))?;
    Ok(Some(Membership { identity, certificate, managers }))
}

/// Asks the managers, one after the other, until one takes this host.
pub(crate) async fn join(
    data_dir: &Path,
    name: &str,
    addresses: &[String],
    token: &str,
) -> anyhow::Result<Membership> {
    if Identity::exists(data_dir) {
        bail!(
            "{} belongs to a cluster of its own already; to join another, give a --data-dir that \
             is empty",
            data_dir.display()
        );
    }
    let token: JoinToken = token.parse()?;
    let mut refusals = Vec::new();
    for address in addresses {
        match ask(address, name, &token).await {
            Ok((answer, key)) => {
                let certificate =
                    key.certified(&answer.certificate_pem, &answer.root_pem, &answer.cluster_id)?;
                let identity = Identity {
                    node: answer.node_id.parse().context("the manager names no node")?,
                    cluster: answer.cluster_id,
                };
                certificate.store(&folder(data_dir))?;
                let file = managers_file(data_dir);
                std::fs::write(&file, addresses.join("\n") + "\n")
                    .with_context(|| format!("can't write {}", file.display()))?;
                identity.save(data_dir)?;
                tracing::info!(node.id = %identity.node, cluster = identity.cluster, "joined");
                let managers = addresses.to_vec();
                return Ok(Membership { identity, certificate, managers });
            }
            Err(error) => refusals.push(format!("{address}: {error:#}")),
        }
    }
    bail!("can't join the cluster: {}", refusals.join("; "))
}

async fn ask(
    address: &str,
    name: &str,
    token: &JoinToken,
) -> anyhow::Result<(IssueCertificateResponse, NodeKey)> {
    // The root is not known yet: whatever is shown is taken, and nothing is said to it.
    let stranger = connect_to_anyone(address).await?;
    let root = NodeCaClient::new(stranger).get_root(GetRootRequest {}).await.map_err(words)?;
    let root = root.into_inner().root_pem;
    token.check_root(&root)?;
    // From here on only whoever has a certificate of that root is talked to.
    let channel = connect(address, manager_client(&root)).await?;
    let key = NodeKey::generate()?;
    let request = IssueCertificateRequest {
        token: token.to_string(),
        csr_pem: key.request_pem().to_owned(),
        node_name: name.to_owned(),
        now: Some(timestamp(SystemTime::now())),
    };
    let answer = NodeCaClient::new(channel).issue_certificate(request).await.map_err(words)?;
    let answer = answer.into_inner();
    token.check_root(&answer.root_pem)?;
    Ok((answer, key))
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

/// Renews the certificate in good time, again and again; sessions that begin afterwards show the
/// new one.
pub(crate) async fn keep_certificate(
    data_dir: &Path,
    mut certificate: NodeCertificate,
    managers: &Managers,
) {
    loop {
        let jitter = random_bits().map_or(0, |bits| bits as u32);
        let wait = certificate.renew_at(jitter).duration_since(SystemTime::now());
        tokio::time::sleep(wait.unwrap_or_default()).await;
        match renew(data_dir, &certificate, managers).await {
            Ok(renewed) => {
                tracing::info!("certificate renewed");
                managers.set_tls(renewed.client_config());
                certificate = renewed;
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the certificate can't be renewed yet"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn renew(
    data_dir: &Path,
    certificate: &NodeCertificate,
    managers: &Managers,
) -> anyhow::Result<NodeCertificate> {
    let mut last = None;
    for address in managers.addresses() {
        match renew_at(address, certificate).await {
            Ok(renewed) => {
                renewed.store(&folder(data_dir))?;
                return Ok(renewed);
            }
            Err(error) => last = Some(error.context(address.clone())),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no manager is known")))
}

async fn renew_at(address: &str, certificate: &NodeCertificate) -> anyhow::Result<NodeCertificate> {
    let channel = connect(address, certificate.client_config()).await?;
    let key = NodeKey::generate()?;
    let request = IssueCertificateRequest {
        token: String::new(),
        csr_pem: key.request_pem().to_owned(),
        node_name: String::new(),
        now: Some(timestamp(SystemTime::now())),
    };
    let answer = NodeCaClient::new(channel).issue_certificate(request).await.map_err(words)?;
    let answer = answer.into_inner();
    let cluster = &certificate.identity().cluster;
    Ok(key.certified(&answer.certificate_pem, &answer.root_pem, cluster)?)
}
