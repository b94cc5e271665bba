//! A real agent on a host, and `ctl` to talk to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{Host, binary, hello_tar, until};

/// What a `ctl` call came to.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Its containers are killed and its folders removed when it is dropped.
pub struct Agent {
    pub host: Host,
    dir: tempfile::TempDir,
    process: Option<Child>,
    /// Those of other agents, from before.
    cgroups: Vec<PathBuf>,
    /// A disk of its own.
    mounted: Option<String>,
    /// Further flags of each start.
    flags: Vec<String>,
    /// And variables.
    environment: Vec<(String, String)>,
}

impl Agent {
    /// Starts it and waits until it answers.
    #[must_use]
    pub fn start() -> Self {
        let mut agent = Self::prepare();
        agent.restart();
        agent
    }

    /// A host and folders, without an agent yet.
    #[must_use]
    pub fn prepare() -> Self {
        Self::on(Host::new(), &[])
    }

    /// The same on a host that is there, to be started with these flags too.
    #[must_use]
    pub fn on(host: Host, flags: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("shoal-test-").tempdir().unwrap();
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Self {
            host,
            dir,
            process: None,
            cgroups: cgroups(),
            mounted: None,
            flags,
            environment: Vec::new(),
        }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its socket for people.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir().join("run/shoal.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("agent.log")
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The agent's command line, with its folders.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.host.command(binary("agent").to_str().unwrap());
        command.arg("--data-dir").arg(self.dir().join("data"));
        command.arg("--run-dir").arg(self.dir().join("run"));
        if self.settings_path().exists() {
            command.arg("--config").arg(self.settings_path());
        }
        command.args(&self.flags);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn settings_path(&self) -> PathBuf {
        self.dir().join("agent.toml")
    }

    /// What its next start reads.
    pub fn settings(&self, text: &str) {
        fs::write(self.settings_path(), text).unwrap();
    }

    /// Gives its data folder a disk of that size.
    pub fn limit_data(&mut self, size: &str) {
        let data = self.dir().join("data");
        fs::create_dir(&data).unwrap();
        let size = format!("size={size}");
        let data = data.to_str().unwrap();
        let mut command = Command::new("mount");
        let status = command.args(["-t", "tmpfs", "-o", &size, "tmpfs", data]).status().unwrap();
        assert!(status.success());
        self.mounted = Some(data.to_owned());
    }

    /// Starts it in the same folders.
    pub fn restart(&mut self) {
        self.spawn();
        until(
            "the agent answers",
            || self.ctl(&["node", "ls"]),
            |output| output.code == 0 && output.stdout.contains("ready"),
        );
    }

    /// The same for a worker, which does not answer for the cluster.
    pub fn restart_worker(&mut self) {
        self.spawn();
        until("the worker answers", || self.ctl(&["ps"]), |output| output.code == 0);
    }

    /// Starts it in the same folders and does not wait.
    pub fn spawn_again(&mut self) {
        self.spawn();
    }

    /// What its next start is given, in place of what its last was.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    }

    /// Variables of its next start.
    pub fn set_environment(&mut self, variables: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.environment = variables.iter().map(owned).collect();
    }

    /// The running agent's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let child =
            self.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.process = Some(child);
    }

    /// As `kill -9` or `kill` does; waits until it is gone.
    pub fn end(&mut self, signal: &str) {
        let Some(mut process) = self.process.take() else { return };
        let pid = process.id().to_string();
        Command::new("kill").args([signal, &pid]).status().unwrap();
        process.wait().unwrap();
    }

    #[must_use]
    pub fn ctl(&self, args: &[&str]) -> Output {
        let socket = format!("unix://{}", self.dir().join("run/shoal.sock").display());
        let output = Command::new(binary("ctl"))
            .args(["--host", &socket])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A call that must succeed.
    pub fn must(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert_eq!(output.code, 0, "ctl {args:?}: {output:#?}\n{}", self.log());
        output.stdout
    }

    /// The example's image.
    pub fn import_hello(&self) {
        let tar = hello_tar();
        let cmd = r#"["/hello","web"]"#;
        self.must(&["image", "import", tar.to_str().unwrap(), "shoal-hello", "--cmd", cmd]);
    }

    /// A small system: busybox with a link for each of its programs.
    pub fn import_busybox(&self) {
        let root = self.dir().join("busybox");
        for folder in ["bin", "etc", "root", "tmp"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        let programs = Command::new("/bin/busybox").arg("--list").output().unwrap();
        for program in String::from_utf8_lossy(&programs.stdout).lines() {
            // It is in the list itself.
            let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(program));
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/tmp:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
        let tar = self.dir().join("busybox.tar");
        let mut command = Command::new("tar");
        let packed = command.arg("-cf").arg(&tar).arg("-C").arg(&root).arg(".").status().unwrap();
        assert!(packed.success());
        self.must(&["image", "import", tar.to_str().unwrap(), "busybox", "--cmd", "[\"sh\"]"]);
    }

    /// Writes a compose file and returns its path.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Tasks of a stack that run: their ids, pids and names.
    #[must_use]
    pub fn running(&self, stack: &str) -> Vec<(String, u64, String)> {
        let output = self.ctl(&["stack", "ps", stack, "--format", "json"]);
        let tasks: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let mut running: Vec<(String, u64, String)> = tasks
            .as_array()
            .into_iter()
            .flatten()
            .filter(|task| task["status"]["state"] == "TASK_STATE_RUNNING")
            .map(|task| {
                let text = |value: &Value| value.as_str().unwrap_or("1").to_owned();
                let name = format!("{}.{}", text(&task["serviceName"]), text(&task["slot"]));
                let pid = task["status"]["pid"].as_u64().unwrap_or(0);
                (text(&task["id"]), pid, name)
            })
            .collect();
        running.sort();
        running
    }

    /// What the agent has left on the host: processes, cgroups, network.
    #[must_use]
    pub fn traces(&self) -> String {
        let own = self.dir().to_string_lossy().into_owned();
        let shims = processes(&own).len();
        let run = self.dir().join("run/containers");
        let containers = fs::read_dir(run).map_or(0, Iterator::count);
        let cgroups: Vec<PathBuf> =
            cgroups().into_iter().filter(|group| !self.cgroups.contains(group)).collect();
        let host = self.host.traces();
        format!("shims: {shims}\ncontainers: {containers}\ncgroups: {cgroups:?}\n{host}")
    }

    /// A reboot, as far as one can have it: no process and no run folder is left, the rest stays.
    pub fn reboot(&mut self) {
        self.end("-9");
        self.kill_containers();
        self.unmount_payloads();
        fs::remove_dir_all(self.dir().join("run")).unwrap();
        self.host = Host::new();
        self.restart();
    }

    /// The tmpfs for secrets, where an agent that was killed has left it.
    fn unmount_payloads(&self) {
        let payloads = self.dir().join("run/payloads");
        if payloads.exists() {
            let _ = Command::new("umount").arg("-l").arg(payloads).output();
        }
    }

    fn kill_containers(&self) {
        let own = self.dir().to_string_lossy().into_owned();
        for pid in processes(&own) {
            Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        }
        until("no shim is left", || processes(&own), Vec::is_empty);
    }
}

/// Groups that agents have made for their containers, in all hierarchies.
fn cgroups() -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let roots = hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
    let own = |path: &PathBuf| {
        path.is_dir()
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("shoal-"))
    };
    let groups = roots.flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
    groups.map(|entry| entry.path()).filter(own).collect()
}

/// Shims whose folder is below that one.
fn processes(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let found = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command);
        (command.starts_with("shoal-shim") && command.contains(folder)).then_some(pid)
    });
    found.collect()
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
        // Containers first by the agent itself, which also takes their cgroups away.
        for container in self.ctl(&["ps", "-aq", "--no-trunc"]).stdout.lines() {
            let _ = self.ctl(&["rm", "-f", container]);
        }
        for stack in self.ctl(&["--stale", "stack", "ls", "-q"]).stdout.lines() {
            let _ = self.ctl(&["stack", "rm", stack]);
        }
        for service in self.ctl(&["--stale", "service", "ls", "-q"]).stdout.lines() {
            let _ = self.ctl(&["service", "rm", service]);
        }
        self.end("-TERM");
        self.kill_containers();
        self.unmount_payloads();
        for group in cgroups().iter().filter(|group| !self.cgroups.contains(group)) {
            for entry in fs::read_dir(group).into_iter().flatten().flatten() {
                // Files go with their folder.
                let _ = fs::remove_dir(entry.path());
            }
            let _ = fs::remove_dir(group);
        }
        if let Some(data) = &self.mounted {
            let _ = Command::new("umount").args(["-l", data]).status();
        }
    }
}
