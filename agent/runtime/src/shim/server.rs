//! What the shim answers on its socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use super::client::Client;
use super::{Shim, exec, nanos};
use crate::protocol::{self, Request};
use crate::sys::{self, Forked};

/// A client that sends half a request must not hold the container up.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections that wait for the exit; more are refused.
const MAX_WAITING: usize = 1000;

impl Shim<'_> {
    pub(super) fn accept(&mut self) {
        let Ok((mut connection, _)) = self.listener.accept() else { return };
        let timeout = Some(PATIENCE);
        if connection.set_read_timeout(timeout).is_err()
            || connection.set_write_timeout(timeout).is_err()
        {
            return;
        }
        let Ok((request, payload)) = protocol::read_request(&mut connection) else { return };
        let answer = match request {
            Request::State => Ok(self.state()),
            Request::Start => self.start(),
            Request::Signal => self.signal(&payload),
            Request::Lease => self.set_lease(&payload),
            Request::Wait if self.waiting.len() < MAX_WAITING => {
                return self.waiting.push(connection);
            }
            Request::Wait => Err((protocol::FAILED, "too many wait for it".to_owned())),
            Request::Exec => return self.exec(connection, &payload),
            Request::Attach => return self.attach(connection, &payload),
        };
        // A client that went away wants no answer.
        let _ = match answer {
            Ok(text) => protocol::reply(&mut connection, protocol::OK, text.as_bytes()),
            Err((kind, text)) => protocol::reply(&mut connection, kind, text.as_bytes()),
        };
    }

    /// `PID STARTED`, the second 0 before the start.
    fn state(&self) -> String {
        format!("{} {}", self.init, self.started.map_or(0, nanos))
    }

    fn start(&mut self) -> Result<String, (u8, String)> {
        if self.started.is_some() {
            return Err((protocol::FAILED, "it is running".to_owned()));
        }
        let gone = |error: std::io::Error| (protocol::FAILED, format!("init is gone: {error}"));
        self.tell_init().map_err(gone)?;
        self.words = None;
        let mut report = Vec::new();
        self.report.read_to_end(&mut report).map_err(gone)?;
        if let [_, code, message @ ..] = &report[..] {
            return Err((*code, String::from_utf8_lossy(message).into_owned()));
        }
        self.started = Some(SystemTime::now());
        Ok(String::new())
    }

    fn signal(&self, payload: &[u8]) -> Result<String, (u8, String)> {
        let number = payload.first().copied().unwrap_or(0);
        // Real-time signals too, which have no names.
        sys::send_signal(self.init, number.into())
            .map(|()| String::new())
            .map_err(|error| (protocol::FAILED, format!("signal {number}: {error}")))
    }

    fn set_lease(&mut self, payload: &[u8]) -> Result<String, (u8, String)> {
        let Some(millis) = payload.first_chunk::<8>() else {
            return Err((protocol::FAILED, "a lease without a time".to_owned()));
        };
        self.lease = Some(Duration::from_millis(u64::from_le_bytes(*millis)));
        Ok(String::new())
    }

    fn attach(&mut self, mut connection: UnixStream, payload: &[u8]) {
        let brings_input = payload.first() == Some(&1);
        if protocol::reply(&mut connection, protocol::OK, &[]).is_err() {
            return;
        }
        if let Ok(client) = Client::new(connection, brings_input) {
            self.relay.attach(client);
        }
    }

    fn exec(&mut self, mut connection: UnixStream, payload: &[u8]) {
        match sys::fork() {
            Ok(Forked::Child) => exec::run(self.settings, self.init, connection, payload),
            Ok(Forked::Parent(_)) => {}
            Err(error) => {
                let text = format!("no process for the exec: {error}");
                let _ = protocol::reply(&mut connection, protocol::FAILED, text.as_bytes());
                let _ = connection.flush();
            }
        }
    }
}
