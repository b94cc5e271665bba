//! From a process in its namespaces to the command: user, limits, privileges, exec. Init and
//! exec both come through here, so an exec has no more rights than the container.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{PosixRlimitType, Process};

use super::user::{self, Identity};
use crate::plan::{ExecRequest, Plan};
use crate::seccomp::Program;
use crate::sys;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that could not be executed.
pub(crate) struct ExecFailure {
    /// 126 or 127.
    pub(crate) code: u8,
    pub(crate) message: String,
}

/// Ready for exec but for what is given up last.
pub(crate) struct Prepared {
    args: Vec<String>,
    env: Vec<String>,
    cwd: PathBuf,
    identity: Identity,
    capabilities: u64,
    last_capability: u32,
    no_new_privileges: bool,
    seccomp: Option<Program>,
    init: bool,
    apparmor: String,
    label: String,
}

/// Reads the container's own command from its plan.
pub(crate) fn prepare(plan: &Plan) -> Result<Prepared, String> {
    let process = plan.spec.process().as_ref().ok_or("the spec names no process")?;
    let args = process.args().clone().unwrap_or_default();
    let env = process.env().clone().unwrap_or_default();
    let cwd = process.cwd().clone();
    build(plan, process, args, env, cwd, &plan.user, plan.init)
}

/// Reads a further command for a container that runs.
pub(crate) fn prepare_exec(plan: &Plan, request: &ExecRequest) -> Result<Prepared, String> {
    let process = plan.spec.process().as_ref().ok_or("the spec names no process")?;
    let mut env = process.env().clone().unwrap_or_default();
    for entry in &request.env {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        env.retain(|own| own.split_once('=').is_none_or(|(own, _)| own != name));
        env.push(entry.clone());
    }
    let own_cwd = process.cwd().clone();
    let cwd = if request.cwd.is_empty() { own_cwd } else { PathBuf::from(&request.cwd) };
    let user = if request.user.is_empty() { &plan.user } else { &request.user };
    let mut prepared = build(plan, process, request.args.clone(), env, cwd, user, false)?;
    if request.privileged {
        prepared.capabilities = u64::MAX;
        prepared.seccomp = None;
        prepared.no_new_privileges = false;
    }
    Ok(prepared)
}

