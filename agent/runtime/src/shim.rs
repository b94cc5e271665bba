//! The shim: one small process for each container. It forks the container's init and every exec,
//! holds the pipes, writes the log, reaps, and records the exit. It has one thread and waits in
//! `poll`; the agent may come and go.
//!
//! Everything that takes memory (the spec, a request's JSON) happens in the children it forks.

mod client;
mod exec;
mod relay;
mod server;
pub(crate) mod user_namespace;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::pipe2;

use crate::exit::ExitStatus;
use crate::init;
use crate::lease::uptime;
use crate::log::sink::Sink;
use crate::plan::IdRange;
use crate::protocol;
use crate::sys::{self, Forked};
use relay::{Relay, Streams, Token};

/// `argv[0]` of a shim.
pub(crate) const NAME: &str = "shoal-shim";
/// Bytes of the container's folder that `ps` shows beside the name.
pub(crate) const MOST_TITLE: usize = 255;

/// A container's standard streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StreamSettings {
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    /// Standard input ends with the first client that brought some.
    pub(crate) stdin_once: bool,
}

impl StreamSettings {
    fn to_arg(self) -> String {
        let flags = [('t', self.terminal), ('i', self.stdin), ('o', self.stdin_once)];
        flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).collect()
    }

    fn from_arg(text: &str) -> Self {
        Self {
            terminal: text.contains('t'),
            stdin: text.contains('i'),
            stdin_once: text.contains('o'),
        }
    }
}

/// What the agent tells a shim.
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) log_size: u64,
    pub(crate) log_files: u32,
    /// Fields of the journal's entries; empty: no journal.
    pub(crate) journal: String,
    pub(crate) streams: StreamSettings,
    /// The pid namespace to make init in; empty: a new one, `/` stands for the host's.
    pub(crate) pid_namespace: PathBuf,
    /// Which other namespaces to make, as clone flags.
    pub(crate) namespaces: u64,
    /// Counts processes killed for want of memory.
    pub(crate) oom_file: PathBuf,
    /// The host's ids that the container's are mapped to; none: they are the host's.
    pub(crate) ids: Option<IdRange>,
    /// The v2 group to clone into; empty on hosts with v1 alone.
    pub(crate) cgroup: PathBuf,
    /// The v1 files that a process enters the container's groups through.
    pub(crate) tasks: Vec<PathBuf>,
}

impl Settings {
    /// The v2 group of the container, open.
    fn open_cgroup(&self) -> Result<Option<fs::File>, String> {
        if self.cgroup.as_os_str().is_empty() {
            return Ok(None);
        }
        let opened = fs::File::open(&self.cgroup);
        opened.map(Some).map_err(|error| format!("open cgroup {}: {error}", self.cgroup.display()))
    }

    /// Moves this process, which has one thread, into the container's v1 groups.
    pub(crate) fn enter_v1_groups(&self) -> Result<(), String> {
        for file in &self.tasks {
            fs::write(file, "0")
                .map_err(|error| format!("enter cgroup {}: {error}", file.display()))?;
        }
        Ok(())
    }

    /// As one message: values with a zero byte between them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let ids = self.ids.map(|ids| format!("{}:{}:{}", ids.uid, ids.gid, ids.count));
        let mut values: Vec<OsString> = vec![
            self.dir.clone().into(),
            self.log.clone().into(),
            self.log_size.to_string().into(),
            self.log_files.to_string().into(),
            self.journal.clone().into(),
            self.streams.to_arg().into(),
            self.pid_namespace.clone().into(),
            self.namespaces.to_string().into(),
            self.oom_file.clone().into(),
            ids.unwrap_or_default().into(),
            self.cgroup.clone().into(),
        ];
        values.extend(self.tasks.iter().map(|path| path.clone().into()));
        values.join(OsStr::new("\0")).into_vec()
    }

    fn decode(message: &[u8]) -> Option<Self> {
        let values = message.split(|byte| *byte == 0);
        Self::from_args(values.map(|value| OsStr::from_bytes(value).to_owned()))
    }

    fn from_args(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let dir = args.next()?.into();
        let log = args.next()?.into();
        let log_size = args.next()?.to_str()?.parse().ok()?;
        let log_files = args.next()?.to_str()?.parse().ok()?;
        let journal = args.next()?.into_string().ok()?;
        let streams = StreamSettings::from_arg(args.next()?.to_str()?);
        let pid_namespace = args.next()?.into();
        let namespaces = args.next()?.to_str()?.parse().ok()?;
        let oom_file = args.next()?.into();
        let ids = args.next()?.into_string().ok()?;
        let mut ids = ids.split(':').map(|number| number.parse().ok());
        let ids = match (ids.next().flatten(), ids.next().flatten(), ids.next().flatten()) {
            (Some(uid), Some(gid), Some(count)) => Some(IdRange { uid, gid, count }),
            _ => None,
        };
        let cgroup = args.next()?.into();
        let tasks = args.map(PathBuf::from).collect();
        Some(Self {
            dir,
            log,
            log_size,
            log_files,
            journal,
            streams,
            pid_namespace,
            namespaces,
            oom_file,
            ids,
            cgroup,
            tasks,
        })
    }
}

