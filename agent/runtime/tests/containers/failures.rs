//! Each step of a container's set-up is made to fail, one after the other, from outside: strace
//! returns an error instead of the system call's result. After every one, nothing may remain.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use shoal_runtime::{IdRange, Namespaces};

use super::BUSYBOX;
use super::fixture::{Fixture, cgroups_named, open, shims_in, until};

/// How this program is told to make one container and end.
const ONE: &str = "--one-container";
const ID: &str = "one";

/// What set-up is made of. Calls that cleaning up needs are left out: when those fail too, things
/// do remain.
const CALLS: &[&str] = &[
    "mkdir",
    "mkdirat",
    "socketpair",
    "clone",
    "clone3",
    "setsid",
    "pipe2",
    "signalfd4",
    "bind",
    "listen",
    "unshare",
    "setns",
    "sethostname",
    "mount",
    "umount2",
    "open_tree",
    "mount_setattr",
    "move_mount",
    "openat2",
    "mknodat",
    "symlinkat",
    "fchmodat",
    "fchownat",
    "fchown",
    "fchdir",
    "pivot_root",
    "setgroups",
    "setresgid",
    "setresuid",
    "capget",
    "capset",
    "seccomp",
    "close_range",
    "sendmsg",
    "recvmsg",
    "execve",
    "ioctl",
];

/// Makes, starts and removes one container in the folder, when this process is for that.
pub(super) fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args().skip_while(|arg| arg != ONE).skip(1);
    let (dir, parent, kind) = (args.next()?, args.next()?, args.next()?);
    let fixture = Fixture::at(Path::new(&dir), &parent);
    let mut request = fixture.request(ID, &["true"], |_| {});
    if kind == "remapped" {
        let ids = IdRange { uid: 1_878_982_656, gid: 1_878_982_656, count: 65_536 };
        request.namespaces = Namespaces { user: Some(ids), ..Namespaces::default() };
        request.streams.terminal = true;
    }
    let made = fixture.runtime.create(ID, request).and_then(|_| fixture.runtime.start(ID));
    let code = match made {
        Ok(()) => 0,
        Err(error) => {
            println!("error: {error}");
            3
        }
    };
    // What was made and could not be started is removed by whoever asked for it.
    fixture.runtime.delete(ID).unwrap();
    Some(ExitCode::from(code))
}

pub(super) fn every_failing_step_leaves_nothing(fixture: &Fixture) {
    if !Path::new("/usr/bin/strace").exists() {
        let required = std::env::var_os("SHOAL_REQUIRE_PRIVILEGED").is_some();
        assert!(!required, "strace is not installed");
        return println!("SKIPPED: strace");
    }
    assert!(Path::new(BUSYBOX).exists());
    let mut steps = 0;
    for kind in ["plain", "remapped"] {
        for call in CALLS {
            for nth in 1.. {
                if !fails(fixture, kind, call, nth) {
                    break;
                }
                steps += 1;
            }
        }
    }
    // What the traced processes share; those that were ended early have left it.
    open(fixture.dir.path(), &format!("{}-one", fixture.parent)).close();
    assert!(cgroups_named(&format!("{}-one", fixture.parent)).is_empty());
    println!("{steps} failures, one at a time");
    assert!(steps > 100, "only {steps} steps were made to fail");
}

/// Whether there was an nth such call in any of the processes.
fn fails(fixture: &Fixture, kind: &str, call: &str, nth: u32) -> bool {
    let dir = fixture.dir.path();
    let trace = dir.join("trace");
    let parent = format!("{}-one", fixture.parent);
    let output = Command::new("timeout")
        .args(["-s", "KILL", "20", "strace", "-f", "--seccomp-bpf", "-qq", "-o"])
        .arg(&trace)
        .args(["-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:error=EIO:when={nth}")])
        .arg(std::env::current_exe().unwrap())
        .args([OsStr::new(ONE), dir.as_os_str(), OsStr::new(&parent), OsStr::new(kind)])
        .output()
        .unwrap();
    let traced = fs::read_to_string(&trace).unwrap_or_default();
    let words = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let step = format!("{kind}: {call} {nth}: {words}");
    // The traced program itself could not be run: nothing was tried.
    let nothing_ran = output.status.code().is_none_or(|code| code == 1);
    let injected = traced.contains("(INJECTED)");
    assert!(injected || output.status.success(), "{step}");
    if output.status.code() == Some(3) {
        assert!(words.len() > "error: \n".len(), "it says why: {step}");
    }
    let what = format!("nothing is left after {step}");
    let run = dir.join("run").join(ID);
    until(&what, || shims_in(dir).is_empty() && !run.exists());
    let groups: Vec<_> =
        cgroups_named(&parent).iter().map(|group| group.join(ID)).filter(|g| g.exists()).collect();
    assert!(groups.is_empty(), "{what}: {groups:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&dir.display().to_string()), "{what}: {mounts}");
    injected && !(nothing_ran && nth > 3)
}
