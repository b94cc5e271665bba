//! The agent's side: reads a log from any point, and follows it while it grows and rotates.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::{rotated, time};

/// Rotated files looked for at the most.
const MAX_AGE: u32 = 100;
/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(50);

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When the container wrote it.
    pub time: SystemTime,
    /// It went to standard error, not output.
    pub stderr: bool,
    /// Without the end of the line.
    pub line: Vec<u8>,
}

/// Which part of a log to read.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Lines from the end; none: all.
    pub tail: Option<usize>,
    /// Not older than this.
    pub since: Option<SystemTime>,
    /// Not newer than this.
    pub until: Option<SystemTime>,
}

#[derive(Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: String,
}

/// A place in a log.
pub struct LogReader {
    path: PathBuf,
    query: LogQuery,
    ahead: VecDeque<LogEntry>,
    current: Option<BufReader<File>>,
    /// The beginning of a line whose end is not written yet.
    unfinished: Vec<u8>,
}

impl LogReader {
    /// Opens the log at the beginning of what the query asks for. A log that does not exist yet
    /// is an empty one.
    ///
    /// # Errors
    /// A file that is there and can't be read.
    pub fn open(path: &Path, query: LogQuery) -> io::Result<Self> {
        let mut reader = Self {
            path: path.to_owned(),
            query,
            ahead: VecDeque::new(),
            current: None,
            unfinished: Vec::new(),
        };
        let oldest =
            (1..MAX_AGE).take_while(|age| rotated(path, *age).exists()).last().unwrap_or(0);
        for age in (0..=oldest).rev() {
            let file = match File::open(rotated(path, age)) {
                Ok(file) => file,
                // Rotated away between the look and the open.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            reader.current = Some(BufReader::new(file));
            while let Some(entry) = reader.read_current()? {
                reader.ahead.push_back(entry);
                if reader.query.tail.is_some_and(|tail| reader.ahead.len() > tail) {
                    reader.ahead.pop_front();
                }
            }
        }
        Ok(reader)
    }

    /// The next line that is there; none at the end of what is written so far.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn next_ready(&mut self) -> io::Result<Option<LogEntry>> {
        if let Some(entry) = self.ahead.pop_front() {
            return Ok(Some(entry));
        }
        loop {
            if let Some(entry) = self.read_current()? {
                return Ok(Some(entry));
            }
            if !self.reopen()? {
                return Ok(None);
            }
        }
    }

    /// The next line, waiting for it if need be.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn next(&mut self) -> io::Result<LogEntry> {
        loop {
            if let Some(entry) = self.next_ready()? {
                return Ok(entry);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether there is a newer file than the one read to its end.
    fn reopen(&mut self) -> io::Result<bool> {
        let newest = match fs::metadata(&self.path) {
            Ok(newest) => newest,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Some(current) = &self.current
            && current.get_ref().metadata()?.ino() == newest.ino()
        {
            return Ok(false);
        }
        // Lines written between the last read and the rotation are in the old file still.
        if self.current.is_some() && self.fill()? {
            return Ok(true);
        }
        self.current = Some(BufReader::new(File::open(&self.path)?));
        self.unfinished.clear();
        Ok(true)
    }

    fn fill(&mut self) -> io::Result<bool> {
        match &mut self.current {
            Some(current) => Ok(!current.fill_buf()?.is_empty()),
            None => Ok(false),
        }
    }

    fn read_current(&mut self) -> io::Result<Option<LogEntry>> {
        let Some(current) = &mut self.current else { return Ok(None) };
        loop {
            current.read_until(b'\n', &mut self.unfinished)?;
            if self.unfinished.last() != Some(&b'\n') {
                return Ok(None);
            }
            let line = std::mem::take(&mut self.unfinished);
            // A line that is none (a disk that broke) is passed over; the rest is worth having.
            let Some(entry) = parse(&line) else { continue };
            let wanted = self.query.since.is_none_or(|since| entry.time >= since)
                && self.query.until.is_none_or(|until| entry.time <= until);
            if wanted {
                return Ok(Some(entry));
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<LogEntry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let mut text = line.log.into_bytes();
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    Some(LogEntry { time: time::parse(&line.time)?, stderr: line.stream == "stderr", line: text })
}
