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

/// A node's part among the managers.
fn part(cluster: &Managers, asked: &Agent, name: &str) -> String {
    cluster.nodes(asked).get(name).map(|node| node.manager.clone()).unwrap_or_default()
}

#[test]
fn nodes_are_promoted_and_demoted_and_the_quorum_is_kept() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(1, 2);
    let first = &cluster.managers[0];
    let only = first.ctl(&["node", "demote", "m1"]);
    assert!(only.code == 1 && only.stderr.contains("is the only manager"), "{only:#?}");
    first.must(&["node", "promote", "w1", "w2"]);
    for name in ["w1", "w2"] {
        until("it is a manager", || part(&cluster, first, name), |part| part == "REACHABLE");
    }
    until("it answers itself", || write(&cluster.workers[0], "promoted"), |done| *done);
    assert_eq!(read(&cluster.workers[1]), "promoted");
    // With one of three down, neither of the others can go; the one that is down can.
    cluster.workers[1].end("-9");
    until("it is down", || part(&cluster, first, "w2"), |part| part == "UNREACHABLE");
    let refused = first.ctl(&["node", "demote", "w1"]);
    assert!(refused.code == 1 && refused.stderr.contains("lose their quorum"), "{refused:#?}");
    let refused = first.ctl(&["node", "rm", "w2"]);
    assert!(refused.code == 1 && refused.stderr.contains("--force"), "{refused:#?}");
    first.must(&["node", "rm", "--force", "w2"]);
    until("two are left", || cluster.nodes(first), |nodes| nodes.len() == 2);
    // The leader goes: the other leads before it does.
    let leads = |cluster: &Managers| cluster.leader(&cluster.workers[0]);
    until("the first leads", || leads(&cluster), |leader| *leader == Some(0));
    cluster.workers[0].must(&["node", "demote", "m1"]);
    until("the other leads", || part(&cluster, &cluster.workers[0], "w1"), |part| part == "LEADER");
    until(
        "the first is a worker",
        || cluster.managers[0].ctl(&["node", "ls"]).stderr,
        |words| words.contains("this node is a worker"),
    );
    assert!(write(&cluster.workers[0], "alone"));
    assert!(!cluster.managers[0].dir().join("data/raft").exists(), "nothing is left of its log");
    // It can be one again, and finds everything.
    cluster.workers[0].must(&["node", "promote", "m1"]);
    until("it is a manager again", || write(&cluster.managers[0], "again"), |done| *done);
    assert_eq!(read(&cluster.workers[0]), "again");
    // A stop of its agent changes nothing of its part.
    cluster.managers[0].end("-TERM");
    cluster.managers[0].restart();
    assert_eq!(read(&cluster.managers[0]), "again");
}

#[test]
fn one_survivor_goes_on_alone_and_the_others_come_back_as_workers() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(3, 1);
    cluster.deploy(&cluster.managers[0], 4);
    assert!(write(&cluster.managers[0], "before"));
    for lost in [0, 1] {
        cluster.managers[lost].end("-9");
    }
    let survivor = &cluster.managers[2];
    let refused = survivor.ctl(&["node", "update", "--label-add", "a=b", "m1"]);
    assert!(
        refused.code == 1
            && refused.stderr.contains("no manager leads: of 3 managers 2 must reach each other")
            && refused.stderr.contains("--force-new-cluster"),
        "{refused:#?}"
    );
    assert!(survivor.ctl(&["--stale", "node", "inspect", "m1"]).stdout.contains("before"));
    cluster.managers[2].end("-TERM");
    cluster.managers[2].set_flags(&["--name", "m3", "--force-new-cluster"]);
    let begun = Instant::now();
    cluster.managers[2].restart();
    assert_eq!(read(&cluster.managers[2]), "before");
    assert!(write(&cluster.managers[2], "after"));
    println!("writes {:.2} s after it began anew", begun.elapsed().as_secs_f64());
    until(
        "the tasks of the lost run elsewhere",
        || cluster.places(&cluster.managers[2]),
        |places| places.values().sum::<usize>() == 4 && places.len() == 2,
    );
    // A lost one that comes back is a worker, and can be a manager again.
    cluster.managers[0].spawn_again();
    until(
        "it comes back as a worker",
        || cluster.managers[0].ctl(&["node", "ls"]).stderr,
        |words| words.contains("this node is a worker"),
    );
    cluster.managers[2].must(&["node", "promote", "m1"]);
    until("it is a manager again", || write(&cluster.managers[0], "again"), |done| *done);
    cluster.managers[2].must(&["stack", "rm", "app"]);
}

