//! A user namespace, and the namespaces that it is to own, made by a short-lived child: what a
//! process makes belongs to the user namespace that it is in, and init must stay the host's root
//! until its mounts are done.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SIGKILL, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::plan::IdRange;
use crate::sys::{self, Forked};

/// The namespaces, held by their files.
pub(crate) struct UserNamespace {
    pub(crate) user: File,
    /// Those that it owns.
    pub(crate) others: Vec<File>,
}

const OWNED: [(CloneFlags, &str); 3] = [
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
];

/// Those of `namespaces` (clone flags) that a user namespace can own here.
pub(super) fn owned(namespaces: u64) -> u64 {
    OWNED.iter().fold(0, |set, (flag, _)| set | (namespaces & flag.bits() as u64))
}

/// Makes the user namespace with the ids of `range`, and in it `namespaces` (clone flags).
pub(super) fn make(range: IdRange, namespaces: u64) -> Result<UserNamespace, String> {
    let say = |error: std::io::Error| format!("make a user namespace: {error}");
    let (mut here, there) = UnixStream::pair().map_err(say)?;
    let child = match sys::fork().map_err(say)? {
        Forked::Child => {
            drop(here);
            be_in_it(there, namespaces)
        }
        Forked::Parent(pid) => pid,
    };
    drop(there);
    let made = collect(&mut here, child, range, namespaces);
    // It waits for this, or has ended.
    let _ = kill(Pid::from_raw(child), SIGKILL);
    let _ = waitpid(Pid::from_raw(child), None);
    made
}

/// The child: one byte for each step that is done, else the step's error as a number.
fn be_in_it(mut parent: UnixStream, namespaces: u64) -> ! {
    let tell = |parent: &mut UnixStream, done: nix::Result<()>| {
        let code = done.map_or_else(|error| error as i32, |()| 0);
        if parent.write_all(&code.to_ne_bytes()).is_err() || code != 0 {
            sys::exit_now(1);
        }
    };
    tell(&mut parent, unshare(CloneFlags::CLONE_NEWUSER));
    let mut word = [0];
    if parent.read_exact(&mut word).is_err() {
        sys::exit_now(1);
    }
    let flags = CloneFlags::from_bits_truncate(namespaces as i32);
    tell(&mut parent, unshare(flags));
    // Held until the parent has opened all.
    let _ = parent.read_exact(&mut word);
    sys::exit_now(0)
}

fn collect(
    child: &mut UnixStream,
    pid: libc::pid_t,
    range: IdRange,
    namespaces: u64,
) -> Result<UserNamespace, String> {
    let hear = |child: &mut UnixStream, what: &str| {
        let mut code = [0; 4];
        child.read_exact(&mut code).map_err(|error| format!("{what}: {error}"))?;
        match i32::from_ne_bytes(code) {
            0 => Ok(()),
            code => Err(format!("{what}: {}", std::io::Error::from_raw_os_error(code))),
        }
    };
    hear(child, "make a user namespace")?;
    for (file, first) in [("uid_map", range.uid), ("gid_map", range.gid)] {
        fs::write(format!("/proc/{pid}/{file}"), format!("0 {first} {}\n", range.count))
            .map_err(|error| format!("set the {file} of a user namespace: {error}"))?;
    }
    child.write_all(&[1]).map_err(|error| format!("make a user namespace: {error}"))?;
    hear(child, "make namespaces in a user namespace")?;
    let open = |name: &str| {
        let path = format!("/proc/{pid}/ns/{name}");
        File::open(&path).map_err(|error| format!("open {path}: {error}"))
    };
    let others = OWNED.iter().filter(|(flag, _)| namespaces & flag.bits() as u64 != 0);
    Ok(UserNamespace {
        user: open("user")?,
        others: others.map(|(_, name)| open(name)).collect::<Result<_, _>>()?,
    })
}
