//! Starts shims. One stands by, already executed and waiting for its settings: a container then
//! does not wait for a program to be loaded. A burst of containers starts its shims as it needs them.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::binary::Binary;
use crate::error::RuntimeError;
use crate::protocol;
use crate::shim::{self, Settings};

/// Set-up of one container takes milliseconds; a shim that has not answered by then is stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Spawner {
    binary: Binary,
    /// The socket of the one that stands by. It ends when this is closed.
    spare: Mutex<Option<UnixStream>>,
    /// Containers that are being set up.
    busy: AtomicUsize,
}

impl Spawner {
    pub(crate) fn new() -> Result<Arc<Self>, RuntimeError> {
        let binary = Binary::copy_own()?;
        let (spare, busy) = (Mutex::default(), AtomicUsize::new(0));
        let spawner = Arc::new(Self { binary, spare, busy });
        spawner.stand_by();
        Ok(spawner)
    }

    /// The program that shims are copies of.
    pub(crate) fn binary(&self) -> &Binary {
        &self.binary
    }

    /// Hands a shim its settings, and waits until it has the container set up; returns init's pid.
    pub(crate) fn run(self: &Arc<Self>, settings: &Settings) -> Result<u32, RuntimeError> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let made = self.try_run(settings);
        if self.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.stand_by();
        }
        made
    }

    fn try_run(&self, settings: &Settings) -> Result<u32, RuntimeError> {
        let system = |what: &'static str| move |source| RuntimeError::System { what, source };
        let request = protocol::frame(protocol::OK, &settings.encode());
        let ask = |mut shim: UnixStream| shim.write_all(&request).map(|()| shim);
        let asked = self.take_spare().and_then(|spare| ask(spare).ok());
        let mut shim = match asked {
            Some(shim) => shim,
            // None stands by, or it was killed meanwhile.
            None => ask(self.start()?).map_err(system("tell the shim"))?,
        };
        // Cut off: the shim was killed before it could say why.
        let (kind, answer) =
            protocol::read_frame(&mut shim).map_err(system("hear from the shim"))?;
        match (kind, <[u8; 4]>::try_from(answer.as_slice())) {
            (protocol::OK, Ok(pid)) => Ok(u32::from_le_bytes(pid)),
            _ => Err(RuntimeError::Setup(String::from_utf8_lossy(&answer).into_owned())),
        }
    }

    fn take_spare(&self) -> Option<UnixStream> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gets the next one ready, in the background.
    fn stand_by(self: &Arc<Self>) {
        let this = self.clone();
        let ready = move || {
            // Started before the lock is taken: a container does not wait for it.
            let Ok(started) = this.start() else { return };
            let mut spare = this.spare.lock().unwrap_or_else(PoisonError::into_inner);
            // Dropped, it ends.
            let _ = spare.get_or_insert(started);
        };
        // Without a thread for it the next container starts its own.
        let _ = std::thread::Builder::new().name("shim-spare".to_owned()).spawn(ready);
    }

    fn start(&self) -> Result<UnixStream, RuntimeError> {
        let system =
            |what: &'static str| move |source: io::Error| RuntimeError::System { what, source };
        let (own, shim) = UnixStream::pair().map_err(system("make a socket"))?;
        own.set_read_timeout(Some(PATIENCE)).map_err(system("set up a socket"))?;
        let mut child = Command::new(self.binary.path())
            .arg0(shim::NAME)
            // Room for the name that `ps` shows: the container's folder.
            .arg(" ".repeat(shim::MOST_TITLE))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(shim)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(system("start the shim"))?;
        // It forks and ends at once; what it forked is init's child from then on.
        child.wait().map_err(system("wait for the shim"))?;
        Ok(own)
    }
}
