//! The network across hosts: containers on all pairs of nodes, published ports on every node with the
//! client's address, links that are cut, agents that start anew.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::Value;
use shoal_tests::{Agent, Host, Managers, skip, turn, until};

fn agents(cluster: &Managers) -> Vec<&Agent> {
    cluster.managers.iter().chain(&cluster.workers).collect()
}

/// The running tasks of a service: the node's name with the task's name and address.
fn running(cluster: &Managers, service: &str) -> BTreeMap<String, (String, String)> {
    let agent = &cluster.managers[0];
    let json = |args: &[&str]| -> Value { serde_json::from_str(&agent.must(args)).unwrap() };
    let nodes = json(&["node", "ls", "--format", "json"]);
    let name_of = |id: &Value| {
        let node = nodes.as_array().unwrap().iter().find(|node| node["id"] == *id).unwrap();
        node["spec"]["name"].as_str().unwrap().to_owned()
    };
    let tasks = json(&["service", "ps", service, "--format", "json"]);
    let live = tasks.as_array().unwrap().iter().filter(|task| {
        task["status"]["state"] == "TASK_STATE_RUNNING"
            && task["desiredState"] == "TASK_STATE_RUNNING"
    });
    live.map(|task| {
        let address = task["networks"][0]["address"].as_str().unwrap();
        let address = address.split('/').next().unwrap().to_owned();
        let name = format!("{service}.{}", task["slot"].as_str().unwrap());
        (name_of(&task["nodeId"]), (name, address))
    })
    .collect()
}

/// Counts the bytes of a file. The static busybox has no names, and so no HTTP client that works.
fn fetch(address: &str, path: &str) -> String {
    format!("{} | sed '1,/^.$/d' | wc -c", request(address, path))
}

fn request(address: &str, path: &str) -> String {
    format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc {address} 80")
}

/// What an HTTP client on a host gets; none when there is no answer.
fn get(host: &Host, url: &str) -> Option<String> {
    let output = host.command("curl").args(["-fsS", "-m", "3", url]).output().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn containers_reach_each_other_on_all_pairs_of_nodes() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(1, 2);
    let agent = &cluster.managers[0];
    let file = agent.file(
        "all.yml",
        "services:\n  all:\n    image: busybox\n    stop_grace_period: 0s\n    command:\n      - sh\n      - -c\n      \
         - mkdir -p /www && hostname > /www/name && head -c 3000000 /dev/zero > /www/large && exec httpd -f -h /www\n    \
         deploy: {mode: global}\n",
    );
    agent.must(&["stack", "deploy", "-f", &file, "net", "--timeout", "60s"]);
    let tasks = running(&cluster, "net_all");
    assert_eq!(tasks.len(), 3, "{tasks:?}");
    let service: Value =
        serde_json::from_str(&agent.must(&["service", "inspect", "net_all"])).unwrap();
    let vip = service[0]["vips"][0]["address"].as_str().unwrap().to_owned();
    for (_, address) in tasks.values() {
        let own = &tasks["m1"].0;
        let command = fetch(address, "/large");
        let size = || agent.ctl(&["exec", own, "sh", "-c", &command]).stdout;
        until("its program is up", size, |size| size.trim() == "3000000");
    }
    let check = |cluster: &Managers, what: &str| {
        for (agent, name) in agents(cluster).into_iter().zip(["m1", "w1", "w2"]) {
            let own = &tasks[name].0;
            for (other, address) in tasks.values() {
                let exec = |command: &str| agent.ctl(&["exec", own, "sh", "-c", command]);
                let ping = exec(&format!("ping -c 1 -W 2 {address}"));
                assert_eq!(ping.code, 0, "{what}: {own} pings {other}: {ping:#?}");
                let fragments = exec(&format!("ping -c 1 -W 2 -s 20000 {address}"));
                assert_eq!(fragments.code, 0, "{what}: large packets, {own} to {other}");
                let size = exec(&fetch(address, "/large"));
                assert_eq!(size.stdout.trim(), "3000000", "{what}: {own} reads from {other}");
            }
            // By the service's address all of them in turn.
            let one = request(&vip, "/name");
            let names =
                format!("for i in 1 2 3 4 5 6; do {one} | tail -n 1; done | sort -u | wc -l");
            let names = agent.must(&["exec", own, "sh", "-c", &names]);
            assert_eq!(names.trim(), "3", "{what}: {own} finds all by name");
        }
    };
    check(&cluster, "at first");
    // A link that is cut and mended.
    cluster.switch.plug(2, false);
    let own = &tasks["m1"].0;
    let ping = |address: &str| {
        let command = format!("ping -c 1 -W 1 {address}");
        cluster.managers[0].ctl(&["exec", own, "sh", "-c", &command]).code
    };
    assert_ne!(ping(&tasks["w1"].1), 0, "it is cut off");
    assert_eq!(ping(&tasks["w2"].1), 0, "the others are not");
    cluster.switch.plug(2, true);
    until("it is back", || ping(&tasks["w1"].1), |code| *code == 0);
    until("all is whole", || running(&cluster, "net_all").len(), |count| *count == 3);
    // Somebody takes the device away.
    for device in cluster.managers[0].host.run("ip", &["-br", "link"]).lines() {
        if let Some(name) = device.split_whitespace().next().filter(|name| name.contains("vx-")) {
            let _ = cluster.managers[0].host.run("ip", &["link", "delete", name]);
        }
    }
    until("it is there again", || ping(&tasks["w2"].1), |code| *code == 0);
    // Agents that are killed and start anew.
    cluster.workers[1].end("-9");
    assert_eq!(ping(&tasks["w2"].1), 0, "traffic goes on without an agent");
    cluster.workers[1].restart_worker();
    check(&cluster, "with an agent that has started anew");
    cluster.managers[0].must(&["stack", "rm", "net"]);
}

