//! A container's first process, from its birth in new namespaces to the exec of its command.
//!
//! It runs in the child that the shim cloned. It sets everything up, says so, waits for the word
//! to start, and execs. Whatever fails is told to the shim over a pipe; the pipe closing on exec
//! is the good news.

mod copy;
pub(crate) mod mounts;
pub(crate) mod process;
pub(crate) mod reaper;
pub(crate) mod user;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};

use crate::plan::Plan;
use crate::sys;
use process::{ExecFailure, Prepared};

/// Set-up is done; the shim answers with [`START`].
pub(crate) const READY: u8 = b'R';
/// An error follows: its text to the end.
pub(crate) const FAILED: u8 = b'F';
/// The command could not be executed: exit code, then the text to the end.
pub(crate) const EXEC_FAILED: u8 = b'X';
/// The word to go on.
pub(crate) const START: u8 = b'S';

/// Never returns. `words` come from the shim, `report` goes to it.
pub(crate) fn run(dir: &Path, words: OwnedFd, report: OwnedFd) -> ! {
    let mut words = File::from(words);
    let mut report = File::from(report);
    let prepared = match prepare(dir, &mut words) {
        Ok(prepared) => prepared,
        Err(message) => fail(&mut report, &[FAILED], &message),
    };
    let mut word = [0];
    let told = report.write_all(&[READY]).and_then(|()| words.read_exact(&mut word));
    if told.is_err() || word[0] != START {
        // The shim is gone or has been told to give up: nobody to report to.
        sys::exit_now(1);
    }
    let ExecFailure { code, message } = prepared.exec();
    fail(&mut report, &[EXEC_FAILED, code], &message)
}

fn fail(report: &mut File, kind: &[u8], message: &str) -> ! {
    // With the shim gone there is nobody left to tell.
    let _ = report.write_all(kind).and_then(|()| report.write_all(message.as_bytes()));
    sys::exit_now(1)
}

fn prepare(dir: &Path, words: &mut File) -> Result<Prepared, String> {
    let say = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    // The shim has put this process into its cgroups when the first byte comes.
    let mut word = [0];
    words.read_exact(&mut word).map_err(|error| format!("no word from the shim: {error}"))?;
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(say("new cgroup namespace"))?;
    nix::unistd::setsid().map_err(say("new session"))?;
    let path = Plan::path(dir);
    let text = fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let plan: Plan =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if let Some(hostname) = plan.spec.hostname() {
        nix::unistd::sethostname(hostname).map_err(say("set the host name"))?;
    }
    mounts::set_up(dir, &plan)?;
    set_sysctls(&plan)?;
    mounts::protect(&plan)?;
    process::prepare(&plan)
}

fn set_sysctls(plan: &Plan) -> Result<(), String> {
    let sysctls = plan.spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    for (name, value) in sysctls.into_iter().flatten() {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&path, value).map_err(|error| format!("sysctl {name}={value}: {error}"))?;
    }
    Ok(())
}
