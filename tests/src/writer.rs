//! Clients that write to a label of a node and read it, each through a manager of its own, for as
//! long as they are let; what they did is a history.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use shoal_proto::v1::control_client::ControlClient;
use shoal_proto::v1::{GetNodeRequest, UpdateNodeRequest};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::history::{INITIAL, Operation};

const LABEL: &str = "register";
/// A client that is not answered goes on with something else.
const PATIENCE: Duration = Duration::from_secs(3);

/// The clients.
pub struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    history: Arc<Mutex<Vec<Operation>>>,
    /// Microseconds since the start at which each write was acknowledged.
    pub acknowledged: Arc<Mutex<Vec<u64>>>,
    pub start: Instant,
}

impl Writers {
    /// One client for each of these agents' sockets, on that node's label.
    #[must_use]
    pub fn start(sockets: Vec<PathBuf>, node: &str) -> Self {
        let writers = Self {
            stop: Arc::default(),
            threads: Vec::new(),
            history: Arc::default(),
            acknowledged: Arc::default(),
            start: Instant::now(),
        };
        let value = Arc::new(AtomicU64::new(INITIAL));
        let threads = sockets.into_iter().map(|socket| {
            let (stop, history) = (Arc::clone(&writers.stop), Arc::clone(&writers.history));
            let (acknowledged, value) = (Arc::clone(&writers.acknowledged), Arc::clone(&value));
            let (node, start) = (node.to_owned(), writers.start);
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(work(&socket, &node, start, &stop, &value, |operation| {
                    if operation.is_write
                        && let Some(at) = operation.answered
                    {
                        acknowledged.lock().unwrap().push(at);
                    }
                    history.lock().unwrap().push(operation);
                }));
            })
        });
        let threads = threads.collect();
        Self { threads, ..writers }
    }

    /// What they did until now; they stop.
    #[must_use]
    pub fn stop(self) -> Vec<Operation> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        std::mem::take(&mut self.history.lock().unwrap())
    }

    /// Writes that have been acknowledged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }
}

/// The longest time between two acknowledged writes, in seconds.
#[must_use]
pub fn longest_gap(history: &[Operation]) -> f64 {
    let writes = history.iter().filter(|operation| operation.is_write);
    let mut times: Vec<u64> = writes.filter_map(|operation| operation.answered).collect();
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(0) as f64 / 1e6
}

/// A channel to an agent's socket.
pub async fn connect(socket: &Path) -> Option<ControlClient<Channel>> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://agent");
    endpoint.connect_with_connector(connector).await.ok().map(ControlClient::new)
}

async fn work(
    socket: &Path,
    node: &str,
    start: Instant,
    stop: &AtomicBool,
    next: &AtomicU64,
    mut done: impl FnMut(Operation),
) {
    let now = || u64::try_from(start.elapsed().as_micros()).unwrap();
    let mut client = None;
    let mut turn = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let Some(control) = &mut client else {
            client = connect(socket).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        turn += 1;
        let called = now();
        if turn.is_multiple_of(3) {
            let request = GetNodeRequest { node: node.to_owned() };
            let read = tokio::time::timeout(PATIENCE, control.get_node(request)).await;
            if let Ok(Ok(answer)) = read {
                let spec = answer.into_inner().node.and_then(|node| node.spec).unwrap_or_default();
                let label = spec.labels.get(LABEL).and_then(|text| text.parse().ok());
                let value = label.unwrap_or(INITIAL);
                done(Operation { is_write: false, value, called, answered: Some(now()) });
            } else {
                client = None;
            }
            continue;
        }
        let value = next.fetch_add(1, Ordering::Relaxed) + 1;
        let request = UpdateNodeRequest {
            node: node.to_owned(),
            add_labels: [(LABEL.to_owned(), value.to_string())].into(),
            ..UpdateNodeRequest::default()
        };
        let wrote = tokio::time::timeout(PATIENCE, control.update_node(request)).await;
        let answered = matches!(wrote, Ok(Ok(_))).then(now);
        if answered.is_none() {
            client = None;
        }
        done(Operation { is_write: true, value, called, answered });
    }
}
