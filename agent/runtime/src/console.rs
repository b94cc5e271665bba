//! The agent's end of a process's standard streams.

use std::io;
use std::os::unix::net::UnixStream as StdStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::exit::ExitStatus;
use crate::protocol::{self, stream};

/// What comes from a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleEvent {
    /// Its standard output; a terminal's whole output.
    Stdout(Vec<u8>),
    /// Its standard error.
    Stderr(Vec<u8>),
    /// It has ended; nothing follows.
    Exited(ExitStatus),
}

/// What goes to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleInput {
    /// Its standard input.
    Data(Vec<u8>),
    /// The end of its standard input, where that ends with whoever brought it.
    Close,
    /// The size of its terminal, in characters.
    Resize {
        /// Across.
        columns: u16,
        /// Down.
        rows: u16,
    },
}

/// Reads what comes from a process.
pub struct ConsoleReader(OwnedReadHalf);

/// Sends what goes to a process.
pub struct ConsoleWriter(OwnedWriteHalf);

pub(crate) fn split(connection: StdStream) -> io::Result<(ConsoleReader, ConsoleWriter)> {
    connection.set_read_timeout(None)?;
    connection.set_nonblocking(true)?;
    let (read, write) = tokio::net::UnixStream::from_std(connection)?.into_split();
    Ok((ConsoleReader(read), ConsoleWriter(write)))
}

impl ConsoleReader {
    /// The next event; none when the connection has ended without an exit: the shim was killed,
    /// or cut this reader off because it was too slow.
    ///
    /// # Errors
    /// The connection breaks in the middle of an event.
    pub async fn next(&mut self) -> io::Result<Option<ConsoleEvent>> {
        let mut head = [0; 5];
        match self.0.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut payload = vec![0; protocol::payload_length(head)?];
        self.0.read_exact(&mut payload).await?;
        match head[0] {
            stream::STDOUT => Ok(Some(ConsoleEvent::Stdout(payload))),
            stream::STDERR => Ok(Some(ConsoleEvent::Stderr(payload))),
            stream::EXIT => {
                let exit = ExitStatus::decode(&String::from_utf8_lossy(&payload));
                let exit = exit.ok_or(io::ErrorKind::InvalidData)?;
                Ok(Some(ConsoleEvent::Exited(exit)))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl ConsoleWriter {
    /// Sends it, when there is room for it.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send(&mut self, input: &ConsoleInput) -> io::Result<()> {
        match input {
            ConsoleInput::Data(bytes) => {
                for piece in bytes.chunks(64 << 10) {
                    self.0.write_all(&protocol::frame(stream::INPUT, piece)).await?;
                }
                Ok(())
            }
            ConsoleInput::Close => {
                self.0.write_all(&protocol::frame(stream::CLOSE_INPUT, &[])).await
            }
            ConsoleInput::Resize { columns, rows } => {
                let [a, b] = columns.to_le_bytes();
                let [c, d] = rows.to_le_bytes();
                self.0.write_all(&protocol::frame(stream::RESIZE, &[a, b, c, d])).await
            }
        }
    }
}
