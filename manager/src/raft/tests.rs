mod damage;
mod group;

use std::collections::BTreeSet;
use std::fs;

use futures_util::future::join_all;
use shoal_core::store::{Meta, Stack};
use shoal_proto::StackId;
use shoal_proto::v1::StackSpec;
use tokio::sync::broadcast::error::RecvError;

use super::waiting::Waiting;
use super::*;
use crate::random;

/// Raft's folder; it goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("shoal-raft-{:032x}", random::bits()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    /// What a crash at this moment would leave behind.
    fn copy(&self) -> Self {
        let copy = Self::new();
        for folder in ["log", "snapshots"] {
            fs::create_dir(copy.0.join(folder)).unwrap();
            for file in fs::read_dir(self.0.join(folder)).unwrap() {
                let path = file.unwrap().path();
                fs::copy(&path, copy.0.join(folder).join(path.file_name().unwrap())).unwrap();
            }
        }
        copy
    }

    fn config(&self) -> RaftConfig {
        let key = DataKey::from_bytes([7; 32]);
        RaftConfig { tick: Duration::from_millis(10), ..RaftConfig::new(self.0.clone(), key) }
    }

    /// The files of the folder with that ending, by name.
    fn files(&self, folder: &str, ending: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.0.join(folder)).unwrap();
        let paths: BTreeSet<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == ending)).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn id(number: u64) -> StackId {
    StackId::from_bits(u128::from(number))
}

fn stack(number: u64) -> Stack {
    Stack {
        id: id(number),
        meta: Meta::default(),
        spec: Arc::new(StackSpec { name: format!("stack-{number}"), ..StackSpec::default() }),
        revision: 1,
        removing: false,
    }
}

fn create(number: u64) -> Vec<Change> {
    vec![Change::Put { expected: 0, object: stack(number).into() }]
}

/// Replaces that version of the stack.
fn replace(number: u64, expected: u64) -> Vec<Change> {
    vec![Change::Put { expected, object: Stack { revision: 2, ..stack(number) }.into() }]
}

fn is_leader(leadership: Leadership) -> bool {
    matches!(leadership, Leadership::Leader { .. })
}

async fn open(config: RaftConfig) -> Raft {
    let raft = start(config, Box::new(drop)).await.unwrap();
    assert!(raft.leadership_until(is_leader).await);
    raft
}

/// The numbers of the stacks that there are.
fn stacks(store: &Store) -> Vec<u64> {
    (0..1000).filter(|number| store.stack(id(*number)).is_some()).collect()
}

/// The raft thread's work on these proposals, which are all there when it first looks.
fn in_one_batch(scratch: &Scratch, proposals: Vec<Vec<Change>>) -> Batch {
    let (orders, inbox) = channel();
    let random = Box::new(random::bits);
    let (member, published) = Member::open(scratch.config(), Box::new(drop), random).unwrap();
    let writes = published.status().log_writes;
    let answers: Vec<_> = proposals
        .into_iter()
        .map(|changes| {
            let (reply, answer) = oneshot::channel();
            orders.send(Order::Do(Command::Propose { changes, reply })).unwrap();
            answer
        })
        .collect();
    let (reply, _done) = oneshot::channel();
    orders.send(Order::Shutdown { reply }).unwrap();
    Driver::new(scratch.config().tick, member, inbox, Pulse::default()).run();
    Batch {
        results: answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect(),
        log_writes: published.status().log_writes - writes,
        store: published.store(),
    }
}

struct Batch {
    results: Vec<Result<Commit, ProposeError>>,
    log_writes: u64,
    store: Store,
}

#[tokio::test]
async fn a_restart_keeps_every_acknowledged_write() {
    let scratch = Scratch::new();
    let raft = open(scratch.config()).await;
    let proposals = (0..50).map(|number| raft.propose(create(number)));
    assert!(join_all(proposals).await.iter().all(Result::is_ok));
    let crashed = scratch.copy();
    let before = raft.store().snapshot();
    raft.shutdown().await;

    for folder in [&scratch, &crashed] {
        let raft = open(folder.config()).await;
        assert_eq!(raft.store().snapshot(), before);
        assert_eq!(raft.read_barrier().await.unwrap().snapshot(), before);
        raft.propose(create(50)).await.unwrap();
        raft.shutdown().await;
    }
}

