//! Three and five managers to which everything happens while clients write and read: all that was
//! acknowledged is there afterwards, and what the clients saw could have come from one register.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shoal_tests::history::check;
use shoal_tests::writer::{Writers, longest_gap};
use shoal_tests::{Agent, Managers, skip, turn, until};

fn writers(cluster: &Managers) -> Writers {
    let sockets = cluster.managers.iter().map(Agent::socket).collect();
    Writers::start(sockets, "m1")
}

/// So many further writes are acknowledged.
fn progress(writers: &Writers, count: usize, what: &str) {
    let before = writers.count();
    let began = Instant::now();
    until(what, || writers.count(), |now| *now >= before + count);
    println!("{what}: {count} writes after {:.2} s", began.elapsed().as_secs_f64());
}

fn finish(writers: Writers, cluster: &Managers) {
    let history = writers.stop();
    check(&history).unwrap();
    let last = history.iter().filter(|one| one.is_write && one.answered.is_some()).count();
    println!("{last} writes, longest time without one {:.2} s", longest_gap(&history));
    cluster.until_whole();
    // The same is read everywhere.
    let register = |agent: &Agent| {
        let node = agent.must(&["node", "inspect", "m1"]);
        let node: serde_json::Value = serde_json::from_str(&node).unwrap();
        node[0]["spec"]["labels"]["register"].clone()
    };
    let first = register(&cluster.managers[0]);
    assert!(cluster.managers.iter().all(|agent| register(agent) == first));
}

fn host(manager: usize) -> u8 {
    u8::try_from(manager).unwrap() + 1
}

fn leader(cluster: &Managers) -> usize {
    let known = || cluster.managers.iter().find_map(|asked| cluster.leader(asked));
    until("somebody leads", known, Option::is_some);
    known().unwrap()
}

#[test]
fn leaders_and_minorities_are_lost_and_nothing_that_was_acknowledged_with_them() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(3, 0);
    let writers = writers(&cluster);
    progress(&writers, 50, "all is well");
    let lost = leader(&cluster);
    cluster.managers[lost].end("-9");
    progress(&writers, 20, "the leader was killed");
    cluster.managers[lost].spawn_again();
    progress(&writers, 50, "it is back");
    let cut = leader(&cluster);
    cluster.switch.plug(host(cut), false);
    progress(&writers, 20, "the leader was cut off");
    cluster.switch.plug(host(cut), true);
    progress(&writers, 50, "it is plugged in");
    // Without a majority nothing is acknowledged.
    let stays = leader(&cluster);
    for other in (0..3).filter(|other| *other != stays) {
        cluster.managers[other].end("-9");
    }
    until(
        "the one that is left has lost its lead",
        || cluster.managers[stays].ctl(&["node", "ls"]).stderr,
        |words| words.contains("no manager leads"),
    );
    let before = writers.count();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(writers.count(), before, "one of three acknowledges");
    for other in (0..3).filter(|other| *other != stays) {
        cluster.managers[other].spawn_again();
    }
    progress(&writers, 50, "the others are back");
    finish(writers, &cluster);
}

#[test]
fn five_managers_are_restarted_one_by_one_and_lose_two_at_once() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(5, 0);
    let writers = writers(&cluster);
    for manager in 0..5 {
        cluster.managers[manager].end("-TERM");
        progress(&writers, 20, "one stops");
        cluster.managers[manager].spawn_again();
        progress(&writers, 20, "it is back");
        cluster.until_whole();
    }
    let first = leader(&cluster);
    let second = (first + 1) % 5;
    cluster.managers[first].end("-9");
    cluster.switch.plug(host(second), false);
    progress(&writers, 20, "two of five are lost, the leader one of them");
    cluster.managers[first].spawn_again();
    cluster.switch.plug(host(second), true);
    progress(&writers, 50, "they are back");
    finish(writers, &cluster);
}

