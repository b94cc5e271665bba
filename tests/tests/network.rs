//! Networks on one host: made and removed by command, single containers on them, and rules that somebody
//! else takes away.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use serde_json::Value;
use shoal_tests::{Agent, example, skip, turn, until};

#[test]
fn networks_are_made_looked_at_and_removed() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_busybox();
    agent.must(&["network", "create", "--subnet", "10.44.0.0/24", "--label", "a=b", "back"]);
    let quick = ["--stop-grace-period", "0s", "--update-monitor", "0s"];
    let service = ["service", "create", "--name", "db", "--network", "name=back,alias=store"];
    agent.must(&[&service[..], &quick, &["busybox", "sleep", "1000"]].concat());
    let shown: Value = serde_json::from_str(&agent.must(&["network", "inspect", "back"])).unwrap();
    assert_eq!(shown[0]["network"]["subnet"], "10.44.0.0/24");
    let held = shown[0]["held"].as_array().unwrap();
    let holders: Vec<&str> = held.iter().map(|one| one["holder"].as_str().unwrap()).collect();
    assert_eq!(holders, ["service db", "task db.1"]);
    for (args, words) in [
        (vec!["network", "create", "back"], "the network back exists"),
        (vec!["network", "create", "--subnet", "10.44.0.0/16", "wide"], "overlaps network back"),
        (vec!["network", "create", "--subnet", "192.0.2.0/25", "host"], "overlaps"),
        (vec!["network", "create", "--subnet", "10.45", "odd"], "is not a subnet"),
        (vec!["network", "rm", "back"], "is used by db"),
        (vec!["network", "rm", "nothing"], "no such network"),
    ] {
        let refused = agent.ctl(&args);
        assert!(refused.code == 1 && refused.stderr.contains(words), "{args:?}: {refused:#?}");
    }
    agent.must(&["network", "create", "spare"]);
    assert_eq!(agent.must(&["network", "prune"]).trim(), "spare");
    agent.must(&["service", "rm", "db"]);
    until("it is free", || agent.ctl(&["network", "rm", "back"]).code, |code| *code == 0);
}

