//! A container's first process, from its birth in new namespaces to the exec of its command.
//!
//! It runs in the child that the shim cloned. It sets everything up, says so, waits for the word
//! to start, and execs. Whatever fails is told to the shim over a pipe; the pipe closing on exec
//! is the good news.

mod copy;
pub(crate) mod hooks;
pub(crate) mod mounts;
mod ownership;
pub(crate) mod process;
pub(crate) mod reaper;
pub(crate) mod terminal;
pub(crate) mod user;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sched::{CloneFlags, setns, unshare};

use crate::plan::Plan;
use crate::shim::Settings;
use crate::shim::user_namespace::UserNamespace;
use crate::sys;
use process::{ExecFailure, Prepared};
use terminal::Terminal;

/// Set-up is done; the shim answers with [`START`].
pub(crate) const READY: u8 = b'R';
/// An error follows: its text to the end.
pub(crate) const FAILED: u8 = b'F';
/// The command could not be executed: exit code, then the text to the end.
pub(crate) const EXEC_FAILED: u8 = b'X';
/// The word to go on.
pub(crate) const START: u8 = b'S';

/// Never returns. `words` come from the shim, `report` goes to it.
pub(crate) fn run(
    settings: &Settings,
    words: OwnedFd,
    mut report: UnixStream,
    user: Option<UserNamespace>,
) -> ! {
    sys::set_name(c"init");
    sys::set_command_line("init");
    let mut words = File::from(words);
    let (prepared, terminal) = match prepare(settings, user) {
        Ok(prepared) => prepared,
        Err(message) => fail(&mut report, &[FAILED], &message),
    };
    let master = terminal.as_ref().map(|terminal| terminal.master.as_fd());
    let mut word = [0];
    let told =
        sys::send_descriptor(&report, READY, master).and_then(|()| words.read_exact(&mut word));
    if told.is_err() || word[0] != START {
        // The shim is gone or has been told to give up: nobody to report to.
        sys::exit_now(1);
    }
    if let Some(Terminal { master, slave }) = terminal {
        drop(master);
        if let Err(message) = terminal::take_over(slave) {
            fail(&mut report, &[EXEC_FAILED, 126], &message);
        }
    }
    let ExecFailure { code, message } = prepared.exec();
    fail(&mut report, &[EXEC_FAILED, code], &message)
}

fn fail(report: &mut UnixStream, kind: &[u8], message: &str) -> ! {
    // With the shim gone there is nobody left to tell.
    let _ = report.write_all(kind).and_then(|()| report.write_all(message.as_bytes()));
    sys::exit_now(1)
}

fn prepare(
    settings: &Settings,
    user: Option<UserNamespace>,
) -> Result<(Prepared, Option<Terminal>), String> {
    let say = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    let dir = &settings.dir;
    settings.enter_v1_groups()?;
    nix::unistd::setsid().map_err(say("new session"))?;
    let path = Plan::path(dir);
    let text = fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let plan: Plan =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if plan.cgroup_namespace {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(say("new cgroup namespace"))?;
    }
    for namespace in &plan.join {
        let entered = File::open(namespace).and_then(|file| Ok(setns(file, CloneFlags::empty())?));
        entered.map_err(|error| format!("enter {}: {error}", namespace.display()))?;
    }
    for namespace in user.iter().flat_map(|user| &user.others) {
        setns(namespace, CloneFlags::empty()).map_err(say("enter a namespace of its own"))?;
    }
    if let Some(hostname) = plan.spec.hostname() {
        nix::unistd::sethostname(hostname).map_err(say("set the host name"))?;
    }
    if let Some(domain) = plan.spec.domainname() {
        sys::set_domain_name(domain).map_err(|error| format!("set the domain name: {error}"))?;
    }
    mounts::set_up(dir, &plan, user.as_ref().map(|user| user.user.as_fd()))?;
    set_sysctls(&plan)?;
    let prepared = process::prepare(&plan)?;
    let terminal = match plan.terminal {
        true => Some(open_console(&plan, prepared.uid())?),
        false => None,
    };
    mounts::protect(&plan)?;
    if let Some(user) = user {
        enter_user_namespace(user.user.as_fd())?;
        // Its mounts belong to it from here on: what the host's root has made is locked in place.
        unshare(CloneFlags::CLONE_NEWNS).map_err(say("make the mounts its own"))?;
    }
    Ok((prepared, terminal))
}

/// Makes this process root of a user namespace, and nobody outside. The handle is the namespace's
/// file or a process's that is in it.
pub(crate) fn enter_user_namespace(handle: BorrowedFd<'_>) -> Result<(), String> {
    let say = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    setns(handle, CloneFlags::CLONE_NEWUSER).map_err(say("enter the user namespace"))?;
    let become_root = || {
        nix::unistd::setgroups(&[])?;
        let (root, group) = (nix::unistd::Uid::from_raw(0), nix::unistd::Gid::from_raw(0));
        nix::unistd::setresgid(group, group, group)?;
        nix::unistd::setresuid(root, root, root)
    };
    become_root().map_err(say("become root of the user namespace"))
}

/// The container's terminal, which also stands at /dev/console (runtime-spec, "process.terminal").
fn open_console(plan: &Plan, uid: u32) -> Result<Terminal, String> {
    let size = plan.spec.process().as_ref().and_then(|process| process.console_size());
    let size = size.map_or((0, 0), |size| (size.width() as u16, size.height() as u16));
    let terminal = terminal::open(size)?;
    let say = |error: std::io::Error| format!("set /dev/console up: {error}");
    let uid = plan.ids.map_or(uid, |ids| ids.outside((uid, 0)).0);
    nix::unistd::fchown(&terminal.slave, Some(nix::unistd::Uid::from_raw(uid)), None)
        .map_err(|error| say(error.into()))?;
    mounts::cover_file("/dev/console", &terminal.slave).map_err(say)?;
    Ok(terminal)
}

fn set_sysctls(plan: &Plan) -> Result<(), String> {
    let sysctls = plan.spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    for (name, value) in sysctls.into_iter().flatten() {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::write(&path, value).map_err(|error| format!("sysctl {name}={value}: {error}"))?;
    }
    Ok(())
}
