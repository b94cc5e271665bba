//! Where a container's output goes besides the clients that are attached to it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::writer::{Stream, Writer};

const JOURNAL: &str = "/run/systemd/journal/socket";

/// A log driver's sink, in the words of `docker run --log-driver`.
pub(crate) struct Sink {
    /// The file that `logs` reads. With `none` there is none.
    file: Option<Writer>,
    journal: Option<Journal>,
}

impl Sink {
    /// `journal`: the fields that each entry gets, as `NAME=value` lines; empty: no journal.
    pub(crate) fn open(
        file: &Path,
        max_size: u64,
        max_files: u32,
        journal: &str,
    ) -> io::Result<Self> {
        let writer = match file.as_os_str().is_empty() {
            true => None,
            false => Some(Writer::open(file, max_size, max_files)?),
        };
        let journal = match journal {
            "" => None,
            fields => Some(Journal::open(fields)?),
        };
        Ok(Self { file: writer, journal })
    }

    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(file) = &mut self.file {
            file.write(stream, bytes);
        }
        if let Some(journal) = &mut self.journal {
            journal.write(stream, bytes);
        }
    }

    pub(crate) fn flush_partial(&mut self, stream: Stream) {
        if let Some(file) = &mut self.file {
            file.flush_partial(stream);
        }
        if let Some(journal) = &mut self.journal {
            journal.flush(stream);
        }
    }
}

/// The host's journal, by its native protocol: one datagram an entry; fields as `NAME=value`
/// lines, or with a length where a value has a line break (systemd, "Native Journal Protocol").
struct Journal {
    socket: UnixDatagram,
    fields: Vec<u8>,
    partial: [Vec<u8>; 2],
}

/// A longer line is split.
const MAX_LINE: usize = 16 << 10;

impl Journal {
    fn open(fields: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(JOURNAL)?;
        socket.set_nonblocking(true)?;
        let mut bytes = fields.trim_end().as_bytes().to_vec();
        bytes.push(b'\n');
        Ok(Self { socket, fields: bytes, partial: [Vec::new(), Vec::new()] })
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial[stream as usize].extend_from_slice(piece);
            let partial = &self.partial[stream as usize];
            if partial.ends_with(b"\n") || partial.len() >= MAX_LINE {
                self.flush(stream);
            }
        }
    }

    fn flush(&mut self, stream: Stream) {
        let mut line = std::mem::take(&mut self.partial[stream as usize]);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.is_empty() {
            return;
        }
        let priority = if stream == Stream::Stderr { 3 } else { 6 };
        let mut entry = self.fields.clone();
        entry.extend_from_slice(format!("PRIORITY={priority}\nMESSAGE\n").as_bytes());
        entry.extend_from_slice(&(line.len() as u64).to_le_bytes());
        entry.extend_from_slice(&line);
        entry.push(b'\n');
        // A journal that is full or gone must not hold the container up: the entry is lost to it,
        // and is in the file.
        let _ = self.socket.send(&entry);
    }
}
