//! A further process in the container: forked by the shim, it enters the container's namespaces
//! and cgroups, forks the command, and collects what it writes until it ends or its time is up.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SIGKILL, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use super::Settings;
use crate::init::process::{self, ExecFailure};
use crate::plan::{ExecRequest, ExecResult, Plan};
use crate::protocol;
use crate::sys::{self, Forked};

/// Never returns: this process is a fork of the shim, made for one exec.
pub(super) fn run(
    settings: &Settings,
    init: libc::pid_t,
    mut connection: UnixStream,
    payload: &[u8],
) -> ! {
    sys::set_name(c"shoal-exec");
    let outcome = exec(settings, init, payload);
    // A client that went away wants no answer.
    let _ = match outcome {
        Ok(result) => match serde_json::to_vec(&result) {
            Ok(text) => protocol::reply(&mut connection, protocol::OK, &text),
            Err(error) => {
                protocol::reply(&mut connection, protocol::FAILED, error.to_string().as_bytes())
            }
        },
        Err(message) => protocol::reply(&mut connection, protocol::FAILED, message.as_bytes()),
    };
    sys::exit_now(0)
}

fn exec(settings: &Settings, init: libc::pid_t, payload: &[u8]) -> Result<ExecResult, String> {
    let request: ExecRequest =
        serde_json::from_slice(payload).map_err(|error| format!("exec request: {error}"))?;
    let plan = read_plan(&settings.dir)?;
    enter(settings, init)?;
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("make a pipe: {error}"));
    let (output, output_in) = pipe()?;
    let (failure, failure_in) = pipe()?;
    let forked = sys::fork().map_err(|error| format!("no process for the exec: {error}"))?;
    let Forked::Parent(command) = forked else {
        drop((output, failure));
        super::redirect(&output_in, &output_in);
        drop(output_in);
        let _ = nix::unistd::setsid();
        let failed = match process::prepare_exec(&plan, &request) {
            Ok(prepared) => prepared.exec(),
            Err(message) => ExecFailure { code: 126, message },
        };
        let mut report = fs::File::from(failure_in);
        let _ = report.write_all(&[failed.code]);
        let _ = report.write_all(failed.message.as_bytes());
        sys::exit_now(failed.code.into())
    };
    drop((output_in, failure_in));
    collect(Pid::from_raw(command), output, failure, &request)
}

fn read_plan(dir: &Path) -> Result<Plan, String> {
    let path = Plan::path(dir);
    let text = fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Joins the container's cgroups, then its namespaces; the pid namespace is that of children.
fn enter(settings: &Settings, init: libc::pid_t) -> Result<(), String> {
    let own = std::process::id().to_string();
    for file in &settings.procs {
        fs::write(file, &own).map_err(|error| format!("enter {}: {error}", file.display()))?;
    }
    if !settings.cgroup.as_os_str().is_empty() {
        let file = settings.cgroup.join("cgroup.procs");
        fs::write(&file, &own).map_err(|error| format!("enter {}: {error}", file.display()))?;
    }
    let handle =
        sys::pidfd_open(init).map_err(|error| format!("the container is gone: {error}"))?;
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP;
    setns(handle, namespaces).map_err(|error| format!("enter the container: {error}"))
}

fn collect(
    command: Pid,
    output: OwnedFd,
    failure: OwnedFd,
    request: &ExecRequest,
) -> Result<ExecResult, String> {
    let limit = Duration::from_millis(request.timeout_ms);
    let until = (request.timeout_ms > 0).then(|| Instant::now() + limit);
    let mut kept = Vec::new();
    let mut buffer = [0u8; 4096];
    let mut timed_out = false;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            timed_out = true;
            // It may have ended just now.
            let _ = kill(command, SIGKILL);
            break;
        }
        let wait = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, wait).unwrap_or(0) == 0 {
            continue;
        }
        match nix::unistd::read(&output, &mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let room = request.max_output.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
        }
    }
    let exit_code = match waitpid(command, None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        other => return Err(format!("lost the process: {other:?}")),
    };
    let mut failed = Vec::new();
    // Empty when the exec succeeded: the pipe closed with it.
    let _ = fs::File::from(failure).read_to_end(&mut failed);
    if let [_, message @ ..] = &failed[..] {
        kept = message.to_vec();
    }
    Ok(ExecResult { exit_code, output: kept, timed_out })
}
