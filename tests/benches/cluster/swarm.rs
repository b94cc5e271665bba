//! A swarm of three managers on a switch of its own, started by hand.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shoal_tests::measure::wait;
use shoal_tests::{Host, Switch, hello_tar};

use crate::{TASKS, Times};

pub(crate) const IMAGE: &str = "192.0.2.11:5999/hello:latest";

pub(crate) struct Swarm {
    switch: Switch,
    hosts: Vec<Host>,
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Swarm {
    /// None where docker is not installed, or where a swarm of several does not come up.
    pub(crate) fn start() -> Option<Self> {
        let needed = ["/usr/sbin/dockerd", "/usr/bin/docker-registry"];
        if std::env::var_os("SHOAL_BENCH_ALONE").is_some()
            || !needed.iter().all(|path| Path::new(path).exists())
        {
            println!("docker is not installed: no figures beside it");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().unwrap();
        let switch = Switch::new();
        let hosts = (1..=3).map(|number| switch.host(number)).collect();
        let mut swarm = Self { switch, hosts, dir, children: Vec::new() };
        swarm.start_registry();
        for number in 0..3 {
            swarm.start_daemon(number);
        }
        let tar = hello_tar();
        let cmd = r#"CMD ["/hello","counter"]"#;
        swarm.must(0, &["import", "--change", cmd, tar.to_str().unwrap(), IMAGE]);
        swarm.must(0, &["push", "-q", IMAGE]);
        swarm.must(0, &["swarm", "init", "--advertise-addr", "192.0.2.11"]);
        let token = swarm.must(0, &["swarm", "join-token", "-q", "manager"]);
        for number in 1..3 {
            let address = format!("192.0.2.{}", 11 + number);
            let join = [
                "swarm",
                "join",
                "--advertise-addr",
                &address,
                "--token",
                token.trim(),
                "192.0.2.11:2377",
            ];
            swarm.must(number, &join);
        }
        let tasks = TASKS.to_string();
        swarm.must(
            0,
            &[
                "service",
                "create",
                "-d",
                "--name",
                "web",
                "--endpoint-mode",
                "dnsrr",
                "--replicas",
                &tasks,
                "--stop-grace-period",
                "0s",
                IMAGE,
            ],
        );
        wait("docker's tasks run", || swarm.places(0).len() == TASKS);
        println!(
            "beside docker {}",
            swarm.must(0, &["version", "--format", "{{.Server.Version}}"]).trim()
        );
        Some(swarm)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn spawn(&mut self, mut command: Command, log: &str) {
        let log = fs::File::create(self.path(log)).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.children.push(command.spawn().unwrap());
    }

    fn start_registry(&mut self) {
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 192.0.2.11:5999}}\n",
            self.path("registry"),
        );
        fs::write(self.path("registry.yml"), config).unwrap();
        let mut command = self.hosts[0].command("docker-registry");
        command.args(["serve", &self.path("registry.yml")]);
        self.spawn(command, "registry.log");
    }

    fn start_daemon(&mut self, number: usize) {
        let folder = self.path(&format!("d{number}"));
        fs::create_dir(&folder).unwrap();
        // Names are refused at once, as nobody answers there.
        fs::write(format!("{folder}/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        let script = format!(
            "mount --bind {folder}/resolv.conf /etc/resolv.conf && exec dockerd --data-root \
             {folder}/data --exec-root {folder}/exec --host unix://{folder}/docker.sock --pidfile \
             {folder}/pid --insecure-registry 192.0.2.11:5999 --log-level error"
        );
        let mut command = self.hosts[number].command("unshare");
        // Each has a name of its own.
        let script = format!("hostname d{number} && {script}");
        command.args(["-m", "-u", "sh", "-c", &script]);
        self.spawn(command, &format!("d{number}.log"));
        wait("dockerd answers", || self.docker(number, &["version"]).is_some());
    }

    pub(crate) fn docker(&self, number: usize, args: &[&str]) -> Option<String> {
        let socket = format!("unix://{}", self.path(&format!("d{number}/docker.sock")));
        let mut command = Command::new("timeout");
        command.args(["10", "docker", "--host", &socket]).args(args).stdin(Stdio::null());
        let output = command.output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn must(&self, number: usize, args: &[&str]) -> String {
        self.docker(number, args).unwrap_or_else(|| {
            let log = fs::read_to_string(self.path(&format!("d{number}.log"))).unwrap();
            panic!("docker {args:?}\n{log}")
        })
    }

    /// The node of each running task.
    fn places(&self, asked: usize) -> Vec<String> {
        let format = "{{.Node}} {{.CurrentState}}";
        let args =
            ["service", "ps", "web", "--filter", "desired-state=running", "--format", format];
        let text = self.docker(asked, &args).unwrap_or_default();
        let running = text.lines().filter(|line| line.contains(" Running"));
        running.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    }

    fn leader(&self, asked: usize) -> Option<usize> {
        let format = "{{.Hostname}} {{.ManagerStatus}}";
        let text = self.docker(asked, &["node", "ls", "--format", format])?;
        let line = text.lines().find(|line| line.ends_with("Leader"))?;
        line.strip_prefix('d')?.split(' ').next()?.parse().ok()
    }

    pub(crate) fn lose_leader(&self, times: &mut Times) {
        let mut leader = None;
        wait("one leads", || {
            leader = self.leader(0);
            leader.is_some()
        });
        let leader = leader.unwrap();
        let other = (leader + 1) % 3;
        let name = format!("d{leader}");
        if !self.places(other).contains(&name) {
            self.must(other, &["service", "scale", "-d", "web=0"]);
            wait("none run", || self.places(other).is_empty());
            self.must(other, &["service", "scale", "-d", &format!("web={TASKS}")]);
        }
        wait("all run", || self.places(other).len() == TASKS);
        let host = u8::try_from(leader).unwrap() + 1;
        self.switch.plug(host, false);
        let cut = Instant::now();
        while self.docker(other, &["node", "update", "--label-add", "key=value", &name]).is_none() {
            assert!(cut.elapsed() < Duration::from_secs(120));
        }
        times.written.push(cut.elapsed().as_secs_f64());
        wait("its tasks run elsewhere", || {
            let places = self.places(other);
            places.len() >= TASKS && places.iter().filter(|node| **node != name).count() >= TASKS
        });
        times.elsewhere.push(cut.elapsed().as_secs_f64());
        self.switch.plug(host, true);
        let healed = Instant::now();
        wait("its containers are gone", || {
            self.docker(leader, &["ps", "-q"]).is_some_and(|text| text.is_empty())
        });
        times.gone.push(healed.elapsed().as_secs_f64());
        let _ = self.docker(other, &["node", "update", "--label-rm", "key", &name]);
        wait("all are there", || {
            let format = "{{.Status}} {{.ManagerStatus}}";
            let text = self.docker(other, &["node", "ls", "--format", format]).unwrap_or_default();
            text.lines().filter(|line| line.starts_with("Ready")).count() == 3
                && !text.contains("Unreachable")
        });
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let _ = self.docker(0, &["service", "rm", "web"]);
        for number in 0..self.hosts.len() {
            for line in self.docker(number, &["ps", "-aq"]).unwrap_or_default().lines() {
                let _ = self.docker(number, &["rm", "-f", line]);
            }
        }
        for number in 0..self.hosts.len() {
            let _ = self.docker(number, &["swarm", "leave", "-f"]);
        }
        for child in &mut self.children {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}
