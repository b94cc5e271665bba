//! Small writes committed each second by a group of one, with 1 and 64 clients, beside what the disk
//! itself does: writes of the same size, each with its sync, one after the other. The three take
//! turns; medians are printed. Run by `make bench`; `SHOAL_BENCH_DIR` is the disk to measure.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // a bench

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shoal_core::store::{Change, Meta, Stack};
use shoal_manager::raft::{Begin, DataKey, Raft, RaftConfig, start};
use shoal_proto::StackId;
use shoal_proto::v1::StackSpec;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
/// About what an entry of these writes takes on disk.
const RECORD: usize = 256;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let parent = std::env::var_os("SHOAL_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = parent.join(format!("shoal-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let config = RaftConfig {
        begin: Begin::Found,
        ..RaftConfig::new(dir.join("raft"), DataKey::generate())
    };
    let raft = start(config, Box::new(drop)).await.unwrap();
    raft.elected().await;
    let (mut disk, mut one, mut many, mut batches) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        disk.push(syncs(&dir));
        one.push(commits(&raft, 1).await.0);
        let (rate, batch) = commits(&raft, 64).await;
        many.push(rate);
        batches.push(batch);
    }
    let (disk, one, many) = (median(disk), median(one), median(many));
    println!("writes of {RECORD} bytes with their sync, one after the other: {disk:.0}/s");
    println!("commits, 1 client: {one:.0}/s, {:.2} x of that", one / disk);
    println!("commits, 64 clients: {many:.0}/s, {:.2} x of that", many / disk);
    println!("changes to a sync with 64 clients: {:.1}", median(batches));
    raft.shutdown().await;
    std::fs::remove_dir_all(&dir).unwrap();
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn syncs(dir: &Path) -> f64 {
    let mut file = File::create(dir.join("syncs")).unwrap();
    // As the log has it: the file has its size before it is written to.
    file.write_all(&vec![0; 8 << 20]).unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < ROUND {
        file.write_all(&[1; RECORD]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// Commits a second, and changes in one batch.
async fn commits(raft: &Raft, clients: u64) -> (f64, f64) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let stop = Arc::new(AtomicBool::new(false));
    let before = raft.status().log_writes;
    let begin = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let (raft, stop) = (raft.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let id = StackId::from_bits(u128::from(number));
                let spec = StackSpec { name: format!("stack-{number}"), ..StackSpec::default() };
                let spec = Arc::new(spec);
                let (mut expected, mut count) = (0, 0u64);
                while !stop.load(Ordering::Relaxed) {
                    let (meta, spec) = (Meta::default(), Arc::clone(&spec));
                    let revision = count + 1;
                    let object = Stack { id, meta, spec, revision, removing: false }.into();
                    let commit = raft.propose(vec![Change::Put { expected, object }]).await;
                    expected = commit.unwrap().index;
                    count += 1;
                }
                count
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    stop.store(true, Ordering::Relaxed);
    let mut count = 0;
    for client in clients {
        count += client.await.unwrap();
    }
    let writes = raft.status().log_writes - before;
    (count as f64 / begin.elapsed().as_secs_f64(), count as f64 / writes as f64)
}
