//! Between the agent and a shim, over a unix socket in the container's folder: one request a
//! connection, one answer. A kind byte, a length of four bytes, the payload. After the answer to
//! an attach, or to an exec that is to be attached to, the connection carries a [`stream`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

const SOCKET: &str = "shim.sock";
/// The longest payload: an exec's arguments and environment.
const MAX_PAYLOAD: u32 = 1 << 20;

/// The request was done. Answers of 126 and 127 are exec failures.
pub(crate) const OK: u8 = 0;
/// It was not; the payload says why.
pub(crate) const FAILED: u8 = 1;

/// Kinds of frames after an attach.
pub(crate) mod stream {
    /// From the process: standard output; a terminal's whole output.
    pub(crate) const STDOUT: u8 = b'1';
    /// From the process: standard error.
    pub(crate) const STDERR: u8 = b'2';
    /// It has ended: an exit record.
    pub(crate) const EXIT: u8 = b'X';
    /// To the process: standard input.
    pub(crate) const INPUT: u8 = b'0';
    /// The end of standard input.
    pub(crate) const CLOSE_INPUT: u8 = b'C';
    /// The terminal's columns and rows, two bytes each.
    pub(crate) const RESIZE: u8 = b'Z';
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    State,
    Start,
    Signal,
    Wait,
    Exec,
    /// Payload: until when the container may run, in milliseconds since the host's start.
    Lease,
    /// Payload: 1 to bring standard input, else 0.
    Attach,
}

impl Request {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::State => b'?',
            Self::Start => b'S',
            Self::Signal => b'K',
            Self::Wait => b'W',
            Self::Exec => b'E',
            Self::Attach => b'A',
            Self::Lease => b'L',
        }
    }

    fn parse(byte: u8) -> io::Result<Self> {
        let all = [
            Self::State,
            Self::Start,
            Self::Signal,
            Self::Wait,
            Self::Exec,
            Self::Attach,
            Self::Lease,
        ];
        all.into_iter()
            .find(|request| request.byte() == byte)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// A socket's path may have 107 bytes; one through an open folder is always short enough.
pub(crate) fn short_path(dir: &Path) -> io::Result<(File, PathBuf)> {
    let handle = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()));
    Ok((handle, path))
}

pub(crate) fn listen(dir: &Path) -> io::Result<UnixListener> {
    let (_handle, path) = short_path(dir)?;
    UnixListener::bind(path)
}

pub(crate) fn connect(dir: &Path) -> io::Result<UnixStream> {
    let (_handle, path) = short_path(dir)?;
    UnixStream::connect(path)
}

pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind);
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(payload);
    frame
}

pub(crate) fn reply(stream: &mut UnixStream, kind: u8, payload: &[u8]) -> io::Result<()> {
    stream.write_all(&frame(kind, payload))
}

pub(crate) fn read_request(stream: &mut UnixStream) -> io::Result<(Request, Vec<u8>)> {
    let (kind, payload) = read_frame(stream)?;
    Ok((Request::parse(kind)?, payload))
}

pub(crate) fn read_frame(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = payload_length(head)?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok((head[0], payload))
}

pub(crate) fn payload_length(head: [u8; 5]) -> io::Result<usize> {
    let [_, length @ ..] = head;
    match u32::from_le_bytes(length) {
        length if length <= MAX_PAYLOAD => Ok(length as usize),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}
