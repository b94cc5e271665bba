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
    /// A namespace of its own to play the outside; those on a switch share the switch's.
    outside: Option<String>,
    address: String,
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
        let name = format!("shoal-{}-{number}", std::process::id());
        let outside = format!("{name}-out");
        let host = Self { name, outside: Some(outside.clone()), address: ADDRESS.to_owned() };
        let inside = host.name.clone();
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

    /// Where others on its link find it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Tells the neighbours that the address is this host's now, as hosts do when they start.
    pub fn announce(&self) {
        let args = ["arping", "-U", "-c", "2", "-w", "2", "-I", "up0", &self.address];
        let _ = self.command("busybox").args(args).output();
    }

    /// A command on the host. Only the network is another one: cgroups stay in sight.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// A command outside.
    #[must_use]
    pub fn command_outside(&self, program: &str) -> Command {
        let outside = self.outside.as_ref().expect("it has a world of its own");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{outside}")).arg(program);
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
        let url = format!("http://{ADDRESS}:{port}{path}");
        let mut command = self.command_outside("curl");
        let output = command.args(["-fsS", "-m", "5", &url]).output().unwrap();
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
        // The kernel takes a namespace apart some time later; a host of that place may come at once.
        run("ip", &["-n", &self.name, "link", "delete", "up0"]);
        for name in [Some(&self.name), self.outside.as_ref()].into_iter().flatten() {
            run("ip", &["netns", "delete", name]);
        }
    }
}

/// A virtual switch that hosts are plugged into, and whose cables can be pulled.
pub struct Switch {
    name: String,
}

impl Switch {
    #[must_use]
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let switch = Self { name: format!("shoal-{}-sw{number}", std::process::id()) };
        must("ip", &["netns", "add", &switch.name]);
        must("ip", &["-n", &switch.name, "link", "add", "br0", "type", "bridge"]);
        let address = format!("{OUTSIDE}/24");
        must("ip", &["-n", &switch.name, "address", "add", &address, "dev", "br0"]);
        must("ip", &["-n", &switch.name, "link", "set", "br0", "up"]);
        switch
    }

    /// A host on it, with the address 192.0.2.(10 + number).
    #[must_use]
    pub fn host(&self, number: u8) -> Host {
        let name = format!("{}-{number}", self.name);
        let address = format!("192.0.2.{}", 10 + number);
        must("ip", &["netns", "add", &name]);
        must("ip", &["-n", &name, "link", "set", "lo", "up"]);
        let port = Self::port(number);
        let pair =
            ["link", "add", "up0", "type", "veth", "peer", "name", &port, "netns", &self.name];
        must("ip", &[&["-n", &name][..], &pair].concat());
        must("ip", &["-n", &self.name, "link", "set", &port, "master", "br0", "up"]);
        let with_prefix = format!("{address}/24");
        must("ip", &["-n", &name, "address", "add", &with_prefix, "dev", "up0"]);
        must("ip", &["-n", &name, "link", "set", "up0", "up"]);
        must("ip", &["-n", &name, "route", "add", "default", "via", OUTSIDE]);
        Host { name, outside: None, address }
    }

    fn port(number: u8) -> String {
        format!("port{number}")
    }

    /// Pulls a host's cable, or plugs it in again.
    pub fn plug(&self, number: u8, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        must("ip", &["-n", &self.name, "link", "set", &Self::port(number), state]);
    }
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        run("ip", &["netns", "delete", &self.name]);
    }
}
