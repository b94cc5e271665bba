//! One who is attached to a container or an exec: frames out, with a bounded queue; frames in.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::protocol::{self, stream};

/// Output that waits for a client. With more, the container's output is held back until the
/// client has read on.
const QUEUE: usize = 256 << 10;
/// A client that has read nothing for so long while output waited for it is cut off: a reader
/// that hangs holds a container up for this long at the most.
const STALLED: Duration = Duration::from_secs(10);

/// What a client has sent.
pub(super) enum Word {
    Input(Vec<u8>),
    CloseInput,
    Resize { columns: u16, rows: u16 },
}

pub(super) struct Client {
    connection: UnixStream,
    /// Bytes of `queue` that have been sent.
    sent: usize,
    queue: Vec<u8>,
    /// The beginning of a frame whose end has not come yet.
    partial: Vec<u8>,
    /// It brings standard input.
    pub(super) brings_input: bool,
    waits_since: Option<Instant>,
    gone: bool,
}

impl Client {
    pub(super) fn new(connection: UnixStream, brings_input: bool) -> io::Result<Self> {
        connection.set_nonblocking(true)?;
        Ok(Self {
            connection,
            sent: 0,
            queue: Vec::new(),
            partial: Vec::new(),
            brings_input,
            waits_since: None,
            gone: false,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) fn has_output(&self) -> bool {
        self.sent < self.queue.len()
    }

    /// Too far behind for more.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() - self.sent >= QUEUE
    }

    /// How long it may still hold the output back.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let waited = self.waits_since.map_or(Duration::ZERO, |since| now - since);
        STALLED.saturating_sub(waited)
    }

    pub(super) fn send(&mut self, kind: u8, payload: &[u8]) {
        if !self.gone {
            self.queue.extend(protocol::frame(kind, payload));
            self.flush();
        }
    }

    /// Sends what it takes now.
    pub(super) fn flush(&mut self) {
        while self.has_output() && !self.gone {
            match self.connection.write(&self.queue[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.waits_since = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
        if self.has_output() {
            self.waits_since.get_or_insert_with(Instant::now);
            if self.sent > QUEUE / 4 {
                self.queue.drain(..self.sent);
                self.sent = 0;
            }
        } else {
            // Memory goes back when nothing waits: a shim is to stay small.
            self.queue = Vec::new();
            self.sent = 0;
            self.waits_since = None;
        }
    }

    /// Cuts it off when it has hung for too long.
    pub(super) fn check(&mut self, now: Instant) {
        if self.waits_since.is_some() && self.patience(now).is_zero() {
            self.gone = true;
        }
    }

    /// What it has sent since the last look.
    pub(super) fn read(&mut self) -> Vec<Word> {
        let mut buffer = [0u8; 16 << 10];
        match self.connection.read(&mut buffer) {
            Ok(0) => self.gone = true,
            Ok(count) => self.partial.extend_from_slice(&buffer[..count]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
        let mut words = Vec::new();
        while let Some(head) = self.partial.first_chunk::<5>().copied() {
            let Ok(length) = protocol::payload_length(head) else {
                self.gone = true;
                break;
            };
            if self.partial.len() < 5 + length {
                break;
            }
            let payload: Vec<u8> = self.partial.drain(..5 + length).skip(5).collect();
            match (head[0], &payload[..]) {
                (stream::INPUT, _) => words.push(Word::Input(payload)),
                (stream::CLOSE_INPUT, _) => words.push(Word::CloseInput),
                (stream::RESIZE, [a, b, c, d]) => words.push(Word::Resize {
                    columns: u16::from_le_bytes([*a, *b]),
                    rows: u16::from_le_bytes([*c, *d]),
                }),
                _ => self.gone = true,
            }
        }
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
        words
    }
}
