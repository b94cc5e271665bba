//! Docker's side: a daemon started by hand on a host of its own, as a swarm of one node.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use shoal_tests::{Host, hello_tar};

use shoal_tests::measure::{self, wait};

/// Its own registry on loopback: a task of a swarm asks the registry for its image each time.
const REGISTRY: &str = "127.0.0.1:5999";
const IMAGE: &str = "127.0.0.1:5999/hello:latest";
// Without IPVS in the kernel only this mode works.
const FILE: &str = "services:\n  web:\n    image: 127.0.0.1:5999/hello:latest\n    \
                    command: [/hello, counter]\n    deploy: {endpoint_mode: dnsrr}\n";

pub(crate) struct Docker {
    host: Host,
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Docker {
    /// None where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let needed = ["/usr/sbin/dockerd", "/usr/bin/docker-registry"];
        if std::env::var_os("SHOAL_BENCH_ALONE").is_some()
            || !needed.iter().all(|path| Path::new(path).exists())
        {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().unwrap();
        let mut docker = Self { host: Host::new(), dir, children: Vec::new() };
        docker.start_registry();
        docker.start_daemon();
        docker.import();
        docker.must(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
        Some(docker)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn start_registry(&mut self) {
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {REGISTRY}}}\n",
            self.path("registry"),
        );
        fs::write(self.path("registry.yml"), config).unwrap();
        let mut command = self.host.command("docker-registry");
        command.args(["serve", &self.path("registry.yml")]);
        self.spawn(command, "registry.log");
    }

    fn spawn(&mut self, mut command: Command, log: &str) {
        let log = fs::File::create(self.path(log)).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
    }

    fn start_daemon(&mut self) {
        // Names are refused at once, as nobody answers there.
        fs::write(self.path("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        let script = format!(
            "mount --bind {0}/resolv.conf /etc/resolv.conf && exec dockerd --data-root {0}/data \
             --exec-root {0}/exec --host unix://{0}/docker.sock --pidfile {0}/pid --log-level error",
            self.dir.path().display()
        );
        let mut command = self.host.command("unshare");
        command.args(["-m", "sh", "-c", &script]);
        self.spawn(command, "daemon.log");
        wait("dockerd answers", || self.docker(&["version"]).is_some());
    }

    fn import(&self) {
        let tar = hello_tar();
        let cmd = r#"CMD ["/hello","web"]"#;
        self.must(&["import", "--change", cmd, tar.to_str().unwrap(), IMAGE]);
        self.must(&["push", "-q", IMAGE]);
    }

    fn docker(&self, args: &[&str]) -> Option<String> {
        let socket = format!("unix://{}", self.path("docker.sock"));
        let output = Command::new("docker")
            .args(["--host", &socket])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if !output.status.success() && self.children.len() > 2 {
            eprintln!("docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn must(&self, args: &[&str]) -> String {
        self.docker(args).unwrap_or_else(|| {
            panic!("docker {args:?}\n{}", fs::read_to_string(self.path("daemon.log")).unwrap())
        })
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn version(&self) -> String {
        self.must(&["version", "--format", "{{.Server.Version}}"]).trim().to_owned()
    }

    fn containers(&self) -> usize {
        self.must(&["ps", "-aq", "--filter", "label=com.docker.swarm.service.name=bench_web"])
            .lines()
            .count()
    }

    pub(crate) fn deploy(&self) {
        fs::write(self.path("bench.yml"), format!("version: \"3.8\"\n{FILE}")).unwrap();
        self.must(&["stack", "deploy", "-c", &self.path("bench.yml"), "bench"]);
        self.wait_for(1);
    }

    fn wait_for(&self, replicas: u32) {
        let wanted = format!("{replicas}/{replicas}");
        wait("docker's tasks run", || {
            self.must(&["service", "ls", "--format", "{{.Replicas}}"]).trim() == wanted
        });
    }

    pub(crate) fn remove(&self) {
        // Now and then it fails for a moment after a deploy.
        wait("docker removes the stack", || self.docker(&["stack", "rm", "bench"]).is_some());
        wait("docker's stack is gone", || self.containers() == 0);
        wait("its network is gone", || {
            self.must(&["network", "ls", "-q", "--filter", "name=bench_"]).is_empty()
        });
    }

    pub(crate) fn scale(&self, replicas: u32) {
        self.must(&["service", "scale", "-d", &format!("bench_web={replicas}")]);
        self.wait_for(replicas);
        if replicas == 1 {
            wait("docker's other containers are gone", || {
                let running = self.must(&["ps", "-q"]);
                running.lines().count() == 1
            });
        }
    }

    /// A container for execs.
    pub(crate) fn run_in_background(&self) {
        self.must(&["run", "-d", "--name", "bench", IMAGE, "/hello", "counter"]);
    }

    pub(crate) fn run_to_its_end(&self) {
        assert!(self.quietly(&["run", "--rm", IMAGE, "/hello"]) == Some(2));
    }

    pub(crate) fn exec(&self) {
        assert!(self.quietly(&["exec", "bench", "/hello"]) == Some(2));
    }

    /// The exit code.
    fn quietly(&self, args: &[&str]) -> Option<i32> {
        let socket = format!("unix://{}", self.path("docker.sock"));
        let mut command = Command::new("docker");
        command.args(["--host", &socket]).args(args).stdin(Stdio::null());
        command.output().unwrap().status.code()
    }

    pub(crate) fn pull(&self, image: &str) {
        self.must(&["pull", "-q", image]);
    }

    pub(crate) fn remove_image(&self, image: &str) {
        self.must(&["image", "rm", image]);
    }

    pub(crate) fn rss_megabytes(&self) -> f64 {
        let folder = self.path("");
        let daemon = measure::processes(&["dockerd", &folder]);
        let containerd = measure::processes(&["containerd\0--config", &folder]);
        measure::rss_megabytes(&[daemon, containerd].concat())
    }

    pub(crate) fn shim_private_kilobytes(&self) -> f64 {
        let folder = self.path("exec");
        measure::private_kilobytes(&measure::processes(&["containerd-shim", &folder]))
    }

    pub(crate) fn shim_pss_kilobytes(&self) -> f64 {
        let folder = self.path("exec");
        measure::proportional_kilobytes(&measure::processes(&["containerd-shim", &folder]))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        for line in self.docker(&["ps", "-aq"]).unwrap_or_default().lines() {
            self.docker(&["rm", "-f", line]);
        }
        self.docker(&["swarm", "leave", "-f"]);
        for child in &mut self.children {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}
