//! Shoal's side: a release agent on a host of its own.

use shoal_tests::{Agent, Host};

use crate::measure;

pub(crate) struct Shoal {
    agent: Agent,
    file: String,
}

const FILE: &str = "services:\n  web:\n    image: shoal-hello\n    command: /hello counter\n";

impl Shoal {
    pub(crate) fn start() -> Self {
        let agent = Agent::start();
        agent.import_hello();
        let file = agent.file("bench.yml", FILE);
        Self { agent, file }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.agent.host
    }

    pub(crate) fn deploy(&self) {
        self.agent.must(&["stack", "deploy", "-f", &self.file, "bench", "--monitor", "0s"]);
    }

    pub(crate) fn remove(&self) {
        self.agent.must(&["stack", "rm", "bench"]);
    }

    /// To all running, or all others gone.
    pub(crate) fn scale(&self, replicas: u32) {
        self.agent.must(&["service", "scale", &format!("bench_web={replicas}")]);
    }

    pub(crate) fn pull(&self, image: &str) {
        self.agent.must(&["image", "pull", "-q", image]);
    }

    pub(crate) fn remove_image(&self, image: &str) {
        self.agent.must(&["image", "rm", image]);
    }

    fn folder(&self) -> String {
        self.agent.dir().display().to_string()
    }

    pub(crate) fn rss_megabytes(&self) -> f64 {
        measure::rss_megabytes(&measure::processes(&["release/agent", &self.folder()]))
    }

    pub(crate) fn shim_private_kilobytes(&self) -> f64 {
        measure::private_kilobytes(&measure::processes(&["shoal-shim", &self.folder()]))
    }
}
