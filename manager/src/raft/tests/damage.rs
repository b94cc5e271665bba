//! What a crash leaves is mended; what else is wrong with the files is said, and nothing is lost
//! silently.

use std::io::Write;
use std::path::Path;

use super::super::snapshot::SnapshotFiles;
use super::super::storage::LogStorage;
use super::*;

/// A folder with that many stacks, each written by itself.
async fn written(count: u64) -> Scratch {
    let scratch = Scratch::new();
    let raft = open(scratch.config()).await;
    for number in 0..count {
        raft.propose(create(number)).await.unwrap();
    }
    raft.shutdown().await;
    scratch
}

/// A folder whose log was cut by at least one snapshot, and its store.
async fn compacted() -> (Scratch, Store) {
    let scratch = Scratch::new();
    let raft = open(often(&scratch)).await;
    let mut seen = BTreeSet::new();
    // With the third snapshot, the log has been cut at the first.
    for number in 0..1000 {
        raft.propose(create(number)).await.unwrap();
        seen.extend(scratch.files("snapshots", "snap"));
        if seen.len() > 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(seen.len() > 2, "no third snapshot: {seen:?}");
    let store = raft.store();
    raft.shutdown().await;
    (scratch, store)
}

fn often(scratch: &Scratch) -> RaftConfig {
    RaftConfig { snapshot_every: 10, ..scratch.config() }
}

fn last_log(scratch: &Scratch) -> PathBuf {
    scratch.files("log", "raftlog").pop().unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x55;
    fs::write(path, bytes).unwrap();
}

async fn refusal(scratch: &Scratch) -> RaftError {
    start(scratch.config(), Box::new(drop)).await.err().expect("the folder is refused")
}

#[tokio::test]
async fn a_torn_end_loses_only_the_write_that_was_under_way() {
    for cut in [1, 7, 40] {
        let scratch = written(5).await;
        let log = fs::File::options().write(true).open(last_log(&scratch)).unwrap();
        log.set_len(log.metadata().unwrap().len() - cut).unwrap();

        let raft = open(scratch.config()).await;
        assert_eq!(stacks(&raft.store()), [0, 1, 2, 3], "{cut} bytes cut off");
        raft.propose(create(4)).await.unwrap();
        raft.shutdown().await;
        let raft = open(scratch.config()).await;
        assert_eq!(stacks(&raft.store()), [0, 1, 2, 3, 4], "{cut} bytes cut off");
        raft.shutdown().await;
    }
}

#[tokio::test]
async fn what_is_no_record_behind_the_last_one_is_dropped() {
    for tail in [vec![0u8; 5000], vec![0xaa; 50], vec![0; 3]] {
        let scratch = written(5).await;
        let mut log = fs::File::options().append(true).open(last_log(&scratch)).unwrap();
        log.write_all(&tail).unwrap();
        let raft = open(scratch.config()).await;
        assert_eq!(stacks(&raft.store()), [0, 1, 2, 3, 4]);
        raft.shutdown().await;
    }
}

#[tokio::test]
async fn damage_before_whole_records_is_reported() {
    let whole = written(10).await;
    let half = fs::metadata(last_log(&whole)).unwrap().len() / 2;
    for at in (0..usize::try_from(half).unwrap()).step_by(37) {
        let scratch = whole.copy();
        let log = last_log(&scratch);
        flip(&log, at);
        let damaged = fs::read(&log).unwrap();
        let error = refusal(&scratch).await;
        assert!(
            matches!(&error, RaftError::Corrupt { path, .. } if *path == log),
            "byte {at}: {error}"
        );
        assert_eq!(fs::read(&log).unwrap(), damaged, "it was written to");
    }
}

#[tokio::test]
async fn a_cut_log_and_its_snapshot_make_the_same_store() {
    let (scratch, store) = compacted().await;
    let key = scratch.config().key;
    let snapshots = SnapshotFiles::open(scratch.0.join("snapshots"), &key).unwrap();
    let newest = snapshots.newest().unwrap().unwrap().0;
    let log = LogStorage::open(
        &scratch.0.join("log"),
        snapshots,
        &key,
        Some(1),
        Some((newest, Members::default())),
    )
    .unwrap();
    assert!(log.mark().index > 0, "the log was not cut");
    assert!(log.mark().index < newest.index, "the log is cut at the newest snapshot");
    drop(log);
    let raft = open(often(&scratch)).await;
    assert_eq!(raft.store().snapshot(), store.snapshot());
    raft.shutdown().await;
}

#[tokio::test]
async fn the_snapshot_before_a_damaged_one_is_as_good() {
    let (scratch, store) = compacted().await;
    let snapshots = scratch.files("snapshots", "snap");
    flip(snapshots.last().unwrap(), 100);
    let raft = open(often(&scratch)).await;
    assert_eq!(raft.store().snapshot(), store.snapshot());
    raft.shutdown().await;
}

#[tokio::test]
async fn without_a_whole_snapshot_a_cut_log_is_refused() {
    let (scratch, _) = compacted().await;
    for snapshot in scratch.files("snapshots", "snap") {
        flip(&snapshot, 100);
    }
    assert!(matches!(refusal(&scratch).await, RaftError::Corrupt { .. }));
}

#[tokio::test]
async fn a_snapshot_without_its_log_begins_no_new_group() {
    let (scratch, _) = compacted().await;
    fs::remove_dir_all(scratch.0.join("log")).unwrap();
    assert!(matches!(refusal(&scratch).await, RaftError::Corrupt { .. }));
}

#[tokio::test]
async fn nothing_can_be_read_of_the_files_and_another_key_opens_none() {
    let (scratch, _) = compacted().await;
    let files = [scratch.files("log", "raftlog"), scratch.files("snapshots", "snap")].concat();
    for file in files {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"stack-"), "{}", file.display());
    }
    let mut config = often(&scratch);
    config.key = DataKey::generate();
    assert!(start(config, Box::new(drop)).await.is_err());
}