#[test]
fn a_backup_begins_the_cluster_on_another_host() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(1, 1);
    cluster.deploy(&cluster.managers[0], 2);
    assert!(write(&cluster.managers[0], "kept"));
    let file = cluster.managers[0].dir().join("backup");
    let file = file.to_str().unwrap().to_owned();
    cluster.managers[0].must(&["cluster", "backup", &file]);
    let before = cluster.managers[0].must(&["cluster", "join-token", "-q"]);
    // The host is lost; another one takes its address.
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(&file, copy.path()).unwrap();
    let garbage = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(garbage.path(), "garbage").unwrap();
    cluster.managers[0].end("-9");
    drop(cluster.managers.remove(0));
    let host = cluster.switch.host(1);
    let path = garbage.path().to_str().unwrap();
    let refused = Agent::on(host, &["--restore", path]);
    let output = refused.command().output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is no backup"), "{output:?}");
    drop(refused);
    let host = cluster.switch.host(1);
    host.announce();
    let flags = ["--name", "m2", "--restore", copy.path().to_str().unwrap()];
    let mut restored = Agent::on(host, &flags);
    restored.restart();
    restored.import_busybox();
    let node = restored.must(&["node", "inspect", "m1"]);
    assert!(node.contains("kept"));
    assert_eq!(restored.must(&["cluster", "join-token", "-q"]), before, "the root is the same");
    // The worker that was there finds it by itself; what it ran goes on.
    until(
        "the worker is back and does the work",
        || cluster.places(&restored),
        |places| places.values().sum::<usize>() == 2 && !places.contains_key("m1"),
    );
    restored.must(&["node", "rm", "--force", "m1"]);
    restored.must(&["stack", "rm", "app"]);
    restored.end("-9");
    restored.set_flags(&["--name", "m2"]);
    restored.restart();
    assert_eq!(restored.must(&["cluster", "join-token", "-q"]), before);
    cluster.managers.push(restored);
}

#[test]
fn a_locked_manager_needs_its_key_and_its_containers_go_on() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(1, 0);
    let manager = &mut cluster.managers[0];
    let none = manager.ctl(&["cluster", "unlock-key"]);
    assert!(none.code == 1 && none.stderr.contains("autolock is off"), "{none:#?}");
    manager.must(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"]);
    manager.must(&["cluster", "update", "--autolock"]);
    let old = manager.must(&["cluster", "unlock-key", "-q"]).trim().to_owned();
    let key = manager.must(&["cluster", "unlock-key", "--rotate", "-q"]).trim().to_owned();
    assert_ne!(old, key);
    assert!(write(manager, "locked"));
    until(
        "the key is sealed",
        || std::fs::read_to_string(manager.dir().join("data/node/raft.key")).unwrap(),
        |text| text.starts_with("sealed "),
    );
    let backup = manager.dir().join("backup");
    manager.must(&["cluster", "backup", backup.to_str().unwrap()]);
    manager.end("-9");
    manager.restart_worker();
    assert!(manager.must(&["ps"]).contains("one"));
    let refused = manager.ctl(&["node", "ls"]);
    assert!(refused.stderr.contains("this manager is locked"), "{refused:#?}");
    let wrong = manager.ctl(&["cluster", "unlock", &old]);
    assert!(wrong.code == 1 && wrong.stderr.contains("is not the one"), "{wrong:#?}");
    let odd = manager.ctl(&["cluster", "unlock", "SWMKEY-1-abc"]);
    assert!(odd.stderr.contains("that is no unlock key"), "{odd:#?}");
    manager.must(&["cluster", "unlock", &key]);
    assert_eq!(read(manager), "locked");
    // A backup of a locked cluster needs the key too.
    let host = cluster.switch.host(5);
    let sealed = Agent::on(host, &["--restore", backup.to_str().unwrap()]);
    let output = sealed.command().output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is sealed"), "{output:?}");
    drop(sealed);
    let manager = &mut cluster.managers[0];
    manager.must(&["cluster", "update", "--autolock=false"]);
    until(
        "the key is open again",
        || std::fs::read_to_string(manager.dir().join("data/node/raft.key")).unwrap(),
        |text| !text.starts_with("sealed "),
    );
    manager.end("-9");
    manager.restart();
    assert_eq!(read(manager), "locked");
}