fn build(
    plan: &Plan,
    process: &Process,
    args: Vec<String>,
    mut env: Vec<String>,
    cwd: PathBuf,
    user: &str,
    init: bool,
) -> Result<Prepared, String> {
    if args.is_empty() {
        return Err("no command: neither the image nor the service names one".to_owned());
    }
    let identity = user::resolve(user, &plan.additional_groups)?;
    let has = |env: &[String], name: &str| {
        env.iter().any(|entry| entry.split_once('=').is_some_and(|(key, _)| key == name))
    };
    if !has(&env, "HOME") {
        env.push(format!("HOME={}", identity.home));
    }
    if !has(&env, "PATH") {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    for limit in process.rlimits().iter().flatten() {
        sys::set_rlimit(resource(limit.typ()), limit.soft(), limit.hard())
            .map_err(|error| format!("set limit {:?}: {error}", limit.typ()))?;
    }
    if let Some(adjust) = process.oom_score_adj() {
        fs::write("/proc/self/oom_score_adj", adjust.to_string())
            .map_err(|error| format!("set oom_score_adj {adjust}: {error}"))?;
    }
    Ok(Prepared {
        args,
        env,
        cwd,
        identity,
        capabilities: plan.capabilities,
        last_capability: plan.last_capability,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp: plan.seccomp.clone(),
        init,
        apparmor: plan.apparmor.clone(),
        label: plan.label.clone(),
    })
}

impl Prepared {
    /// Whom it will run as.
    pub(crate) fn uid(&self) -> u32 {
        self.identity.uid
    }

    /// Confinement begins with the exec.
    fn confine(&self) -> std::io::Result<()> {
        if !self.apparmor.is_empty() {
            let profile = format!("exec {}", self.apparmor);
            let own = Path::new("/proc/self/attr/apparmor/exec");
            let file = if own.exists() { own } else { Path::new("/proc/self/attr/exec") };
            fs::write(file, profile)?;
        }
        if !self.label.is_empty() {
            fs::write("/proc/self/attr/exec", &self.label)?;
        }
        Ok(())
    }

    /// Gives up what the command must not have and becomes it. Returns only what went wrong.
    pub(crate) fn exec(self) -> ExecFailure {
        let name = self.args[0].clone();
        self.become_command().unwrap_or_else(|failure| match failure {
            Failure::NotFound => ExecFailure {
                code: 127,
                message: match name.contains('/') {
                    true => format!("exec: {name:?}: no such file or directory in the image"),
                    false => format!("exec: {name:?}: executable file not found in $PATH"),
                },
            },
            Failure::Denied(why) => {
                ExecFailure { code: 126, message: format!("exec: {name:?}: {why}") }
            }
        })
    }

    fn become_command(self) -> Result<ExecFailure, Failure> {
        let denied = |what: &str| {
            let what = what.to_owned();
            move |error: Errno| Failure::Denied(format!("{what}: {}", error.desc()))
        };
        self.enter_cwd()?;
        let program = self.find()?;
        for capability in
            (0..=self.last_capability).filter(|n| self.capabilities & (1u64 << n) == 0)
        {
            sys::prctl(libc::PR_CAPBSET_DROP, capability.into())
                .map_err(|error| Failure::Denied(format!("drop a capability: {error}")))?;
        }
        self.confine().map_err(|error| Failure::Denied(format!("confine it: {error}")))?;
        let identity = &self.identity;
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        sys::prctl(libc::PR_SET_KEEPCAPS, 1).map_err(|e| Failure::Denied(e.to_string()))?;
        setgroups(&groups).map_err(denied("set groups"))?;
        setresgid(gid, gid, gid).map_err(denied("set the group"))?;
        setresuid(uid, uid, uid).map_err(denied("set the user"))?;
        let permitted = sys::permitted_capabilities()
            .map_err(|error| Failure::Denied(format!("read capabilities: {error}")))?;
        let kept = if identity.uid == 0 { self.capabilities & permitted } else { 0 };
        // A set-uid program may regain what the bounding set leaves, as in Docker.
        let filter_needs_admin = self.seccomp.is_some() && !self.no_new_privileges;
        let admin = 1u64 << 21;
        let before = if filter_needs_admin { kept | admin } else { kept };
        sys::set_capabilities(before, before, 0)
            .map_err(|error| Failure::Denied(format!("set capabilities: {error}")))?;
        if self.no_new_privileges {
            sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(|e| Failure::Denied(e.to_string()))?;
        }
        // Changing the user clears it, so it is set here: with the shim gone, the container goes.
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as _)
            .map_err(|error| Failure::Denied(error.to_string()))?;
        let args: Vec<CString> = strings(&self.args);
        let env: Vec<CString> = strings(&self.env);
        sys::close_from_on_exec(3).map_err(|e| Failure::Denied(e.to_string()))?;
        if let Some(filter) = &self.seccomp {
            filter.load().map_err(|error| Failure::Denied(format!("load seccomp: {error}")))?;
        }
        if before != kept {
            sys::set_capabilities(kept, kept, 0)
                .map_err(|error| Failure::Denied(format!("set capabilities: {error}")))?;
        }
        if self.init {
            // With no more rights than the command has, and under its filter.
            super::reaper::fork_command();
        }
        sys::reset_signals();
        match nix::unistd::execve(&program, &args, &env) {
            Ok(never) => match never {},
            Err(Errno::ENOENT) => Err(Failure::NotFound),
            Err(Errno::ENOEXEC) => {
                Err(Failure::Denied("not a program this machine can run (exec format)".to_owned()))
            }
            Err(error) => Err(Failure::Denied(error.desc().to_lowercase())),
        }
    }

    /// The working directory is made when the image lacks it, as Docker does.
    fn enter_cwd(&self) -> Result<(), Failure> {
        let cwd = if self.cwd.as_os_str().is_empty() { Path::new("/") } else { &self.cwd };
        // An existing one is fine; any other error shows when it is entered.
        let _ = fs::create_dir_all(cwd);
        std::env::set_current_dir(cwd).map_err(|error| {
            Failure::Denied(format!("working directory {}: {error}", cwd.display()))
        })
    }

    /// The file to execute: as given when it has a slash, else the first in the container's PATH.
    fn find(&self) -> Result<CString, Failure> {
        let name = &self.args[0];
        let c_string = |path: &Path| {
            use std::os::unix::ffi::OsStrExt as _;
            CString::new(path.as_os_str().as_bytes())
                .map_err(|_| Failure::Denied("the name has a zero byte".to_owned()))
        };
        if name.contains('/') {
            return match executable(Path::new(name)) {
                Ok(()) => c_string(Path::new(name)),
                Err(failure) => Err(failure),
            };
        }
        let path = self.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
        let mut failure = Failure::NotFound;
        for folder in path.unwrap_or(DEFAULT_PATH).split(':').filter(|folder| !folder.is_empty()) {
            let candidate = Path::new(folder).join(name);
            match executable(&candidate) {
                Ok(()) => return c_string(&candidate),
                Err(Failure::NotFound) => {}
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }
}

enum Failure {
    NotFound,
    Denied(String),
}

fn executable(path: &Path) -> Result<(), Failure> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Failure::Denied("permission denied".to_owned()));
        }
        Err(_) => return Err(Failure::NotFound),
    };
    if found.is_dir() {
        return Err(Failure::Denied("is a directory".to_owned()));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(Failure::Denied("permission denied: it is not executable".to_owned()));
    }
    Ok(())
}

fn strings(texts: &[String]) -> Vec<CString> {
    // A zero byte can't be passed on; what stands before it is.
    let cut = |text: &String| text.split('\0').next().unwrap_or_default().to_owned();
    texts.iter().filter_map(|text| CString::new(cut(text)).ok()).collect()
}

fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}