#[test]
fn single_containers_are_on_networks_and_come_and_go() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = Agent::start();
    agent.import_busybox();
    agent.must(&["network", "create", "app"]);
    agent.must(&["network", "create", "--subnet", "10.44.0.0/24", "back"]);
    agent.must(&["network", "create", "--attachable=false", "services"]);
    let run = |agent: &Agent, args: &[&str]| {
        agent.must(&[&["run", "-d"], args, &["busybox", "sleep", "1000"]].concat());
    };
    run(&agent, &["--name", "a", "--network", "app", "--network-alias", "first"]);
    let both = "name=back,ip=10.44.0.9,mac-address=02:42:00:00:00:09,alias=db";
    run(&agent, &["--name", "b", "--network", "app", "--network", both]);
    run(&agent, &["--name", "c"]);
    let looks_up = |agent: &Agent, from: &str, name: &str| {
        let output = agent.ctl(&["exec", from, "nslookup", name]);
        let address = output.stdout.lines().filter(|line| line.starts_with("Address")).nth(1);
        let address = address.and_then(|line| line.split_whitespace().last()).map(str::to_owned);
        address.filter(|_| output.code == 0)
    };
    let reaches = |agent: &Agent, from: &str, to: &str| {
        agent.ctl(&["exec", from, "ping", "-c", "1", "-W", "1", to]).code == 0
    };
    let address = |agent: &Agent, name: &str, place: usize| {
        let shown: Value = serde_json::from_str(&agent.must(&["inspect", name])).unwrap();
        let network = shown[0]["networks"][place].clone();
        network["address"].as_str().map(|text| text.split('/').next().unwrap().to_owned())
    };
    let a = address(&agent, "a", 0).unwrap();
    assert_eq!(looks_up(&agent, "b", "first"), Some(a.clone()), "by its alias");
    assert_eq!(looks_up(&agent, "b", "a"), Some(a.clone()), "by its name");
    assert!(reaches(&agent, "b", &a));
    assert_eq!(looks_up(&agent, "a", "db"), None, "of another network");
    assert!(!reaches(&agent, "a", "10.44.0.9") && !reaches(&agent, "c", "10.44.0.9"));
    let links = agent.must(&["exec", "b", "ip", "addr", "show", "eth1"]);
    assert!(links.contains("02:42:00:00:00:09") && links.contains("10.44.0.9/24"), "{links}");

    // While it runs.
    agent.must(&["network", "connect", "--alias", "see", "--ip", "10.44.0.44", "back", "c"]);
    assert!(reaches(&agent, "c", "10.44.0.9"));
    assert_eq!(looks_up(&agent, "b", "see").as_deref(), Some("10.44.0.44"));
    agent.must(&["network", "disconnect", "bridge", "c"]);
    assert_eq!(looks_up(&agent, "c", "db").as_deref(), Some("10.44.0.9"), "asks another server");
    assert!(agent.must(&["exec", "c", "ip", "route"]).contains("default via 10.44.0.1 dev eth1"));
    agent.must(&["network", "disconnect", "back", "c"]);
    assert!(!agent.must(&["exec", "c", "ip", "addr"]).contains("eth"));
    agent.must(&["network", "connect", "bridge", "c"]);
    assert!(agent.must(&["exec", "c", "ip", "route"]).contains("default via"));

    for (args, words) in [
        (vec!["network", "disconnect", "back", "c"], "container c is not on network back"),
        (vec!["network", "connect", "app", "a"], "is on network app already"),
        (vec!["network", "connect", "nothing", "a"], "no such network: nothing"),
        (vec!["network", "connect", "services", "a"], "takes no single containers"),
        (vec!["network", "connect", "--ip", "10.44.0.9", "back", "a"], "is held by container b"),
        (vec!["network", "connect", "--ip", "10.45.0.9", "back", "a"], "is not in network back"),
        (vec!["network", "connect", "--mac-address", "1:2", "back", "a"], "no hardware address"),
        (vec!["network", "rm", "back"], "is used by container b on node"),
        (vec!["create", "--network", "nothing", "busybox"], "no such network: nothing"),
        (vec!["create", "--network", "host", "--network", "app", "busybox"], "exclude each other"),
    ] {
        let refused = agent.ctl(&args);
        assert!(refused.code != 0 && refused.stderr.contains(words), "{args:?}: {refused:#?}");
    }
    assert!(reaches(&agent, "b", &a), "what was refused has changed nothing");

    // Its address stays its own; its name is gone while it does not run.
    agent.must(&["stop", "-t", "0", "a"]);
    assert_eq!(looks_up(&agent, "b", "a"), None);
    agent.must(&["start", "a"]);
    assert_eq!(looks_up(&agent, "b", "a"), Some(a.clone()));
    agent.must(&["rename", "a", "renamed"]);
    assert_eq!(looks_up(&agent, "b", "renamed"), Some(a.clone()));
    agent.end("-9");
    agent.restart();
    assert!(reaches(&agent, "b", &a) && looks_up(&agent, "b", "renamed") == Some(a.clone()));
    agent.must(&["network", "connect", "back", "renamed"]);
    assert!(reaches(&agent, "renamed", "10.44.0.9"), "an agent that has begun anew adds to it");
    agent.must(&["rm", "-f", "renamed", "b", "c"]);
    let prune = || agent.must(&["network", "prune"]);
    until("nobody has an address", prune, |names| names.contains("back") || names.is_empty());
    assert_eq!(agent.must(&["network", "ls", "-q"]), "");
}

