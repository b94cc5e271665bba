//! Figures, their medians, and the table of them.

use std::time::{Duration, Instant};

pub fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// Polls closely until it holds; panics after two minutes.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Row {
    name: String,
    own: Vec<f64>,
    peer: Option<Vec<f64>>,
    target: String,
}

pub struct Report {
    pub runs: usize,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(runs: usize) -> Self {
        Self { runs, rows: Vec::new() }
    }

    pub fn add(&mut self, name: &str, own: Vec<f64>, peer: Option<Vec<f64>>, target: &str) {
        eprintln!("{name}: {own:.3?}, docker: {peer:.3?}");
        self.rows.push(Row { name: name.to_owned(), own, peer, target: target.to_owned() });
    }

    pub fn print(&self) {
        println!("\n| figure | shoal | docker | ratio | target |\n|---|---|---|---|---|");
        for row in &self.rows {
            let own = median(&row.own);
            let peer = row.peer.as_deref().map(median);
            let ratio = peer.map_or(String::new(), |peer| format!("{:.3}", own / peer));
            let peer = peer.map_or(String::new(), figure);
            println!("| {} | {} | {peer} | {ratio} | {} |", row.name, figure(own), row.target);
        }
    }
}

fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Megabytes resident, of these processes together.
pub fn rss_megabytes(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| kilobytes(&format!("/proc/{pid}/status"), &["VmRSS:"])).sum::<f64>()
        / 1024.0
}

/// Kilobytes that a process shares with none, on average of these.
pub fn private_kilobytes(pids: &[u32]) -> f64 {
    mean_kilobytes(pids, &["Private_Clean:", "Private_Dirty:"])
}

/// Its own memory, and its part of what it shares.
pub fn proportional_kilobytes(pids: &[u32]) -> f64 {
    mean_kilobytes(pids, &["Pss:"])
}

fn mean_kilobytes(pids: &[u32], names: &[&str]) -> f64 {
    let of = |pid: &u32| kilobytes(&format!("/proc/{pid}/smaps_rollup"), names);
    pids.iter().map(of).sum::<f64>() / pids.len().max(1) as f64
}

fn kilobytes(file: &str, names: &[&str]) -> f64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .sum()
}

/// Processes whose command line holds all of these words.
pub fn processes(words: &[&str]) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let found = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command);
        words.iter().all(|word| command.contains(word)).then_some(pid)
    });
    found.collect()
}