/// The files of a manager's log, the newest last.
fn logs(agent: &Agent) -> Vec<PathBuf> {
    let folder = agent.dir().join("data/raft/log");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "raftlog"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_disk_that_is_full_or_slow_or_torn_costs_no_write() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut cluster = Managers::start(3, 0);
    let writers = writers(&cluster);
    progress(&writers, 50, "all is well");
    // Full, on the leader: another leads, and the nodes go with it.
    let full = leader(&cluster);
    let no_room = "inject=pwrite64,fallocate,ftruncate:error=ENOSPC";
    let mut tracer = tamper(&cluster.managers[full], no_room);
    until(
        "it can't write",
        || cluster.managers[full].log(),
        |log| log.contains("the raft log can't be written"),
    );
    progress(&writers, 50, "the leader's disk is full");
    let other = (full + 1) % 3;
    until(
        "another leads, and all nodes are there",
        || cluster.nodes(&cluster.managers[other]),
        |nodes| {
            nodes.values().any(|node| node.manager == "LEADER")
                && nodes.values().all(|node| node.state == "READY")
        },
    );
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    cluster.until_whole();
    // Torn, on one that was killed.
    let torn = (leader(&cluster) + 1) % 3;
    cluster.managers[torn].end("-9");
    let log = logs(&cluster.managers[torn]).pop().unwrap();
    let mut file = File::options().append(true).open(log).unwrap();
    file.write_all(&[0xaa; 50]).unwrap();
    cluster.managers[torn].spawn_again();
    progress(&writers, 50, "a log has a torn end");
    cluster.until_whole();
    // Slow, on the leader: every sync takes half a second.
    let slow = leader(&cluster);
    let mut tracer = tamper(&cluster.managers[slow], "inject=fsync,fdatasync:delay_exit=500000");
    progress(&writers, 20, "the leader's disk is slow");
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    // It lets go of the agent when it ends; the agent itself goes on.
    progress(&writers, 50, "it is fast again");
    finish(writers, &cluster);
}

/// Has the agent's system calls do something else until the tracer ends.
fn tamper(agent: &Agent, how: &str) -> Child {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-p", &agent.pid().to_string()]);
    command.args(["-e", "trace=fsync,fdatasync,pwrite64,fallocate,ftruncate", "-e", how]);
    let tracer = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", agent.pid());
    until(
        "it is traced",
        || fs::read_to_string(&status).unwrap(),
        |text| !text.contains("TracerPid:\t0\n"),
    );
    tracer
}

#[test]
fn clocks_that_jump_change_nothing() {
    let _turn = turn();
    if skip() {
        return;
    }
    let clock = tempfile::NamedTempFile::new().unwrap();
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut places = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    let Some(library) = places.find(|path| path.exists()) else {
        assert!(std::env::var_os("SHOAL_REQUIRE_PRIVILEGED").is_none(), "it lacks faketime");
        println!("SKIPPED: it lacks faketime");
        return;
    };
    fs::write(clock.path(), "+0").unwrap();
    let mut cluster = Managers::start(3, 1);
    cluster.deploy(&cluster.managers[0], 4);
    let jumps = leader(&cluster);
    cluster.managers[jumps].end("-TERM");
    let path = clock.path().to_str().unwrap().to_owned();
    cluster.managers[jumps].set_environment(&[
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", &path),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    cluster.managers[jumps].restart();
    cluster.until_whole();
    let writers = writers(&cluster);
    // So that the one whose clock jumps leads, at least for a while.
    for other in (0..3).filter(|other| *other != jumps) {
        if leader(&cluster) == other {
            cluster.managers[other].end("-TERM");
            progress(&writers, 10, "another leads");
            cluster.managers[other].spawn_again();
            cluster.until_whole();
        }
    }
    let before = cluster.managers[jumps].running("app");
    for jump in ["+30m", "-45m", "+0"] {
        fs::write(clock.path(), jump).unwrap();
        progress(&writers, 100, "a clock jumps");
    }
    cluster.until_whole();
    assert_eq!(cluster.managers[jumps].running("app"), before, "no task has noticed");
    finish(writers, &cluster);
    cluster.managers[jumps].must(&["stack", "rm", "app"]);
}
