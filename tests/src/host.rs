//! A host: a network namespace with one link, to a namespace that plays the world outside.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The host's address on its link; the outside has the other.
const ADDRESS: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Gone when dropped, with all that is in it.
pub struct Host {
    name: String,
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).stdin(Stdio::null()).output().unwrap()
}

fn must(program: &str, args: &[&str]) {
    let output = run(program, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
}

impl Host {
    #[must_use]
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let host = Self { name: format!("shoal-{}-{number}", std::process::id()) };
        let (inside, outside) = (host.name.clone(), host.outside());
        for name in [&inside, &outside] {
            must("ip", &["netns", "add", name]);
            must("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let link = ["link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", &outside];
        must("ip", &[&["-n", &inside][..], &link].concat());
        for (name, address) in [(&inside, ADDRESS), (&outside, OUTSIDE)] {
            let address = format!("{address}/24");
            must("ip", &["-n", name, "address", "add", &address, "dev", "up0"]);
            must("ip", &["-n", name, "link", "set", "up0", "up"]);
        }
        must("ip", &["-n", &inside, "route", "add", "default", "via", OUTSIDE]);
        host
    }

    fn outside(&self) -> String {
        format!("{}-out", self.name)
    }

    /// A command on the host. Only the network is another one: cgroups stay in sight.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// What a command on the host prints.
    #[must_use]
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What an HTTP client outside gets from the host; none when there is no answer.
    #[must_use]
    pub fn get_from_outside(&self, port: u16, path: &str) -> Option<String> {
        let netns = format!("--net=/run/netns/{}", self.outside());
        let url = format!("http://{ADDRESS}:{port}{path}");
        let output = run("nsenter", &[&netns, "curl", "-fsS", "-m", "5", &url]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same from the host's loopback.
    #[must_use]
    pub fn get_from_loopback(&self, port: u16, path: &str) -> Option<String> {
        let url = format!("http://127.0.0.1:{port}{path}");
        let mut command = self.command("curl");
        let output = command.args(["-fsS", "-m", "5", &url]).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the network of the host looks like: devices, rules, forwarding.
    #[must_use]
    pub fn traces(&self) -> String {
        let devices = self.run("ip", &["-br", "link"]);
        let names = devices.lines().filter_map(|line| line.split_whitespace().next());
        let devices: Vec<&str> = names.collect();
        let tables = self.run("nft", &["list", "tables"]);
        format!("devices: {devices:?}\ntables: {tables}")
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for name in [self.name.clone(), self.outside()] {
            run("ip", &["netns", "delete", &name]);
        }
    }
}
