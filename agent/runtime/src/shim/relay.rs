//! Between a process's standard streams and whoever wants them: the log, and attached clients.
//! The process's side never waits for a client that hangs (see `client`), nor for the log.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::client::{Client, Word};
use crate::exit::ExitStatus;
use crate::log::sink::Sink;
use crate::log::writer::Stream;
use crate::protocol::stream;
use crate::sys;

/// Input that waits for the process; a client that sends more waits too.
const INPUT_LIMIT: usize = 256 << 10;
/// What a process that has ended may have left in its pipes, and a bound against one that shares
/// them with others who go on writing.
const DRAIN_LIMIT: usize = 4 << 20;
/// For the last output's way to the clients.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// A process's standard streams, as their other end.
pub(super) struct Streams {
    /// Standard output and error; a terminal has one for both.
    pub(super) output: [Option<OwnedFd>; 2],
    pub(super) input: Option<OwnedFd>,
    pub(super) is_terminal: bool,
}

pub(super) struct Relay {
    streams: Streams,
    pending: Vec<u8>,
    close_input: bool,
    /// The input ends with the first client that brought some.
    pub(super) input_once: bool,
    clients: Vec<Client>,
    sink: Option<Sink>,
}

/// What a descriptor in the poll set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Signals,
    Process,
    Output(usize),
    Input,
    Client(usize),
}