#[test]
fn a_published_port_is_on_every_node_and_shows_who_calls() {
    let _turn = turn();
    if skip() {
        return;
    }
    let cluster = Managers::start(1, 2);
    agents(&cluster).into_iter().for_each(Agent::import_hello);
    let agent = &cluster.managers[0];
    agent.must(&["node", "update", "--label-add", "web=yes", "w2"]);
    let file = agent.file(
        "web.yml",
        "services:\n  web:\n    image: shoal-hello\n    command: [/hello, web]\n    ports: [\"8080:8080\"]\n    \
         healthcheck: {test: [CMD, /hello, check, \"http://127.0.0.1:8080/health\"], interval: 1s}\n    \
         deploy: {placement: {constraints: [node.labels.web==yes]}}\n  counter:\n    image: shoal-hello\n    \
         command: [/hello, counter]\n    deploy: {placement: {constraints: [node.labels.web!=yes]}}\n",
    );
    agent.must(&["stack", "deploy", "-f", &file, "web", "--timeout", "60s"]);
    let client = cluster.switch.host(9);
    for agent in agents(&cluster) {
        let address = agent.host.address();
        let url = format!("http://{address}:8080/whoami");
        let answer = until("the port is open", || get(&client, &url), Option::is_some).unwrap();
        let expected = format!(r#""client":"{}""#, client.address());
        assert!(answer.contains(&expected), "by {address}: {answer}");
        assert!(!answer.contains(r#""count":null"#), "the counter is on another node: {answer}");
        assert!(get(&agent.host, &url).is_some(), "from the node {address} itself");
        let loopback = get(&agent.host, "http://127.0.0.1:8080/whoami");
        assert!(loopback.is_some(), "by the loopback of {address}");
        for other in agents(&cluster) {
            assert!(get(&other.host, &url).is_some(), "from {} by {address}", other.host.address());
        }
    }
    agent.must(&["stack", "rm", "web"]);
}

#[test]
fn single_containers_reach_each_other_and_services_across_hosts() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(1, 2);
    let manager = &cluster.managers[0];
    manager.must(&["network", "create", "app"]);
    let quick = ["--stop-grace-period", "0s", "--network", "app", "--detach"];
    manager.must(
        &[&["service", "create", "--name", "web"], &quick[..], &["busybox", "sleep", "1000"]]
            .concat(),
    );
    for (agent, name) in agents(&cluster).into_iter().zip(["m1", "w1", "w2"]) {
        let run = ["run", "-d", "--name", name, "--network", "app", "--network-alias", "all"];
        agent.must(&[&run[..], &["busybox", "sleep", "1000"]].concat());
    }
    let addresses = |agent: &Agent, from: &str, name: &str| -> Vec<String> {
        let output = agent.ctl(&["exec", from, "nslookup", name]).stdout;
        let answer = output.split("Name:").skip(1).collect::<String>();
        let lines = answer.lines().filter_map(|line| line.strip_prefix("Address"));
        lines.filter_map(|line| Some(line.split_whitespace().last()?.to_owned())).collect()
    };
    let check = |cluster: &Managers, what: &str| {
        for (agent, own) in agents(cluster).into_iter().zip(["m1", "w1", "w2"]) {
            for other in ["m1", "w1", "w2", "web"] {
                let look = || addresses(agent, own, other);
                let found = until("the name is there", look, |found| found.len() == 1);
                if other != "web" {
                    let ping = agent.ctl(&["exec", own, "ping", "-c", "1", "-W", "2", &found[0]]);
                    assert_eq!(ping.code, 0, "{what}: {own} pings {other}");
                }
            }
            let all = || addresses(agent, own, "all").len();
            until("the alias is everybody's", all, |count| *count == 3);
        }
    };
    check(&cluster, "at first");
    cluster.workers[0].end("-9");
    cluster.workers[0].restart_worker();
    check(&cluster, "with an agent that has started anew");
    // One that stops is no answer any more, on no node.
    cluster.workers[1].must(&["stop", "-t", "0", "w2"]);
    let gone = || addresses(&cluster.managers[0], "m1", "w2").len();
    until("its name is gone", gone, |count| *count == 0);
    cluster.workers[1].must(&["start", "w2"]);
    check(&cluster, "after it has started again");
    // Removed while its node is cut off: the address is free once it is back.
    cluster.switch.plug(3, false);
    cluster.workers[1].must(&["rm", "-f", "w2"]);
    let refused = cluster.workers[1].ctl(&["create", "--network", "app", "busybox"]);
    assert!(refused.stderr.contains("the managers give no place"), "{refused:#?}");
    cluster.switch.plug(3, true);
    let manager = &cluster.managers[0];
    let held = || manager.must(&["network", "inspect", "app"]);
    until("its address is free", held, |text| !text.contains("container w2"));
    manager.must(&["service", "rm", "web"]);
    for (agent, name) in agents(&cluster).into_iter().zip(["m1", "w1"]) {
        agent.must(&["rm", "-f", name]);
    }
    let remove = || manager.ctl(&["network", "rm", "app"]).code;
    until("the network is unused", remove, |code| *code == 0);
}
