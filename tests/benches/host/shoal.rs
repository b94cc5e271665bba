//! Shoal's side: a release agent on a host of its own.

use shoal_tests::{Agent, Host};

use shoal_tests::measure;

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

    /// A container for execs.
    pub(crate) fn run_in_background(&self) {
        self.agent.must(&["run", "-d", "--name", "bench", "shoal-hello", "/hello", "counter"]);
    }

    pub(crate) fn run_to_its_end(&self) {
        // The example's program says how it is used, and ends with 2.
        assert_eq!(self.agent.ctl(&["run", "--rm", "shoal-hello", "/hello"]).code, 2);
    }

    pub(crate) fn exec(&self) {
        assert_eq!(self.agent.ctl(&["exec", "bench", "/hello"]).code, 2);
    }

    /// Seconds until all run, and of the slowest.
    pub(crate) fn start_many(&self, count: usize) -> (f64, f64) {
        let names: Vec<String> = (0..count).map(|number| format!("many{number}")).collect();
        for name in &names {
            self.agent.must(&["create", "--name", name, "shoal-hello", "/hello", "counter"]);
        }
        let started = std::time::Instant::now();
        let times: Vec<f64> = std::thread::scope(|scope| {
            let starts: Vec<_> = names
                .iter()
                .map(|name| {
                    scope
                        .spawn(move || measure::seconds(|| drop(self.agent.must(&["start", name]))))
                })
                .collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let total = started.elapsed().as_secs_f64();
        for name in &names {
            self.agent.must(&["rm", "-f", name]);
        }
        (total, times.into_iter().fold(0.0, f64::max))
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

    pub(crate) fn shim_pss_kilobytes(&self) -> f64 {
        measure::proportional_kilobytes(&measure::processes(&["shoal-shim", &self.folder()]))
    }
}
