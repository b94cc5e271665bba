//! Several managers: joining, losing, replacing and rescuing them.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use shoal_tests::{Agent, Managers, skip, turn, until};

/// A write that a manager takes at once or after an election.
fn write(agent: &Agent, value: &str) -> bool {
    agent.ctl(&["node", "update", "--label-add", &format!("key={value}"), "m1"]).code == 0
}

fn read(agent: &Agent) -> String {
    let text = agent.must(&["node", "inspect", "m1"]);
    let nodes: serde_json::Value = serde_json::from_str(&text).unwrap();
    nodes[0]["spec"]["labels"]["key"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_manager_takes_writes_and_none_reads_old_values() {
    let _turn = turn();
    if skip() {
        return;
    }
    let cluster = Managers::start(3, 1);
    for round in 0..5 {
        for (number, writer) in cluster.managers.iter().enumerate() {
            let value = format!("{round}-{number}");
            assert!(write(writer, &value));
            for reader in &cluster.managers {
                assert_eq!(read(reader), value);
            }
        }
    }
    let worker = cluster.workers[0].ctl(&["node", "ls"]);
    assert!(
        worker.code == 1 && worker.stderr.contains("ask on a manager (192.0.2."),
        "{worker:#?}"
    );
    cluster.deploy(&cluster.managers[2], 4);
    until(
        "spread",
        || cluster.places(&cluster.managers[1]),
        |places| places.len() == 4 && places.values().all(|count| *count == 1),
    );
    // Logs come over the leader's sessions, whoever is asked.
    for manager in &cluster.managers {
        manager.must(&["service", "logs", "app_web"]);
    }
    cluster.managers[1].must(&["stack", "rm", "app"]);
}

#[test]
fn the_leader_is_killed_and_another_takes_over() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(3, 0);
    cluster.deploy(&cluster.managers[0], 6);
    let leader = cluster.leader(&cluster.managers[1]).unwrap();
    let other = (leader + 1) % 3;
    assert!(write(&cluster.managers[other], "before"));
    cluster.managers[leader].end("-9");
    let lost = Instant::now();
    while !write(&cluster.managers[other], "after") {
        assert!(lost.elapsed() < Duration::from_secs(20), "{}", cluster.managers[other].log());
    }
    println!("written {:.2} s after the leader was killed", lost.elapsed().as_secs_f64());
    assert_eq!(read(&cluster.managers[(leader + 2) % 3]), "after");
    until(
        "its tasks run elsewhere",
        || cluster.places(&cluster.managers[other]),
        |places| places.values().sum::<usize>() == 6 && places.len() == 2,
    );
    println!("tasks elsewhere after {:.2} s", lost.elapsed().as_secs_f64());
    cluster.managers[leader].restart();
    cluster.until_whole();
    assert_eq!(read(&cluster.managers[leader]), "after");
    cluster.managers[other].must(&["stack", "rm", "app"]);
}

#[test]
fn a_leader_that_is_cut_off_gives_up_and_stops_what_is_no_longer_its_own() {
    let _turn = turn();
    if skip() {
        return;
    }
    let cluster = Managers::start(3, 0);
    cluster.deploy(&cluster.managers[0], 6);
    let leader = cluster.leader(&cluster.managers[0]).unwrap();
    let other = (leader + 1) % 3;
    let host = u8::try_from(leader).unwrap() + 1;
    cluster.switch.plug(host, false);
    let cut = Instant::now();
    while !write(&cluster.managers[other], "after") {
        assert!(cut.elapsed() < Duration::from_secs(20), "{}", cluster.managers[other].log());
    }
    println!("written {:.2} s after the leader was cut off", cut.elapsed().as_secs_f64());
    until(
        "its tasks run elsewhere",
        || cluster.places(&cluster.managers[other]),
        |places| places.values().sum::<usize>() == 6 && places.len() == 2,
    );
    println!("tasks elsewhere after {:.2} s", cut.elapsed().as_secs_f64());
    let alone = &cluster.managers[leader];
    assert!(!write(alone, "lost"));
    let refused = alone.ctl(&["node", "ls"]);
    assert!(refused.code == 1 && refused.stderr.contains("no manager leads"), "{refused:#?}");
    assert_eq!(alone.ctl(&["--stale", "node", "ls"]).code, 0);
    cluster.switch.plug(host, true);
    let healed = Instant::now();
    until(
        "it stops what it had",
        || alone.must(&["ps", "-q"]).lines().count(),
        |count| *count == 0,
    );
    println!("stale containers gone {:.2} s after healing", healed.elapsed().as_secs_f64());
    cluster.until_whole();
    assert_eq!(read(alone), "after");
    cluster.managers[other].must(&["stack", "rm", "app"]);
}
