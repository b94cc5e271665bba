//! Services of every kind on real agents: what docs/services.md says, updates under load, rollbacks,
//! jobs, secrets, placement.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::time::{Duration, Instant};

use serde_json::Value;
use shoal_tests::{Agent, Managers, skip, turn, until};

/// Times that suit a test.
const QUICK: [&str; 4] = ["--update-monitor", "500ms", "--rollback-monitor", "500ms"];

fn create(agent: &Agent, args: &[&str], image_and_command: &[&str]) {
    let is_job = args.iter().any(|arg| arg.contains("job") || *arg == "--schedule");
    let quick = if is_job { &[] } else { &QUICK[..] };
    let first = ["service", "create", "--stop-grace-period", "0s"];
    agent.must(&[&first[..], quick, args, image_and_command].concat());
}

fn inspect(agent: &Agent, service: &str) -> Value {
    let text = agent.must(&["service", "inspect", service]);
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

fn tasks(agent: &Agent, service: &str) -> Vec<Value> {
    let text = agent.must(&["service", "ps", service, "--format", "json"]);
    serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone()
}

fn in_state(agent: &Agent, service: &str, state: &str) -> usize {
    let state = format!("TASK_STATE_{state}");
    tasks(agent, service).iter().filter(|task| task["status"]["state"] == state.as_str()).count()
}

#[test]
fn every_example_of_the_page_on_services_works() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_busybox();
    let page = include_str!("../../docs/services.md");
    let mut names = Vec::new();
    for block in page.split("```yaml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        let Some(name) = text.strip_prefix("# example: ").and_then(|text| text.lines().next())
        else {
            continue;
        };
        let file = agent.file(&format!("{name}.yml"), text);
        agent.must(&["stack", "deploy", "-f", &file, name, "--timeout", "60s"]);
        agent.must(&["stack", "rm", name]);
        names.push(name.to_owned());
    }
    assert!(names.len() >= 15, "{names:?}");
    assert_eq!(agent.must(&["secret", "ls", "-q"]) + &agent.must(&["config", "ls", "-q"]), "");
}

#[test]
fn twenty_updates_under_load_lose_no_request() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_hello();
    let file = agent.file(
        "load.yml",
        "services:\n  web:\n    image: shoal-hello\n    command: [/hello, web]\n    ports: [\"8080:8080\"]\n    \
         environment: {VERSION: \"0\"}\n    healthcheck:\n      \
         test: [CMD, /hello, check, \"http://127.0.0.1:8080/health\"]\n      interval: 1s\n    \
         deploy:\n      replicas: 2\n      \
         update_config: {order: start-first, parallelism: 0, monitor: 0s}\n",
    );
    agent.must(&["stack", "deploy", "-f", &file, "load", "--timeout", "60s"]);
    let url = format!("http://{}:8080/health#[1-1000000]", agent.host.address());
    let log = agent.dir().join("answers");
    let mut load = agent
        .host
        .command_outside("curl")
        .args(["-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}\n", "-H"])
        .args(["Connection: close", &url])
        .stdout(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    for number in 1..=20 {
        let variable = format!("VERSION={number}");
        agent.must(&["service", "update", "-q", "--env", &variable, "load_web"]);
    }
    load.kill().unwrap();
    load.wait().unwrap();
    let answers = fs::read_to_string(&log).unwrap();
    // The last one may be cut off.
    let whole = answers.rsplit_once('\n').unwrap().0;
    let failed: Vec<&str> = whole.lines().filter(|code| *code != "200").collect();
    println!("{} requests, {} failed", whole.lines().count(), failed.len());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(whole.lines().count() > 200);
    assert_eq!(inspect(&agent, "load_web")["specVersion"], "21");
}

