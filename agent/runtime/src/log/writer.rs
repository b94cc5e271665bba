//! The shim's side: cuts output into lines and appends them, never for long and never fatally.
//! What a full disk does not take is dropped and counted; the count is written once there is room.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{rotated, time};

/// A line longer than this is split, as Docker does.
const MAX_LINE: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout = 0,
    Stderr = 1,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

pub(crate) struct Writer {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_files: u32,
    /// Lines without their end yet.
    partial: [Vec<u8>; 2],
    entry: Vec<u8>,
    dropped: u64,
}

impl Writer {
    pub(crate) fn open(path: &Path, max_size: u64, max_files: u32) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            size,
            max_size,
            max_files: max_files.max(1),
            partial: [Vec::new(), Vec::new()],
            entry: Vec::new(),
            dropped: 0,
        })
    }

    pub(crate) fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        let now = time::format(SystemTime::now());
        while !bytes.is_empty() {
            let room = MAX_LINE - self.partial[stream as usize].len();
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let taken = end.map_or(bytes.len().min(room), |end| end + 1);
            let (piece, rest) = bytes.split_at(taken);
            bytes = rest;
            let full = end.is_some() || piece.len() == room;
            if !full {
                self.partial[stream as usize].extend_from_slice(piece);
                break;
            }
            let mut line = std::mem::take(&mut self.partial[stream as usize]);
            line.extend_from_slice(piece);
            self.append(stream, &line, &now);
            line.clear();
            self.partial[stream as usize] = line;
        }
    }

    /// Writes what has no end of line, because nothing more will come.
    pub(crate) fn flush_partial(&mut self, stream: Stream) {
        let line = std::mem::take(&mut self.partial[stream as usize]);
        if !line.is_empty() {
            self.append(stream, &line, &time::format(SystemTime::now()));
        }
    }

    fn append(&mut self, stream: Stream, line: &[u8], now: &str) {
        if self.dropped > 0 {
            let note = format!("{} log lines were lost: no space on the disk\n", self.dropped);
            if !self.put(Stream::Stderr, note.as_bytes(), now) {
                self.dropped += 1;
                return;
            }
            self.dropped = 0;
        }
        if !self.put(stream, line, now) {
            self.dropped += 1;
        }
    }

    /// Whether the entry is in the file, whole.
    fn put(&mut self, stream: Stream, line: &[u8], now: &str) -> bool {
        self.entry.clear();
        self.entry.extend_from_slice(b"{\"log\":\"");
        escape(line, &mut self.entry);
        self.entry.extend_from_slice(b"\",\"stream\":\"");
        self.entry.extend_from_slice(stream.name().as_bytes());
        self.entry.extend_from_slice(b"\",\"time\":\"");
        self.entry.extend_from_slice(now.as_bytes());
        self.entry.extend_from_slice(b"\"}\n");
        if self.size > 0 && self.size + self.entry.len() as u64 > self.max_size {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = append(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return false };
        match file.write_all(&self.entry) {
            Ok(()) => {
                self.size += self.entry.len() as u64;
                true
            }
            Err(_) => {
                // Takes half an entry back, so that the next begins on a line of its own.
                let _ = file.set_len(self.size);
                false
            }
        }
    }

    fn rotate(&mut self) {
        if self.max_files == 1 {
            if let Some(file) = &self.file {
                // What can't be emptied goes on growing; better than losing the container.
                let _ = file.set_len(0);
            }
        } else {
            for age in (0..self.max_files - 1).rev() {
                // Younger ones may not exist yet.
                let _ = fs::rename(rotated(&self.path, age), rotated(&self.path, age + 1));
            }
            self.file = append(&self.path).ok();
        }
        self.size = 0;
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// JSON string contents (RFC 8259, section 7); bytes that are no UTF-8 become U+FFFD.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..0x20 => {
                    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                    out.extend_from_slice(b"\\u00");
                    out.push(digit(byte >> 4));
                    out.push(digit(byte & 15));
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}
