//! A further process in the container: forked by the shim, it enters the container's namespaces
//! and cgroups, forks the command, and carries its streams until it ends or its time is up.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SIGKILL, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::client::Client;
use super::relay::{Relay, Streams, Token};
use super::{Pipes, Settings, StreamSettings, exit_status, make_pipe, wait_for};
use crate::init::process::{self, ExecFailure};
use crate::init::{enter_user_namespace, terminal};
use crate::plan::{ExecMode, ExecRequest, ExecResult, Plan};
use crate::protocol;
use crate::sys::{self, Forked};

/// Output is returned as JSON in one frame.
const MAX_COLLECTED: usize = 128 << 10;

/// Never returns: this process is a fork of the shim, made for one exec.
pub(super) fn run(
    settings: &Settings,
    init: libc::pid_t,
    mut connection: UnixStream,
    payload: &[u8],
) -> ! {
    sys::set_name(c"shoal-exec");
    let outcome = exec(settings, init, &mut connection, payload);
    // A client that went away wants no answer.
    let _ = match outcome {
        Ok(None) => Ok(()),
        Ok(Some(result)) => match serde_json::to_vec(&result) {
            Ok(text) => protocol::reply(&mut connection, protocol::OK, &text),
            Err(error) => {
                protocol::reply(&mut connection, protocol::FAILED, error.to_string().as_bytes())
            }
        },
        Err(Failure { kind, message }) => {
            protocol::reply(&mut connection, kind, message.as_bytes())
        }
    };
    sys::exit_now(0)
}

/// The answer's kind: 126 and 127 for a command that can't be executed.
struct Failure {
    kind: u8,
    message: String,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { kind: protocol::FAILED, message }
    }
}

/// The command, and what it is held by.
struct Running {
    pid: Pid,
    handle: OwnedFd,
    streams: Streams,
}

fn exec(
    settings: &Settings,
    init: libc::pid_t,
    connection: &mut UnixStream,
    payload: &[u8],
) -> Result<Option<ExecResult>, Failure> {
    let request: ExecRequest =
        serde_json::from_slice(payload).map_err(|error| format!("exec request: {error}"))?;
    let plan = read_plan(&settings.dir)?;
    let container = enter(settings, init)?;
    let (running, failure) = start(&container, &plan, &request)?;
    let mut failed = Vec::new();
    // Empty when the exec succeeded: the pipe closed with it.
    let _ = fs::File::from(failure).read_to_end(&mut failed);
    if let [code, message @ ..] = &failed[..] {
        let _ = waitpid(running.pid, None);
        let message = String::from_utf8_lossy(message).into_owned();
        if request.mode == ExecMode::Collect {
            let (exit_code, output) = (i32::from(*code), message.into_bytes());
            return Ok(Some(ExecResult { exit_code, output, timed_out: false }));
        }
        return Err(Failure { kind: *code, message });
    }
    match request.mode {
        ExecMode::Collect => collect(running, &request).map(Some).map_err(Failure::from),
        ExecMode::Attach | ExecMode::Detach => {
            let pid = running.pid.as_raw().to_string();
            // The client may be gone already: the command runs all the same.
            let _ = protocol::reply(connection, protocol::OK, pid.as_bytes());
            let client = match request.mode {
                ExecMode::Attach => connection.try_clone().ok(),
                ExecMode::Collect | ExecMode::Detach => None,
            };
            carry(running, &request, client)?;
            Ok(None)
        }
    }
}

fn start(
    container: &Entered,
    plan: &Plan,
    request: &ExecRequest,
) -> Result<(Running, OwnedFd), String> {
    let (failure, failure_in) = make_pipe()?;
    let settings =
        StreamSettings { terminal: request.terminal, stdin: request.stdin, stdin_once: true };
    let Pipes { inner, mut outer } = Pipes::new(settings)?;
    let terminal = match request.terminal {
        true => Some(terminal::open(request.size)?),
        false => None,
    };
    let cgroup = container.cgroup.as_ref().map(AsFd::as_fd);
    let forked =
        sys::clone3(0, cgroup).map_err(|error| format!("no process for the exec: {error}"))?;
    let Forked::Parent(command) = forked else {
        drop((outer, failure));
        let _ = nix::unistd::setsid();
        match terminal {
            Some(terminal) => {
                drop(inner);
                if let Err(error) = terminal::take_over(terminal.slave) {
                    fail(failure_in, &ExecFailure { code: 126, message: error });
                }
                drop(terminal.master);
            }
            None => inner.take_over(),
        }
        let prepared = process::prepare_exec(plan, request).and_then(|prepared| {
            container.enter_the_rest(plan)?;
            Ok(prepared)
        });
        let failed = match prepared {
            Ok(prepared) => prepared.exec(),
            Err(message) => ExecFailure { code: 126, message },
        };
        fail(failure_in, &failed)
    };
    drop((inner, failure_in));
    if let Some(terminal) = terminal {
        let master = terminal.master;
        outer.input = master.try_clone().ok();
        outer.output[0] = Some(master);
    }
    let handle = sys::pidfd_open(command).map_err(|error| format!("watch the exec: {error}"))?;
    Ok((Running { pid: Pid::from_raw(command), handle, streams: outer }, failure))
}

