//! Programs of the host's that finish a container's root: `createContainer` hooks (runtime-spec,
//! config.md, "POSIX-platform Hooks"). They run in the container's namespaces, before the root is
//! switched, and read the container's state from standard input.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::{Hook, Spec};

use crate::sys;

/// For a hook that names no time of its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of what a hook that fails has written.
const MOST_WORDS: u64 = 1024;

fn hooks(spec: &Spec) -> &[Hook] {
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.create_container().as_ref());
    hooks.map_or(&[], Vec::as_slice)
}

/// Hooks expect a bundle: a folder with the spec as config.json, and the root.
pub(crate) fn write_bundle(dir: &Path, spec: &Spec) -> Result<(), String> {
    if hooks(spec).is_empty() {
        return Ok(());
    }
    let path = dir.join("config.json");
    let mut value = serde_json::to_value(spec).map_err(|error| error.to_string())?;
    value["root"]["path"] = dir.join("rootfs").display().to_string().into();
    fs::write(&path, value.to_string())
        .map_err(|error| format!("write {}: {error}", path.display()))
}

/// Runs them one after the other; the first that fails ends it.
pub(super) fn run(dir: &Path, spec: &Spec) -> Result<(), String> {
    let hooks = hooks(spec);
    if hooks.is_empty() {
        return Ok(());
    }
    // As the host sees it: /proc is still the host's.
    let pid = fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse::<i32>().ok());
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    let state = serde_json::json!({
        "ociVersion": "1.1.0", "id": id, "status": "creating", "pid": pid, "bundle": dir,
    });
    for hook in hooks {
        run_one(hook, &state.to_string())
            .map_err(|error| format!("hook {}: {error}", hook.path().display()))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &str) -> Result<(), String> {
    let say = |error: std::io::Error| error.to_string();
    let args = hook.args().clone().unwrap_or_default();
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    let variables = hook.env().clone().unwrap_or_default();
    let mut child = command
        .env_clear()
        .envs(variables.iter().filter_map(|entry| entry.split_once('=')))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(say)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not want to know closes it.
        let _ = stdin.write_all(state.as_bytes());
    }
    let patience = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    let patience = patience.map_or(PATIENCE, Duration::from_secs);
    let handle = sys::pidfd_open(child.id() as libc::pid_t).map_err(say)?;
    let mut ended = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let in_time = poll(&mut ended, timeout).map_err(|error| say(error.into()))? > 0;
    if !in_time {
        // It may end just now.
        let _ = child.kill();
    }
    let status = child.wait().map_err(say)?;
    if !in_time {
        return Err("it took too long".to_owned());
    }
    if status.success() {
        return Ok(());
    }
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        // What can be read of them is better than none.
        let _ = stderr.take(MOST_WORDS).read_to_string(&mut words);
    }
    Err(format!("{status}: {}", words.trim()))
}