#[test]
fn the_root_is_replaced_while_everything_goes_on() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(3, 1);
    cluster.deploy(&cluster.managers[0], 4);
    let before = cluster.managers[0].running("app");
    let old_token = cluster.managers[0].must(&["cluster", "join-token", "-q"]);
    // A node that is down holds it up, and is named.
    cluster.workers[0].end("-TERM");
    let root = cluster.managers[0].must(&["cluster", "ca", "rotate", "--detach"]);
    until(
        "all others trust both roots",
        || cluster.managers[1].ctl(&["cluster", "ca"]).stderr,
        |words| words.contains("waiting for w1") && !words.contains('m'),
    );
    assert!(write(&cluster.managers[2], "meanwhile"));
    cluster.workers[0].restart_worker();
    until(
        "the new root is the only one",
        || cluster.managers[1].ctl(&["cluster", "ca"]),
        |answer| answer.stderr.is_empty() && answer.stdout == root,
    );
    assert_eq!(cluster.managers[0].running("app"), before, "no task has noticed");
    cluster.until_whole();
    // Everyone comes back with what they have now.
    for agent in cluster.managers.iter_mut().chain(&mut cluster.workers) {
        agent.end("-9");
    }
    for agent in cluster.managers.iter_mut().chain(&mut cluster.workers) {
        agent.spawn_again();
    }
    cluster.until_whole();
    let new_token = cluster.managers[0].must(&["cluster", "join-token", "-q"]);
    assert_ne!(old_token, new_token);
    let mut late = cluster.joining(6, "late", "worker", &[]);
    late.restart_worker();
    cluster.workers.push(late);
    cluster.until_whole();
    let manager = cluster.managers[0].host.address().to_owned();
    let flags = ["--name", "later", "--join", &manager, "--token", old_token.trim()];
    let stale = Agent::on(cluster.switch.host(7), &flags);
    let output = stale.command().output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("is not the cluster that the token is of"),
        "{output:?}"
    );
    cluster.managers[0].must(&["stack", "rm", "app"]);
}

#[test]
fn what_is_fenced_never_runs_twice_not_even_when_the_agent_has_died() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(1, 2);
    let must = |cluster: &Managers, args: &[&str]| cluster.managers[0].must(args);
    must(&cluster, &["node", "update", "--availability", "drain", "m1"]);
    let refused = cluster.managers[0].ctl(&["cluster", "update", "--fencing-lease", "1s"]);
    assert!(refused.code == 1 && refused.stderr.contains("it is from 3s"), "{refused:#?}");
    must(&cluster, &["cluster", "update", "--fencing-lease", "4s", "--node-down-after", "2s"]);
    let text = "services:\n  db:\n    image: busybox\n    command: sleep 1000\n    \
                stop_grace_period: 0s\n    x-shoal-fencing: true\n";
    let file = cluster.managers[0].file("app.yml", text);
    must(&cluster, &["stack", "deploy", "-f", &file, "app", "--timeout", "60s"]);
    let runs = |agent: &Agent| agent.must(&["ps", "-q"]).lines().count();
    let at = usize::from(runs(&cluster.workers[1]) == 1);
    let host = u8::try_from(at).unwrap() + 2;
    // Cut off: the other starts it only after this one has stopped it.
    cluster.switch.plug(host, false);
    until("it waits", || must(&cluster, &["stack", "ps", "app"]), |text| text.contains("fencing"));
    assert_eq!((runs(&cluster.workers[at]), runs(&cluster.workers[1 - at])), (1, 0));
    until(
        "it runs elsewhere",
        || {
            let both = (runs(&cluster.workers[at]), runs(&cluster.workers[1 - at]));
            assert_ne!(both, (1, 1), "it runs twice");
            both
        },
        |both| *both == (0, 1),
    );
    cluster.switch.plug(host, true);
    cluster.until_whole();
    // The agent dies, its container does not: the shim keeps the time.
    let other = 1 - at;
    cluster.workers[other].end("-9");
    let folder = cluster.workers[other].dir().join("run/containers");
    let ended = |agent: &Agent| {
        let folders = std::fs::read_dir(agent.dir().join("run/containers")).unwrap().flatten();
        folders.filter(|entry| !entry.path().join("exit").exists()).count() == 0
    };
    assert!(!ended(&cluster.workers[other]), "{} runs on", folder.display());
    until(
        "it runs elsewhere",
        || {
            let both = (!ended(&cluster.workers[other]), runs(&cluster.workers[at]) == 1);
            assert_ne!(both, (true, true), "it runs twice");
            both
        },
        |both| *both == (false, true),
    );
    must(&cluster, &["stack", "rm", "app"]);
}
