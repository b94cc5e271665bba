use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use shoal_proto::v1::control_client::ControlClient;
use shoal_proto::v1::{ClusterState, GetInfoRequest, NodeRole};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::{Pem, parse_x509_pem};

use super::*;
use crate::random;

const CLUSTER: &str = "one";
const DAY: Duration = Duration::from_secs(86_400);
const NODE: NodeId = NodeId::from_bits(7);

/// A manager's data folder; it goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("shoal-ca-{:032x}", random::bits()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn ca(&self) -> PathBuf {
        self.0.join("ca")
    }

    fn open(&self) -> Result<ClusterCa, CaError> {
        ClusterCa::open_or_create(&self.ca(), CLUSTER, SystemTime::now())
    }

    fn refusal(&self) -> CaError {
        self.open().err().expect("the folder is refused")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn manager(ca: &ClusterCa) -> NodeCertificate {
    ca.issue(NODE, NodeRole::Manager, DAY, SystemTime::now()).unwrap()
}

fn expired(ca: &ClusterCa) -> NodeCertificate {
    ca.issue(NODE, NodeRole::Manager, DAY, SystemTime::now() - 10 * DAY).unwrap()
}

fn der(pem: &str) -> Pem {
    parse_x509_pem(pem.as_bytes()).unwrap().1
}

/// Whether a request gets through: both ends accept each other.
async fn reaches(server: &NodeCertificate, client: &NodeCertificate) -> bool {
    // Fails when another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server.server_config().unwrap()));
    let connections = TcpListenerStream::new(listener).then(move |connection| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(connection?).await }
    });
    let serving = Server::builder().add_routes(Routes::default()).serve_with_incoming(connections);
    let serving = tokio::spawn(serving);
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .tls_config(client.client_config())
        .unwrap();
    let request = async {
        let channel = endpoint.connect().await.ok()?;
        ControlClient::new(channel).get_info(GetInfoRequest::default()).await.err()
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), request).await;
    serving.abort();
    // The server has no service: that it says so is the proof.
    answer
        .expect("an answer or a refusal")
        .is_some_and(|status| status.code() == Code::Unimplemented)
}

#[tokio::test]
async fn nodes_of_one_root_accept_each_other() {
    let scratch = Scratch::new();
    let ca = scratch.open().unwrap();
    let worker = ca.issue(NODE, NodeRole::Worker, DAY, SystemTime::now()).unwrap();
    assert!(reaches(&manager(&ca), &manager(&ca)).await);
    assert!(reaches(&manager(&ca), &worker).await);
    assert!(!reaches(&worker, &manager(&ca)).await, "a worker posed as a manager");
}

#[tokio::test]
async fn another_root_is_refused_by_both_ends() {
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    let (ours, theirs) = (ours.open().unwrap(), theirs.open().unwrap());
    let mut stranger = manager(&theirs);
    assert!(!reaches(&manager(&ours), &stranger).await);
    // Even when it trusts our root: the server does not trust its own.
    stranger.roots_pem = manager(&ours).roots_pem;
    assert!(!reaches(&manager(&ours), &stranger).await);
    assert!(!reaches(&stranger, &manager(&ours)).await);
}

#[tokio::test]
async fn expired_certificates_are_refused_by_both_ends() {
    let scratch = Scratch::new();
    let ca = scratch.open().unwrap();
    assert!(!reaches(&manager(&ca), &expired(&ca)).await);
    assert!(!reaches(&expired(&ca), &manager(&ca)).await);
}

#[test]
fn the_root_stays_the_same() {
    let scratch = Scratch::new();
    let first = scratch.open().unwrap().roots_pem;
    assert_eq!(scratch.open().unwrap().roots_pem, first);
}