#[test]
fn what_does_not_come_up_goes_back_or_waits_and_says_why() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_busybox();
    create(&agent, &["--name", "web", "--replicas", "3"], &["busybox", "sleep", "1000"]);
    let before = tasks(&agent, "web");
    // An image that is not there.
    let failed = agent.ctl(&["service", "update", "--image", "none:1", "web"]);
    assert!(
        failed.code == 1 && failed.stderr.contains("is not updated any further"),
        "{failed:#?}"
    );
    assert_eq!(in_state(&agent, "web", "RUNNING"), 3, "it has cost no task");
    agent.must(&["service", "rollback", "web"]);
    let after = tasks(&agent, "web");
    let runs = |tasks: &[Value]| -> Vec<String> {
        let running = tasks.iter().filter(|task| task["status"]["state"] == "TASK_STATE_RUNNING");
        running.map(|task| task["id"].to_string()).collect()
    };
    assert_eq!(runs(&after), runs(&before), "the same tasks");
    // A command that fails, taken back by itself.
    let failed = agent.ctl(&[
        "service",
        "update",
        "--update-failure-action",
        "rollback",
        "--args",
        "false",
        "web",
    ]);
    assert!(failed.code == 1 && failed.stderr.contains("was rolled back"), "{failed:#?}");
    assert_eq!(inspect(&agent, "web")["update"]["state"], "UPDATE_STATE_ROLLED_BACK");
    assert_eq!(in_state(&agent, "web", "RUNNING"), 3);
    let history = agent.must(&["service", "history", "web"]);
    assert!(history.contains("rolled back to revision"), "{history}");
    // A health check that never passes.
    let failed = agent.ctl(&[
        "service",
        "update",
        "--health-cmd",
        "echo no; false",
        "--health-start-period",
        "1h",
        "--update-progress-deadline",
        "3s",
        "web",
    ]);
    assert!(
        failed.code == 1 && failed.stderr.contains("health check: exit code 1: no"),
        "{failed:#?}"
    );
    let gone = agent.ctl(&["service", "rollback", "--to", "99", "web"]);
    assert!(gone.code == 1 && gone.stderr.contains("has no revision 99"), "{gone:#?}");
    agent.must(&["service", "rm", "web"]);
}

#[test]
fn jobs_end_and_are_run_again() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_busybox();
    create(
        &agent,
        &["--name", "job", "--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2"],
        &["busybox", "sh", "-c", "sleep 0.3"],
    );
    assert_eq!(in_state(&agent, "job", "COMPLETE"), 5);
    let shown = agent.must(&["service", "ls"]);
    assert!(shown.contains("replicated job") && shown.contains("5/5 completed"), "{shown}");
    agent.must(&["service", "update", "--force", "job"]);
    assert_eq!(inspect(&agent, "job")["job"]["iteration"], "2");
    let failed = agent.ctl(&[
        "service",
        "create",
        "--name",
        "bad",
        "--mode",
        "replicated-job",
        "--restart-condition",
        "none",
        "busybox",
        "false",
    ]);
    assert!(failed.code == 1 && failed.stderr.contains("exit code 1"), "{failed:#?}");
    create(&agent, &["--name", "tick", "--schedule", "* * * * *"], &["busybox", "true"]);
    // At the most a minute.
    let deadline = Instant::now() + Duration::from_secs(75);
    while in_state(&agent, "tick", "COMPLETE") == 0 {
        assert!(Instant::now() < deadline, "{:#?}", inspect(&agent, "tick")["job"]);
        std::thread::sleep(Duration::from_millis(300));
    }
    let wrong = agent.ctl(&["service", "create", "--schedule", "61 * * * *", "busybox", "true"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("can't be read"), "{wrong:#?}");
}

#[test]
fn secrets_are_in_memory_alone_and_their_new_versions_reach_the_tasks() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = Agent::start();
    agent.import_busybox();
    let first = agent.file("secret", "first-secret-value");
    agent.must(&["secret", "create", "key", &first, "-l", "app=web"]);
    let config = agent.file("config", "I am {{.Task.Name}} with {{secret \"key\"}}\n");
    agent.must(&["config", "create", "--template-driver", "golang", "page", &config]);
    let plain = agent.file("plain", "level-7");
    agent.must(&["config", "create", "level", &plain]);
    create(
        &agent,
        &[
            "--name",
            "web",
            "--secret",
            "source=key,target=token,uid=33,gid=33,mode=0400",
            "--config",
            "source=page,target=/etc/page",
            "--config",
            "source=level,env=LEVEL",
            "-e",
            "SLOT={{.Task.Slot}}",
        ],
        &["busybox", "sleep", "1000"],
    );
    let seen = |command: &str| agent.must(&["exec", "web.1", "sh", "-c", command]);
    assert_eq!(seen("cat /run/secrets/token"), "first-secret-value");
    assert_eq!(seen("stat -c '%u %g %a' /run/secrets/token").trim(), "33 33 400");
    assert_eq!(seen("echo $LEVEL $SLOT").trim(), "level-7 1");
    let page = seen("cat /etc/page");
    assert!(page.starts_with("I am web.1.") && page.contains("with first-secret-value"), "{page}");
    let kept = agent.ctl(&["exec", "web.1", "sh", "-c", "echo x > /run/secrets/token"]);
    assert_ne!(kept.code, 0, "it can't be written to");
    // Nowhere on disk: the managers' log and what the agent keeps are looked through.
    let found = agent
        .host
        .run("grep", &["-rl", "first-secret-value", agent.dir().join("data").to_str().unwrap()]);
    assert_eq!(found, "");
    assert!(agent.must(&["secret", "inspect", "key"]).find("first-secret").is_none());

    let second = agent.file("secret2", "second");
    let updated = agent.must(&["secret", "update", "key", &second]);
    assert!(updated.contains("web"), "{updated}");
    until(
        "the new version is there",
        || agent.ctl(&["exec", "web.1", "cat", "/run/secrets/token"]).stdout,
        |token| token == "second",
    );
    until(
        "the old one is collected",
        || agent.must(&["secret", "ls", "--format", "json"]),
        |text| serde_json::from_str::<Value>(text).unwrap()[0]["versions"] == "1",
    );
    // An agent that starts anew has them still.
    agent.end("-9");
    agent.restart();
    assert_eq!(agent.must(&["exec", "web.1", "cat", "/run/secrets/token"]), "second");
    let used = agent.ctl(&["secret", "rm", "key"]);
    assert!(used.code == 1 && used.stderr.contains("is used by web"), "{used:#?}");
    let big = agent.file("big", &"x".repeat(512_001));
    let refused = agent.ctl(&["secret", "create", "big", &big]);
    assert!(refused.code == 1 && refused.stderr.contains("512000"), "{refused:#?}");
    let taken = agent.ctl(&["secret", "create", "key", &first]);
    assert!(taken.code == 1 && taken.stderr.contains("ctl secret update key"), "{taken:#?}");
    agent.must(&["service", "rm", "web"]);
    until("nothing uses it", || agent.ctl(&["secret", "rm", "key"]).code, |code| *code == 0);
}

