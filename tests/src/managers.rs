//! Several managers on a switch, and workers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Agent, Switch, until};

/// Managers `m1`, `m2`, … and workers `w1`, `w2`, …; manager N is host N of the switch, the workers
/// follow.
pub struct Managers {
    pub switch: Switch,
    pub managers: Vec<Agent>,
    pub workers: Vec<Agent>,
}

/// What `ctl node ls` says of a node: its state, and its part among the managers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub state: String,
    pub manager: String,
}

impl Managers {
    /// All have joined, and all managers have a say. Each has the busybox image.
    #[must_use]
    pub fn start(managers: u8, workers: u8) -> Self {
        Self::start_with(managers, workers, &[])
    }

    /// The same with further flags for each agent.
    #[must_use]
    pub fn start_with(managers: u8, workers: u8, flags: &[&str]) -> Self {
        let switch = Switch::new();
        let mut first = Agent::on(switch.host(1), &[&["--name", "m1"], flags].concat());
        first.restart();
        first.import_busybox();
        let mut cluster = Self { switch, managers: vec![first], workers: Vec::new() };
        for number in 2..=managers {
            let mut agent = cluster.joining(number, &format!("m{number}"), "manager", flags);
            agent.restart_worker();
            agent.import_busybox();
            cluster.managers.push(agent);
        }
        for number in 1..=workers {
            let name = format!("w{number}");
            let mut agent = cluster.joining(managers + number, &name, "worker", flags);
            agent.restart_worker();
            agent.import_busybox();
            cluster.workers.push(agent);
        }
        cluster.until_whole();
        cluster
    }

    /// A host that is to join with that role, not started yet.
    #[must_use]
    pub fn joining(&self, host: u8, name: &str, role: &str, flags: &[&str]) -> Agent {
        let token = self.managers[0].must(&["cluster", "join-token", role, "-q"]);
        let address = self.managers[0].host.address();
        let join = ["--name", name, "--join", address, "--token", token.trim()];
        Agent::on(self.switch.host(host), &[&join[..], flags].concat())
    }

    /// All nodes are ready and all managers have a say.
    pub fn until_whole(&self) {
        let (managers, workers) = (self.managers.len(), self.workers.len());
        until(
            "all nodes are there",
            || self.nodes(&self.managers[0]),
            |nodes| {
                let count = |what: &dyn Fn(&Listed) -> bool| {
                    nodes.values().filter(|node| what(node)).count()
                };
                nodes.len() == managers + workers
                    && count(&|node| node.state == "READY") == managers + workers
                    && count(&|node| node.manager == "LEADER") == 1
                    && count(&|node| node.manager == "REACHABLE") == managers - 1
            },
        );
    }

    /// What a manager says of the nodes; nothing when it says nothing.
    #[must_use]
    pub fn nodes(&self, asked: &Agent) -> BTreeMap<String, Listed> {
        let text = asked.ctl(&["node", "ls", "--format", "json"]).stdout;
        let nodes: Value = serde_json::from_str(&text).unwrap_or_default();
        let text = |value: &Value| {
            let text = value.as_str().unwrap_or_default();
            text.rsplit('_').next().unwrap_or_default().to_owned()
        };
        nodes
            .as_array()
            .into_iter()
            .flatten()
            .map(|node| {
                let name = node["spec"]["name"].as_str().unwrap_or_default().to_owned();
                let listed = Listed {
                    state: text(&node["status"]["state"]),
                    manager: text(&node["manager"]),
                };
                (name, listed)
            })
            .collect()
    }

    /// Which manager leads, from 0, as that one says.
    #[must_use]
    pub fn leader(&self, asked: &Agent) -> Option<usize> {
        let nodes = self.nodes(asked);
        let (name, _) = nodes.iter().find(|(_, node)| node.manager == "LEADER")?;
        name.strip_prefix('m')?.parse::<usize>().ok().map(|number| number - 1)
    }

    /// Deploys replicas of a busybox that sleeps.
    pub fn deploy(&self, asked: &Agent, replicas: u32) {
        let text = format!(
            "services:\n  web:\n    image: busybox\n    command: sleep 1000\n    \
             stop_grace_period: 0s\n    deploy: {{replicas: {replicas}}}\n"
        );
        let file = asked.file("app.yml", &text);
        asked.must(&["stack", "deploy", "-f", &file, "app", "--timeout", "60s"]);
    }

    /// Running tasks on each node, by name, as a manager says.
    #[must_use]
    pub fn places(&self, asked: &Agent) -> BTreeMap<String, usize> {
        let json = |args: &[&str]| -> Value {
            serde_json::from_str(&asked.ctl(args).stdout).unwrap_or_default()
        };
        let nodes = json(&["node", "ls", "--format", "json"]);
        let nodes: BTreeMap<String, String> = nodes
            .as_array()
            .into_iter()
            .flatten()
            .map(|node| (node["id"].to_string(), node["spec"]["name"].as_str().unwrap().to_owned()))
            .collect();
        let mut places = BTreeMap::new();
        for task in
            json(&["stack", "ps", "app", "--format", "json"]).as_array().into_iter().flatten()
        {
            let is_live = task["status"]["state"] == "TASK_STATE_RUNNING"
                && task["desiredState"] == "TASK_STATE_RUNNING";
            if is_live {
                let node = nodes.get(&task["nodeId"].to_string()).cloned().unwrap_or_default();
                *places.entry(node).or_default() += 1;
            }
        }
        places
    }
}