/// Runs the shim when this process is one, and then never returns.
pub(crate) fn run_if_asked() {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name != NAME) {
        return;
    }
    // Orphaned at once, so that its end is init's to reap and not the agent's.
    match sys::fork() {
        Ok(Forked::Parent(_)) => sys::exit_now(0),
        Ok(Forked::Child) => {}
        Err(_) => sys::exit_now(1),
    }
    // Whatever the agent or its libraries leave open is not for a process that outlives it.
    if sys::close_from(3).is_err() {
        sys::exit_now(1);
    }
    // On standard input the agent waits for the word that the container is there. It is kept
    // elsewhere, and 0 to 2 are taken at once: no descriptor of the shim's may come to be there.
    let inherited = sys::inherited(0);
    let Ok(mut agent) = inherited.try_clone().map(UnixStream::from) else { sys::exit_now(1) };
    let _ = inherited.into_raw_fd();
    redirect_to_null();
    // Signals to the agent's terminal are not for it.
    let _ = nix::unistd::setsid();
    sys::set_name(c"shoal-shim");
    // It stands by from here on; the agent may end without ever needing it.
    let Ok((_, message)) = protocol::read_frame(&mut agent) else { sys::exit_now(0) };
    let Some(settings) = Settings::decode(&message) else { sys::exit_now(2) };
    sys::set_command_line(&format!("{NAME} {}", settings.dir.display()));
    let failed = match Shim::create(&settings) {
        Ok((shim, pid)) => {
            // An agent that died meanwhile finds the container when it starts again.
            let _ = protocol::reply(&mut agent, protocol::OK, &pid.to_le_bytes());
            drop(agent);
            shim.run();
            sys::exit_now(0)
        }
        Err(message) => message,
    };
    let _ = protocol::reply(&mut agent, protocol::FAILED, failed.as_bytes());
    sys::exit_now(1)
}

struct Shim<'a> {
    settings: &'a Settings,
    init: libc::pid_t,
    is_reaped: bool,
    /// Words to init; gone once it has started.
    words: Option<fs::File>,
    /// Init's reports.
    report: UnixStream,
    listener: UnixListener,
    signals: OwnedFd,
    relay: Relay,
    started: Option<SystemTime>,
    /// Connections that wait for the exit.
    waiting: Vec<UnixStream>,
    /// Since the host's start: then the container is killed.
    lease: Option<Duration>,
}