#[test]
fn half_a_root_is_an_error_and_not_a_new_root() {
    for (gone, left) in [(ROOT_KEY, ROOT_CERT), (ROOT_CERT, ROOT_KEY)] {
        let scratch = Scratch::new();
        scratch.open().unwrap();
        let kept = fs::read(scratch.ca().join(left)).unwrap();
        fs::remove_file(scratch.ca().join(gone)).unwrap();
        let error = scratch.refusal();
        assert!(
            matches!(&error, CaError::Missing { missing, .. } if missing.ends_with(gone)),
            "{error}"
        );
        assert_eq!(fs::read(scratch.ca().join(left)).unwrap(), kept);
        assert!(!scratch.ca().join(gone).exists());
    }
}

#[test]
fn a_cluster_with_data_gets_no_new_root() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.0.join("raft/log")).unwrap();
    let error = scratch.refusal();
    assert!(matches!(&error, CaError::Missing { there, .. } if there.ends_with("raft")), "{error}");
    assert!(!scratch.ca().exists());

    let scratch = Scratch::new();
    manager(&scratch.open().unwrap()).store(&scratch.ca(), None).unwrap();
    fs::remove_file(scratch.ca().join(ROOT_KEY)).unwrap();
    fs::remove_file(scratch.ca().join(ROOT_CERT)).unwrap();
    assert!(matches!(scratch.refusal(), CaError::Missing { .. }));
}

#[test]
fn a_root_interrupted_while_it_was_made_is_made_again() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.0.join("ca.partial")).unwrap();
    fs::write(scratch.0.join("ca.partial").join(ROOT_CERT), "half").unwrap();
    scratch.open().unwrap();
    assert!(!scratch.0.join("ca.partial").exists());
}

#[test]
fn a_key_of_another_root_is_an_error() {
    let (ours, theirs) = (Scratch::new(), Scratch::new());
    ours.open().unwrap();
    theirs.open().unwrap();
    fs::copy(theirs.ca().join(ROOT_KEY), ours.ca().join(ROOT_KEY)).unwrap();
    assert!(matches!(ours.refusal(), CaError::KeyMismatch { .. }));
}

#[test]
fn a_root_of_another_cluster_is_an_error() {
    let scratch = Scratch::new();
    scratch.open().unwrap();
    let error = ClusterCa::open_or_create(&scratch.ca(), "two", SystemTime::now()).err().unwrap();
    assert!(
        matches!(&error, CaError::OtherCluster { found, wanted, .. }
            if found == CLUSTER && wanted == "two"),
        "{error}"
    );
}