#[tokio::test]
async fn the_folder_is_free_when_shutdown_returns() {
    let scratch = Scratch::new();
    for number in 0..20 {
        let raft = open(scratch.config()).await;
        raft.propose(create(number)).await.unwrap();
        raft.shutdown().await;
    }
}

#[test]
fn proposals_that_wait_share_one_write() {
    let scratch = Scratch::new();
    let batch = in_one_batch(&scratch, (0..100).map(create).collect());
    assert!(batch.results.iter().all(Result::is_ok));
    assert_eq!(batch.log_writes, 1);
    assert_eq!(stacks(&batch.store).len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_proposals_share_writes() {
    let scratch = Scratch::new();
    let raft = open(scratch.config()).await;
    let before = raft.status().log_writes;
    let proposals = (0..500).map(|number| raft.propose(create(number)));
    assert!(join_all(proposals).await.iter().all(Result::is_ok));
    // Takes its turn after the status of those is out.
    raft.propose(create(500)).await.unwrap();
    let writes = raft.status().log_writes - before;
    assert!(writes < 500, "{writes} writes for 500 proposals");
    raft.shutdown().await;
}

#[test]
fn a_stale_change_is_refused_to_its_proposer_alone() {
    let scratch = Scratch::new();
    let first = in_one_batch(&scratch, vec![create(1)]);
    let version = first.store.stack(id(1)).unwrap().meta.version;

    let proposals = vec![replace(1, version), replace(1, version), create(2)];
    let batch = in_one_batch(&scratch, proposals);
    assert_eq!(batch.log_writes, 1);
    let [won, lost, other] = &batch.results[..] else { panic!("three answers") };
    let newest = won.as_ref().unwrap().index;
    let lost = lost.as_ref().unwrap_err();
    assert!(
        matches!(lost, ProposeError::Conflict(Conflict::Stale { expected, found, .. })
            if *expected == version && *found == newest),
        "{lost}"
    );
    assert!(other.is_ok());
    assert_eq!(stacks(&batch.store), [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_sees_every_commit_after_its_store_once() {
    const LAST: u64 = 300;
    let scratch = Scratch::new();
    let raft = open(scratch.config()).await;
    raft.propose(create(0)).await.unwrap();
    let writer = raft.clone();
    let writer = tokio::spawn(async move {
        for number in 1..=LAST {
            writer.propose(create(number)).await.unwrap();
        }
    });
    loop {
        let (store, mut commits) = raft.commits();
        if store.stack(id(LAST)).is_some() {
            break;
        }
        let first = commits.recv().await.unwrap();
        assert_eq!(first.index, store.version() + 1);
    }
    writer.await.unwrap();
    raft.shutdown().await;
}

#[tokio::test]
async fn nothing_goes_on_after_a_shutdown() {
    let scratch = Scratch::new();
    let raft = open(scratch.config()).await;
    let (_, mut commits) = raft.commits();
    raft.propose(create(1)).await.unwrap();
    raft.shutdown().await;
    assert!(commits.recv().await.is_ok());
    assert!(matches!(commits.recv().await, Err(RecvError::Closed)));
    let (store, mut commits) = raft.commits();
    assert_eq!(stacks(&store), [1]);
    assert!(matches!(commits.recv().await, Err(RecvError::Closed)));
    assert!(matches!(raft.propose(create(2)).await, Err(ProposeError::Stopped)));
    assert!(matches!(raft.read_barrier().await, Err(ProposeError::Stopped)));
    assert!(!raft.leadership_until(is_leader).await);
    raft.shutdown().await;
}

#[test]
fn two_runs_never_number_proposals_alike() {
    let runs: BTreeSet<u64> = (0..3).map(|_| Waiting::new(random::bits()).id() >> 32).collect();
    assert_eq!(runs.len(), 3);
}