#[test]
fn three_nodes_global_drained_rebalanced_and_placed() {
    let _turn = turn();
    if skip() {
        return;
    }
    let cluster = Managers::start(1, 2);
    let agent = &cluster.managers[0];
    create(agent, &["--name", "all", "--mode", "global"], &["busybox", "sleep", "1000"]);
    assert_eq!(in_state(agent, "all", "RUNNING"), 3);
    agent.must(&["node", "update", "--availability", "drain", "w2"]);
    until("it is drained", || in_state(agent, "all", "RUNNING"), |count| *count == 2);
    create(
        agent,
        &["--name", "web", "--replicas", "4", "--update-order", "start-first"],
        &["busybox", "sleep", "1000"],
    );
    agent.must(&["cluster", "update", "--rebalance", "on", "--rebalance-interval", "1s"]);
    agent.must(&["node", "update", "--availability", "active", "w2"]);
    let on = |node: &str| {
        let text = agent.must(&["node", "ps", node, "--format", "json"]);
        let tasks: Value = serde_json::from_str(&text).unwrap();
        let running = tasks.as_array().unwrap().iter().filter(|task| {
            task["status"]["state"] == "TASK_STATE_RUNNING"
                && task["desiredState"] == "TASK_STATE_RUNNING"
        });
        running.map(|task| task["serviceName"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("it has its own again", || on("w2"), |names| names.iter().any(|name| name == "all"));
    until("one has moved", || on("w2"), |names| names.iter().any(|name| name == "web"));
    until("its old one has gone", || in_state(agent, "web", "RUNNING"), |count| *count == 4);
    // What can't be placed says why, and for how many nodes.
    let late = agent.ctl(&[
        "service",
        "create",
        "--name",
        "big",
        "--reserve-memory",
        "900g",
        "--constraint",
        "node.hostname!=nowhere",
        "--timeout",
        "3s",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert!(late.code == 1 && late.stderr.contains("3 lack memory"), "{late:#?}");
    let shown = agent.must(&["service", "ps", "--no-trunc", "big"]);
    assert!(shown.contains("no suitable node (3 lack memory)"), "{shown}");
    let never = agent.ctl(&[
        "service",
        "create",
        "--constraint",
        "node.role==manager",
        "--constraint",
        "node.role==worker",
        "busybox",
        "true",
    ]);
    assert!(never.code == 1 && never.stderr.contains("no node ever meets both"), "{never:#?}");
    let apart = ["--name", "apart", "--replicas", "3", "--anti-affinity", "apart"];
    create(agent, &apart, &["busybox", "sleep", "1000"]);
    for node in ["m1", "w1", "w2"] {
        assert_eq!(on(node).iter().filter(|name| *name == "apart").count(), 1, "{node}");
    }
    // A volume's files stay where they are.
    create(
        agent,
        &["--name", "db", "--mount", "type=volume,source=data,target=/data"],
        &["busybox", "sleep", "1000"],
    );
    let home = tasks(agent, "db")[0]["nodeId"].clone();
    for _ in 0..3 {
        agent.must(&["service", "update", "--force", "db"]);
    }
    assert!(tasks(agent, "db").iter().all(|task| task["nodeId"] == home));
    let filtered = agent.must(&["service", "ps", "-f", "desired-state=shutdown", "-q", "db"]);
    assert_eq!(filtered.lines().count(), 3);
}
