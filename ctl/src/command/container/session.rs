//! Attached to a container or an exec: this process's standard streams are its.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::bail;
use shoal_proto::v1::attach_response::Part;
use shoal_proto::v1::{AttachResponse, KillContainerRequest, TerminalSize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::terminal::{self, Raw};
use crate::client::Client;
use crate::output;

/// Signals that are passed on; what ends or stops this process alone is not.
const PASSED: [(&str, i32); 8] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGTERM", 15),
    ("SIGCONT", 18),
    ("SIGURG", 23),
];
/// Docker's: Ctrl-P Ctrl-Q.
const DETACH_KEYS: &str = "ctrl-p,ctrl-q";
/// SIGWINCH
const WINDOW_CHANGED: i32 = 28;

/// What goes to the container.
pub(super) enum Input {
    Data(Vec<u8>),
    Close,
    Resize(TerminalSize),
}

/// How a session is held.
pub(super) struct Session<'a> {
    /// Whose signals this process's are passed on to; none: they are not.
    pub(super) signals_to: Option<&'a str>,
    pub(super) stdin: bool,
    pub(super) tty: bool,
    pub(super) detach_keys: &'a [u8],
}

/// How it ended.
pub(super) enum Ended {
    Exited(i32),
    Detached,
    /// It could not be started; with Docker's exit code.
    Failed(i32),
}

impl Ended {
    pub(super) fn code(&self) -> ExitCode {
        match self {
            Self::Detached => ExitCode::SUCCESS,
            Self::Exited(code) | Self::Failed(code) => {
                ExitCode::from(u8::try_from(*code).unwrap_or(255))
            }
        }
    }
}

/// `ctrl-p,ctrl-q`, `a,b`, `ctrl-@`; empty: the default.
pub(super) fn keys(text: &str) -> Result<Vec<u8>, String> {
    let text = if text.is_empty() { DETACH_KEYS } else { text };
    let key = |key: &str| match key.as_bytes() {
        [single] => Ok(*single),
        _ => match key.to_ascii_lowercase().strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
            Some(b"@") => Ok(0),
            Some(b"[") => Ok(27),
            Some(b"\\") => Ok(28),
            Some(b"]") => Ok(29),
            Some(b"^") => Ok(30),
            Some(b"_") => Ok(31),
            _ => Err(format!(
                "{key:?} is no key; write a letter, or ctrl- and one of a-z @ [ \\ ] ^ _"
            )),
        },
    };
    text.split(',').map(key).collect()
}

/// Finds the detach keys in what is typed. Keys that begin the sequence are held back until it is
/// clear that they don't.
struct Detach<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl Detach<'_> {
    /// What to pass on, and whether the sequence was complete.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(byte == self.keys[0]);
            if self.matched == 0 {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

/// Reads standard input on a thread of its own: such a read can't be given up.
fn read_input(to: mpsc::Sender<Option<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) | Err(_) => {
                    // The end.
                    let _ = to.blocking_send(None);
                    return;
                }
                Ok(count) => {
                    if to.blocking_send(Some(buffer[..count].to_vec())).is_err() {
                        return;
                    }
                }
            }
        }
    });
}

impl Session<'_> {
    /// Carries the streams until the process ends or the user detaches.
    pub(super) async fn hold(
        &self,
        client: &mut Client,
        mut output: Streaming<AttachResponse>,
        input: mpsc::Sender<Input>,
    ) -> anyhow::Result<Ended> {
        let raw = match self.tty && self.stdin && terminal::is_terminal() {
            true => Some(Raw::enter()?),
            false => None,
        };
        let (typed, mut keyboard) = mpsc::channel(4);
        if self.stdin {
            read_input(typed);
        }
        let mut detach = Detach { keys: self.detach_keys, matched: 0 };
        let mut window = signal(SignalKind::from_raw(WINDOW_CHANGED))?;
        let (caught, mut signals) = mpsc::channel(16);
        if self.signals_to.is_some() {
            catch(&caught)?;
        }
        if self.tty
            && let Some(size) = terminal::size()
        {
            // It may have changed since the start was asked for.
            let _ = input.send(Input::Resize(size)).await;
        }
        let mut input_open = self.stdin;
        let ended = loop {
            tokio::select! {
                event = output.message() => match event? {
                    None => bail!("the agent ended the connection"),
                    Some(event) => match event.part {
                        Some(Part::Stdout(bytes)) => write(&mut io::stdout(), &bytes)?,
                        Some(Part::Stderr(bytes)) => write(&mut io::stderr(), &bytes)?,
                        Some(Part::Exited(code)) => break Ended::Exited(code),
                        Some(Part::StartFailure(failure)) => {
                            drop(raw);
                            output::note(format!("error: {}", failure.message));
                            return Ok(Ended::Failed(failure.exit_code));
                        }
                        None => {}
                    },
                },
                bytes = keyboard.recv(), if input_open => match bytes.flatten() {
                    Some(bytes) if raw.is_some() => {
                        let (passed, done) = detach.filter(&bytes);
                        if !passed.is_empty() {
                            // Gone: its end is on the way here.
                            let _ = input.send(Input::Data(passed)).await;
                        }
                        if done {
                            break Ended::Detached;
                        }
                    }
                    Some(bytes) => drop(input.send(Input::Data(bytes)).await),
                    None => {
                        input_open = false;
                        let _ = input.send(Input::Close).await;
                    }
                },
                _ = window.recv(), if self.tty => {
                    if let Some(size) = terminal::size() {
                        let _ = input.send(Input::Resize(size)).await;
                    }
                }
                Some(name) = signals.recv() => self.pass(client, name).await,
            }
        };
        drop(raw);
        Ok(ended)
    }

    async fn pass(&self, client: &mut Client, name: &'static str) {
        let Some(container) = self.signals_to else { return };
        let container = container.to_owned();
        let request = KillContainerRequest { container, signal: name.to_owned() };
        // It may have ended just now.
        let _ = client.containers.kill_container(request).await;
    }
}

fn catch(to: &mpsc::Sender<&'static str>) -> io::Result<()> {
    for (name, number) in PASSED {
        let mut signals = signal(SignalKind::from_raw(number))?;
        let to = to.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if to.send(name).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Standard input and output are both terminals where one is asked for.
pub(super) fn check_terminal(stdin: bool, tty: bool) -> anyhow::Result<()> {
    if stdin && tty && !io::stdin().is_terminal() {
        bail!("the input device is not a terminal; leave -t out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_docker_writes_them() {
        assert_eq!(keys("").unwrap(), [16, 17]);
        assert_eq!(keys("ctrl-a,b,ctrl-@").unwrap(), [1, b'b', 0]);
        assert!(keys("ctrl-1").is_err() && keys("ab").is_err());
    }

    #[test]
    fn the_sequence_is_found_and_nothing_else_is_lost() {
        let keys = [16, 17];
        let mut detach = Detach { keys: &keys, matched: 0 };
        assert_eq!(detach.filter(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(detach.filter(&[b'a', 16]), (b"a".to_vec(), false));
        assert_eq!(detach.filter(b"b"), (vec![16, b'b'], false));
        assert_eq!(detach.filter(&[16, 16, 17, b'x']), (vec![16], true));
    }
}