impl<'a> Shim<'a> {
    fn create(settings: &'a Settings) -> Result<(Self, libc::pid_t), String> {
        let say = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let say_nix = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
        sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(say("become a reaper"))?;
        let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
            .map_err(say("block signals"))?;
        let sink =
            Sink::open(&settings.log, settings.log_size, settings.log_files, &settings.journal)
                .map_err(|error| format!("open the log {}: {error}", settings.log.display()))?;
        let listener = protocol::listen(&settings.dir).map_err(say("listen"))?;
        let (words_in, words) = make_pipe()?;
        let (report, report_out) = UnixStream::pair().map_err(say("make a socket"))?;
        let Pipes { inner, outer } = Pipes::new(settings.streams)?;
        let cgroup = settings.open_cgroup()?;
        let mut namespaces = settings.namespaces;
        let user = match settings.ids {
            Some(ids) => {
                let owned = user_namespace::owned(namespaces);
                namespaces &= !owned;
                Some(user_namespace::make(ids, owned)?)
            }
            None => None,
        };
        match settings.pid_namespace.as_os_str() {
            path if path.is_empty() => namespaces |= libc::CLONE_NEWPID as u64,
            path if path == "/" => {}
            path => {
                let other = fs::File::open(path).map_err(say("open the other pid namespace"))?;
                nix::sched::setns(other, nix::sched::CloneFlags::CLONE_NEWPID)
                    .map_err(say_nix("enter the other pid namespace"))?;
            }
        }
        let forked = sys::clone3(namespaces, cgroup.as_ref().map(AsFd::as_fd));
        let init = match forked.map_err(say("new namespaces"))? {
            Forked::Child => {
                drop((words, report, outer, listener, cgroup, signals, sink));
                inner.take_over();
                init::run(settings, words_in, report_out, user)
            }
            Forked::Parent(pid) => pid,
        };
        drop((words_in, report_out, inner, user));
        let mut relay = Relay::new(outer, Some(sink)).map_err(say_nix("set up a pipe"))?;
        relay.input_once = settings.streams.stdin_once;
        let mut shim = Self {
            settings,
            init,
            is_reaped: false,
            words: Some(words.into()),
            report,
            listener,
            signals,
            relay,
            started: None,
            waiting: Vec::new(),
            lease: None,
        };
        match shim.finish_create() {
            Ok(()) => Ok((shim, init)),
            Err(message) => {
                shim.kill_init();
                Err(message)
            }
        }
    }

    /// Waits until init has set itself up.
    fn finish_create(&mut self) -> Result<(), String> {
        match sys::receive_descriptor(&self.report) {
            Ok((Some(init::READY), terminal)) => match terminal {
                Some(terminal) => {
                    self.relay.set_terminal(terminal).map_err(|error| format!("{error}"))
                }
                None => Ok(()),
            },
            Ok((Some(_), _)) => {
                let mut message = String::new();
                // What can be read of the message is better than none.
                let _ = self.report.read_to_string(&mut message);
                Err(message)
            }
            Ok((None, _)) => Err(format!("init ended while it set up{}", self.why_it_ended())),
            Err(error) => Err(format!("hear from init: {error}")),
        }
    }

    /// Ends init, should it still be there, and says how it had ended before that.
    fn why_it_ended(&mut self) -> String {
        match self.kill_init() {
            Some(WaitStatus::Signaled(_, signal, _)) => format!(" (killed by {signal})"),
            _ => String::new(),
        }
    }

    fn tell_init(&mut self) -> io::Result<()> {
        match &mut self.words {
            Some(words) => words.write_all(&[init::START]),
            None => Err(io::Error::from(io::ErrorKind::NotConnected)),
        }
    }

    /// Once it is reaped, its number may be another process's.
    fn kill_init(&mut self) -> Option<WaitStatus> {
        if std::mem::replace(&mut self.is_reaped, true) {
            return None;
        }
        let init = nix::unistd::Pid::from_raw(self.init);
        // Gone already is as good: it keeps the status that it had.
        let _ = nix::sys::signal::kill(init, nix::sys::signal::SIGKILL);
        waitpid(init, None).ok()
    }

    fn run(mut self) {
        sys::trim_heap();
        loop {
            let ready = self.wait_for_events();
            if self.lease.is_some_and(|until| until <= uptime()) {
                self.lease = None;
                // Its end comes as a signal, like any other.
                let _ = sys::send_signal(self.init, libc::SIGKILL);
            }
            let has = |wanted| ready.iter().any(|(token, _)| *token == wanted);
            self.relay.handle(&ready);
            if has(Token::Listener) {
                self.accept();
            }
            if has(Token::Signals) {
                let _ = wait_for_signals(&self.signals);
                if let Some(status) = self.reap() {
                    return self.finish(status);
                }
            }
        }
    }

    fn wait_for_events(&self) -> Vec<(Token, PollFlags)> {
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        let mut tokens = vec![Token::Listener, Token::Signals];
        let mut patience = self.relay.register(&mut fds, &mut tokens);
        if let Some(until) = self.lease {
            let left = until.saturating_sub(uptime()) + Duration::from_millis(1);
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            // as_millis panics on a timeout that is none.
            if patience.is_none() || patience.as_millis() > left.as_millis() {
                patience = left;
            }
        }
        wait_for(&mut fds, &tokens, patience)
    }

