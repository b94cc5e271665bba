//! Networks on one host: made and removed by command, and rules that somebody else takes away.

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