#[test]
fn files_are_for_their_owner_alone() {
    let scratch = Scratch::new();
    manager(&scratch.open().unwrap()).store(&scratch.ca(), None).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.ca()), 0o700);
    for file in [ROOT_KEY, ROOT_CERT, "node.pem"] {
        assert_eq!(mode(&scratch.ca().join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_stored_certificate_serves_like_the_issued_one() {
    let scratch = Scratch::new();
    let ca = scratch.open().unwrap();
    assert!(NodeCertificate::load(&scratch.ca(), CLUSTER, None).unwrap().is_none());
    let issued = manager(&ca);
    expired(&ca).store(&scratch.ca(), None).unwrap();
    issued.store(&scratch.ca(), None).unwrap();
    let loaded = NodeCertificate::load(&scratch.ca(), CLUSTER, None).unwrap().unwrap();
    assert_eq!(loaded.identity(), issued.identity());
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds(loaded.issued_at), seconds(issued.issued_at));
    assert_eq!(seconds(loaded.expires_at()), seconds(issued.expires_at()));
    assert!(reaches(&loaded, &issued).await);
    assert!(reaches(&issued, &loaded).await);
}

#[test]
fn a_stored_certificate_must_fit_its_key_and_its_cluster() {
    let scratch = Scratch::new();
    let ca = scratch.open().unwrap();
    let mut certificate = manager(&ca);
    certificate.store(&scratch.ca(), None).unwrap();
    let load = |cluster| NodeCertificate::load(&scratch.ca(), cluster, None).err().unwrap();
    assert!(matches!(load("two"), CaError::OtherCluster { .. }));

    certificate.key_pem = manager(&ca).key_pem;
    certificate.store(&scratch.ca(), None).unwrap();
    assert!(matches!(load(CLUSTER), CaError::KeyMismatch { .. }));

    fs::write(scratch.ca().join("node.pem"), "").unwrap();
    assert!(matches!(load(CLUSTER), CaError::Damaged { .. }));
}

#[test]
fn a_certificate_is_renewed_after_half_to_four_fifths_of_its_life() {
    let scratch = Scratch::new();
    let now = SystemTime::now();
    let certificate = scratch.open().unwrap().issue(NODE, NodeRole::Worker, 10 * DAY, now).unwrap();
    let after = |jitter| certificate.renew_at(jitter).duration_since(now).unwrap().as_secs_f64();
    let days = |count: f64| count * DAY.as_secs_f64();
    assert!((after(0) - days(5.0)).abs() < 1.0);
    assert!((after(u32::MAX) - days(8.0)).abs() < 1.0);
    assert!(after(0) < after(1 << 30) && after(1 << 30) < after(1 << 31));
}

#[test]
fn a_certificate_names_its_node_in_subject_and_dns_names() {
    let scratch = Scratch::new();
    let issued = manager(&scratch.open().unwrap());
    let block = der(&issued.cert_pem);
    assert_eq!(peer_identity(&block.contents).unwrap(), *issued.identity());
    let certificate = block.parse_x509().unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names: Vec<&str> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    assert_eq!(names, [MANAGER_NAME, node_name(NODE).as_str()]);
}

/// The cluster's object in each step of a rotation from one root to another.
fn rotation() -> [ClusterState; 3] {
    let root = || Some(ClusterCa::make_root(CLUSTER, SystemTime::now()).unwrap());
    let before = ClusterState { id: CLUSTER.to_owned(), root: root(), ..Default::default() };
    let trusted = ClusterState { next_root: root(), ..before.clone() };
    let issues = ClusterState { next_root_issues: true, ..trusted.clone() };
    let after = ClusterState { root: issues.next_root.clone(), ..before.clone() };
    let [trusted, issues] = [trusted, issues];
    assert_ne!(before.root, after.root);
    [trusted, issues, after]
}

#[tokio::test]
async fn while_the_root_is_replaced_nodes_of_neighbouring_steps_accept_each_other() {
    let certificates = rotation().map(|state| manager(&ClusterCa::of(&state).unwrap()));
    let [trusted, issues, after] = &certificates;
    for (a, b) in [(trusted, issues), (issues, after), (trusted, trusted), (after, after)] {
        assert!(reaches(a, b).await && reaches(b, a).await);
    }
    assert!(!reaches(after, trusted).await, "the old root is worth nothing at the end");
    let token = JoinToken::new(ClusterCa::of(&rotation()[0]).unwrap().root_pem(), "abc").unwrap();
    assert!(token.check_root(&after.roots_pem).is_err());
}

#[test]
fn a_root_of_an_operators_own_has_to_be_an_authority_of_its_key() {
    let now = SystemTime::now();
    let good = ClusterCa::make_root(CLUSTER, now).unwrap();
    ClusterCa::check_root(&good, now).unwrap();
    let other = ClusterCa::make_root(CLUSTER, now).unwrap();
    let mixed = RootCa { cert_pem: good.cert_pem.clone(), key_pem: other.key_pem };
    assert!(matches!(ClusterCa::check_root(&mixed, now), Err(CaError::Root(_))));
    let scratch = Scratch::new();
    let leaf = manager(&scratch.open().unwrap());
    let leaf = RootCa { cert_pem: leaf.cert_pem, key_pem: leaf.key_pem };
    assert!(matches!(ClusterCa::check_root(&leaf, now), Err(CaError::Root(_))));
    let late = now + 2 * ROOT_VALIDITY;
    assert!(matches!(ClusterCa::check_root(&good, late), Err(CaError::Root(_))));
}