#[test]
fn rules_that_somebody_takes_away_are_back_within_two_seconds() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_hello();
    let file = example("hello/compose.yml");
    agent.must(&["stack", "deploy", "-f", file.to_str().unwrap(), "--timeout", "60s"]);
    let url = format!("http://{}:8080/whoami", agent.host.address());
    let client = || {
        let mut command = agent.host.command_outside("curl");
        let output = command.args(["-fsS", "-m", "0.3", &url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The proxy goes on without rules: the client's address is what only they keep.
    let by_rules = |answer: &String| answer.contains(r#""client":"192.0.2.2""#);
    until("the rules are there", client, by_rules);
    let table = agent.host.run("nft", &["list", "tables"]);
    let table = table.split_whitespace().nth(2).unwrap().to_owned();
    for harm in [
        vec!["flush", "ruleset"],
        vec!["flush", "table", "ip", &table],
        vec!["delete", "table", "ip", &table],
    ] {
        let _ = agent.host.run("nft", &harm);
        let harmed = Instant::now();
        until("they are back", client, by_rules);
        println!("{harm:?}: back after {:.1} s", harmed.elapsed().as_secs_f64());
    }
    // What others add to the host's rules is theirs.
    let _ = agent.host.run("nft", &["add", "table", "ip", "theirs"]);
    let _ = agent.host.run("nft", &["delete", "table", "ip", &table]);
    until("they are back", client, by_rules);
    assert!(agent.host.run("nft", &["list", "tables"]).contains("theirs"));
    agent.must(&["stack", "rm", "hello"]);
}

#[test]
fn clients_stay_with_an_endpoint_and_move_when_it_goes() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_busybox();
    agent.import_hello();
    agent.must(&["network", "create", "app"]);
    let service = |name: &str, sticky: bool, image: &str, command: &[&str]| {
        let sticky = format!("--sticky={sticky}");
        let options = [
            "service",
            "create",
            "--name",
            name,
            "--replicas",
            "3",
            "--network",
            "app",
            &sticky,
            "--hostname",
            "{{.Task.Slot}}",
            "--stop-grace-period",
            "0s",
            "--update-monitor",
            "0s",
        ];
        agent.must(&[&options[..], &[image], command].concat());
        let shown: Value =
            serde_json::from_str(&agent.must(&["service", "inspect", name])).unwrap();
        shown[0]["vips"][0]["address"].as_str().unwrap().to_owned()
    };
    let serve = "mkdir -p /www && hostname > /www/name && exec httpd -f -h /www";
    let tcp = service("tcp", true, "busybox", &["sh", "-c", serve]);
    let udp = service("udp", false, "shoal-hello", &["/hello", "datagrams", "9000"]);
    let asker =
        ["run", "-d", "--name", "asker", "--network", "app", "shoal-hello", "/hello", "web"];
    agent.must(&asker);
    for name in ["c1", "c2", "c3", "c4", "c5", "c6"] {
        agent.must(&["run", "-d", "--name", name, "--network", "app", "busybox", "sleep", "1000"]);
    }
    let ask = |client: &str, command: &str| {
        let answer = || agent.ctl(&["exec", client, "sh", "-c", command]).stdout.trim().to_owned();
        until("it answers", answer, |answer| !answer.is_empty())
    };
    // One client, one task; of six not all the same.
    let mut seen = std::collections::BTreeSet::new();
    let request = "printf 'GET /name HTTP/1.0\\r\\n\\r\\n'";
    let call = format!("{request} | timeout 2 nc {tcp} 80 | tail -n 1");
    for client in ["c1", "c2", "c3", "c4", "c5", "c6"] {
        let first = ask(client, &call);
        for _ in 0..5 {
            assert_eq!(ask(client, &call), first, "{client} stays");
        }
        seen.insert(first);
    }
    assert!(seen.len() > 1, "all went to {seen:?}");
    // A flow of datagrams stays with its task, and moves at once when that goes.
    let to = format!("{udp}:9000");
    let flow = |port: u16| {
        let asked = agent.ctl(&["exec", "asker", "/hello", "datagram", &to, &port.to_string()]);
        asked.stdout.trim().to_owned()
    };
    let port = (5000..5012).find(|port| flow(*port) == "3").unwrap();
    for _ in 0..3 {
        assert_eq!(flow(port), "3", "a flow stays");
    }
    agent.must(&["service", "scale", "udp=2"]);
    let moved = until("it is answered", || flow(port), |answer| !answer.is_empty());
    assert!(["1", "2"].contains(&moved.as_str()), "after it has gone: {moved:?}");
    agent.must(&["rm", "-f", "asker"]);
    agent.must(&["rm", "-f", "c1", "c2", "c3", "c4", "c5", "c6"]);
    agent.must(&["service", "rm", "tcp", "udp"]);
}