fn fail(report: OwnedFd, failure: &ExecFailure) -> ! {
    let mut report = fs::File::from(report);
    let _ = report.write_all(&[failure.code]);
    let _ = report.write_all(failure.message.as_bytes());
    sys::exit_now(failure.code.into())
}

fn read_plan(dir: &Path) -> Result<Plan, String> {
    let path = Plan::path(dir);
    let text = fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A container that this process is in, but for what only the command enters.
struct Entered {
    /// Its first process.
    handle: OwnedFd,
    /// Its group in the v2 hierarchy.
    cgroup: Option<fs::File>,
}

/// Joins the container's v1 groups, then its namespaces; the pid namespace is that of children.
fn enter(settings: &Settings, init: libc::pid_t) -> Result<Entered, String> {
    settings.enter_v1_groups()?;
    let cgroup = settings.open_cgroup()?;
    let handle =
        sys::pidfd_open(init).map_err(|error| format!("the container is gone: {error}"))?;
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID;
    setns(&handle, namespaces).map_err(|error| format!("enter the container: {error}"))?;
    Ok(Entered { handle, cgroup })
}

impl Entered {
    /// The cgroup namespace, in which the shim's own group, where the command comes from, is out
    /// of sight; then the user namespace, in which it has no more rights than the container.
    fn enter_the_rest(&self, plan: &Plan) -> Result<(), String> {
        setns(&self.handle, CloneFlags::CLONE_NEWCGROUP)
            .map_err(|error| format!("enter the container's cgroup namespace: {error}"))?;
        match plan.ids {
            Some(_) => enter_user_namespace(self.handle.as_fd()),
            None => Ok(()),
        }
    }
}

/// Until the command ends; what it leaves running in the background is not waited for.
fn collect(running: Running, request: &ExecRequest) -> Result<ExecResult, String> {
    let limit = Duration::from_millis(request.timeout_ms);
    let until = (request.timeout_ms > 0).then(|| Instant::now() + limit);
    let room = request.max_output.min(MAX_COLLECTED);
    let mut output = running.streams.output;
    let mut kept = Vec::new();
    let mut timed_out = false;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) && !timed_out {
            timed_out = true;
            // It and its children, which share its session. It may have ended just now.
            let _ = killpg(running.pid, SIGKILL);
        }
        let wait = match (timed_out, left) {
            (false, Some(left)) => {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
            _ => PollTimeout::NONE,
        };
        let mut fds = vec![PollFd::new(running.handle.as_fd(), PollFlags::POLLIN)];
        let mut tokens = vec![Token::Process];
        for (index, fd) in output.iter().enumerate() {
            if let Some(fd) = fd {
                fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
                tokens.push(Token::Output(index));
            }
        }
        let ready = wait_for(&mut fds, &tokens, wait);
        drop(fds);
        let ended = ready.iter().any(|(token, _)| *token == Token::Process);
        for (token, _) in &ready {
            if let Token::Output(index) = token {
                take(&mut output[*index], &mut kept, room);
            }
        }
        if ended {
            break;
        }
    }
    // What it wrote last. Its children may hold the pipes: only what is there now is taken.
    for fd in &mut output {
        while fd.as_ref().is_some_and(is_ready) {
            take(fd, &mut kept, room);
        }
    }
    let status =
        waitpid(running.pid, None).map_err(|error| format!("lost the process: {error}"))?;
    Ok(ExecResult { exit_code: exit_status(status, false).code, output: kept, timed_out })
}

fn is_ready(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

fn take(fd: &mut Option<OwnedFd>, kept: &mut Vec<u8>, room: usize) {
    let Some(open) = fd else { return };
    let mut buffer = [0u8; 4096];
    match nix::unistd::read(&*open, &mut buffer) {
        Ok(0) | Err(_) => *fd = None,
        Ok(count) => {
            let room = room.saturating_sub(kept.len());
            kept.extend_from_slice(&buffer[..count.min(room)]);
        }
    }
}

/// Carries the streams until the command ends, with or without its client.
fn carry(
    running: Running,
    request: &ExecRequest,
    client: Option<UnixStream>,
) -> Result<(), String> {
    let mut relay = Relay::new(running.streams, None).map_err(|error| error.to_string())?;
    relay.input_once = true;
    if let Some(client) = client.and_then(|client| Client::new(client, request.stdin).ok()) {
        relay.attach(client);
    }
    loop {
        let mut fds = vec![PollFd::new(running.handle.as_fd(), PollFlags::POLLIN)];
        let mut tokens = vec![Token::Process];
        let patience = relay.register(&mut fds, &mut tokens);
        let ready = wait_for(&mut fds, &tokens, patience);
        drop(fds);
        relay.handle(&ready);
        if ready.iter().any(|(token, _)| *token == Token::Process) {
            let status =
                waitpid(running.pid, None).map_err(|error| format!("lost the process: {error}"))?;
            relay.finish(&exit_status(status, false));
            return Ok(());
        }
    }
}