    fn reap(&mut self) -> Option<WaitStatus> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return None,
                Ok(status) if status.pid().is_some_and(|pid| pid.as_raw() == self.init) => {
                    return Some(status);
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Records the exit, tells who waits, and ends.
    fn finish(mut self, status: WaitStatus) {
        let exit = exit_status(status, oom_kills(&self.settings.oom_file) > 0);
        let record = exit.encode();
        // Read by agents that come later. Without space for it the exit code is lost to them, and
        // the container counts as one whose shim died.
        let _ = write_atomically(&ExitStatus::path(&self.settings.dir), record.as_bytes());
        self.relay.finish(&exit);
        for mut connection in self.waiting.drain(..) {
            let _ = protocol::reply(&mut connection, protocol::OK, record.as_bytes());
        }
    }
}

/// What of the poll set is ready. Interrupted or out of memory: nothing, and the next look is at
/// once.
fn wait_for(
    fds: &mut [PollFd<'_>],
    tokens: &[Token],
    patience: PollTimeout,
) -> Vec<(Token, PollFlags)> {
    if poll(fds, patience).is_err() {
        return Vec::new();
    }
    let found = fds.iter().zip(tokens).filter_map(|(fd, token)| {
        let flags = fd.revents().filter(|flags| !flags.is_empty())?;
        Some((*token, flags))
    });
    found.collect()
}

fn exit_status(status: WaitStatus, oom_killed: bool) -> ExitStatus {
    let (code, signal) = match status {
        WaitStatus::Exited(_, code) => (code, None),
        WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, Some(signal as i32)),
        _ => (255, None),
    };
    ExitStatus { code, signal, oom_killed, finished_at: SystemTime::now() }
}

fn make_pipe() -> Result<(OwnedFd, OwnedFd), String> {
    pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("make a pipe: {error}"))
}

/// A process's standard streams, both ends. A terminal is opened by the process itself.
struct Pipes {
    inner: Inner,
    outer: Streams,
}

/// The process's own ends.
struct Inner {
    input: Option<OwnedFd>,
    output: Option<(OwnedFd, OwnedFd)>,
}

impl Pipes {
    fn new(settings: StreamSettings) -> Result<Self, String> {
        if settings.terminal {
            return Ok(Self {
                inner: Inner { input: None, output: None },
                outer: Streams { output: [None, None], input: None, is_terminal: true },
            });
        }
        let (stdout, stdout_in) = make_pipe()?;
        let (stderr, stderr_in) = make_pipe()?;
        let (input, outer_input) = match settings.stdin {
            true => make_pipe().map(|(read, write)| (Some(read), Some(write)))?,
            false => (None, None),
        };
        Ok(Self {
            inner: Inner { input, output: Some((stdout_in, stderr_in)) },
            outer: Streams {
                output: [Some(stdout), Some(stderr)],
                input: outer_input,
                is_terminal: false,
            },
        })
    }
}

impl Inner {
    /// They become this process's standard streams; what is missing is /dev/null.
    fn take_over(self) {
        redirect_to_null();
        // Plain descriptors that are open: dup2 can't fail on them.
        if let Some(input) = &self.input {
            let _ = nix::unistd::dup2_stdin(input);
        }
        if let Some((stdout, stderr)) = &self.output {
            let _ = nix::unistd::dup2_stdout(stdout);
            let _ = nix::unistd::dup2_stderr(stderr);
        }
    }
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(partial, path)
}

/// `oom_kill N` in v1's memory.oom_control and v2's memory.events.
fn oom_kills(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

fn redirect_to_null() {
    if let Ok(null) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}

/// The signals that came in, after waiting for the first.
pub(crate) fn wait_for_signals(fd: &OwnedFd) -> Vec<i32> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::NONE);
    let mut signals = Vec::new();
    let mut buffer = [0u8; 128];
    while let Ok(128) = nix::unistd::read(fd, &mut buffer) {
        let (number, _) = buffer.split_at(4);
        signals.extend(number.try_into().map(i32::from_le_bytes));
    }
    signals
}

/// Nanoseconds since 1970.
fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