impl Relay {
    pub(super) fn new(streams: Streams, sink: Option<Sink>) -> nix::Result<Self> {
        for fd in streams.output.iter().chain([&streams.input]).flatten() {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            streams,
            pending: Vec::new(),
            close_input: false,
            input_once: false,
            clients: Vec::new(),
            sink,
        })
    }

    pub(super) fn attach(&mut self, client: Client) {
        self.clients.push(client);
    }

    /// The process has opened its terminal: this is the other end of it.
    pub(super) fn set_terminal(&mut self, terminal: OwnedFd) -> nix::Result<()> {
        fcntl(&terminal, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let input = terminal.try_clone().map_err(|_| Errno::EMFILE)?;
        self.streams.input = Some(input);
        self.streams.output[0] = Some(terminal);
        Ok(())
    }

    /// Sets the size of the terminal, when it is one.
    pub(super) fn resize(&self, columns: u16, rows: u16) {
        if self.streams.is_terminal
            && let Some(terminal) = &self.streams.output[0]
        {
            // A terminal whose other end is closed has no size.
            let _ = sys::set_window_size(terminal.as_fd(), columns, rows);
        }
    }

    /// Adds what is to be waited for; returns how long at the most.
    pub(super) fn register<'a>(
        &'a self,
        fds: &mut Vec<PollFd<'a>>,
        tokens: &mut Vec<Token>,
    ) -> PollTimeout {
        let mut add = |fd, flags, token| {
            fds.push(PollFd::new(fd, flags));
            tokens.push(token);
        };
        let held_back = self.clients.iter().any(Client::is_full);
        for (index, output) in self.streams.output.iter().enumerate() {
            if let Some(output) = output
                && !held_back
            {
                add(output.as_fd(), PollFlags::POLLIN, Token::Output(index));
            }
        }
        if let Some(input) = &self.streams.input
            && !self.pending.is_empty()
        {
            add(input.as_fd(), PollFlags::POLLOUT, Token::Input);
        }
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if self.pending.len() < INPUT_LIMIT {
                flags |= PollFlags::POLLIN;
            }
            if client.has_output() {
                flags |= PollFlags::POLLOUT;
            }
            add(client.fd(), flags, Token::Client(index));
        }
        let now = Instant::now();
        let waiting = self.clients.iter().filter(|client| client.has_output());
        waiting.map(|client| client.patience(now)).min().map_or(PollTimeout::NONE, |patience| {
            PollTimeout::try_from(patience + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        })
    }

    /// Does what the poll found to do.
    pub(super) fn handle(&mut self, ready: &[(Token, PollFlags)]) {
        for (token, flags) in ready {
            match *token {
                Token::Output(index) => drop(self.read_output(index)),
                Token::Input => self.write_input(),
                Token::Client(index) => {
                    if flags.contains(PollFlags::POLLOUT) {
                        self.clients[index].flush();
                    }
                    if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR)
                    {
                        let words = self.clients[index].read();
                        words.into_iter().for_each(|word| self.hear(word));
                    }
                }
                Token::Listener | Token::Signals | Token::Process => {}
            }
        }
        let now = Instant::now();
        let mut input_ended = false;
        self.clients.retain_mut(|client| {
            client.check(now);
            input_ended |= client.is_gone() && client.brings_input;
            !client.is_gone()
        });
        if input_ended && self.input_once {
            self.close_input = true;
        }
        self.write_input();
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Input(bytes) if self.streams.input.is_some() => self.pending.extend(bytes),
            // Nobody reads it.
            Word::Input(_) => {}
            Word::CloseInput => self.close_input |= self.input_once,
            Word::Resize { columns, rows } => self.resize(columns, rows),
        }
    }

    fn write_input(&mut self) {
        let Some(input) = &self.streams.input else {
            self.pending = Vec::new();
            return;
        };
        let mut written = 0;
        while written < self.pending.len() {
            match nix::unistd::write(input, &self.pending[written..]) {
                Ok(count) => written += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => {
                    // The process reads no more.
                    self.pending = Vec::new();
                    self.streams.input = None;
                    return;
                }
            }
        }
        self.pending.drain(..written);
        if self.pending.is_empty() {
            self.pending = Vec::new();
            // A terminal has no end of its own to close.
            if self.close_input && !self.streams.is_terminal {
                self.streams.input = None;
            }
        }
    }

    /// One read, so that much output starves nothing else; returns how much.
    fn read_output(&mut self, index: usize) -> usize {
        let stream = if index == 0 { Stream::Stdout } else { Stream::Stderr };
        let Some(output) = &self.streams.output[index] else { return 0 };
        let mut buffer = [0u8; 16 << 10];
        match nix::unistd::read(output, &mut buffer) {
            Ok(count @ 1..) => {
                let bytes = &buffer[..count];
                if let Some(sink) = &mut self.sink {
                    sink.write(stream, bytes);
                }
                let kind = if index == 0 { stream::STDOUT } else { stream::STDERR };
                self.clients.iter_mut().for_each(|client| client.send(kind, bytes));
                count
            }
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            // A terminal says EIO once nobody has its other side open.
            Ok(_) | Err(_) => {
                if let Some(sink) = &mut self.sink {
                    sink.flush_partial(stream);
                }
                self.streams.output[index] = None;
                0
            }
        }
    }

    /// The process has ended: takes the rest of its output, and tells the clients.
    pub(super) fn finish(&mut self, exit: &ExitStatus) {
        let mut drained = 0;
        for index in 0..2 {
            while drained < DRAIN_LIMIT {
                self.wait_for_room();
                match self.read_output(index) {
                    0 => break,
                    count => drained += count,
                }
            }
        }
        if let Some(sink) = &mut self.sink {
            sink.flush_partial(Stream::Stdout);
            sink.flush_partial(Stream::Stderr);
        }
        let record = exit.encode();
        self.clients.iter_mut().for_each(|client| client.send(stream::EXIT, record.as_bytes()));
        self.wait_until(|client| !client.has_output());
    }

    fn wait_for_room(&mut self) {
        if self.clients.iter().any(Client::is_full) {
            self.wait_until(|client| !client.is_full());
        }
    }

    /// Until all clients are as wanted, gone, or too slow.
    fn wait_until(&mut self, done: impl Fn(&Client) -> bool) {
        let deadline = Instant::now() + FLUSH_PATIENCE;
        while let left @ 1.. = deadline.saturating_duration_since(Instant::now()).as_millis() {
            self.clients.retain(|client| !client.is_gone());
            if self.clients.iter().all(&done) {
                return;
            }
            let waiting = self.clients.iter().filter(|client| !done(client));
            let mut fds: Vec<PollFd<'_>> =
                waiting.map(|client| PollFd::new(client.fd(), PollFlags::POLLOUT)).collect();
            let left = PollTimeout::try_from(left.min(1000)).unwrap_or(PollTimeout::MAX);
            // Interrupted: look again.
            let _ = nix::poll::poll(&mut fds, left);
            drop(fds);
            self.clients.iter_mut().for_each(Client::flush);
        }
    }
}
