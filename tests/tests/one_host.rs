//! One agent on one host, from the outside: what a new user does on the first day, and what goes
//! wrong on the second.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use shoal_tests::{Agent, example, skip, turn, until};

fn deploy_hello(agent: &Agent) {
    agent.import_hello();
    let file = example("hello/compose.yml");
    agent.must(&["stack", "deploy", "-f", file.to_str().unwrap(), "--timeout", "60s"]);
}

#[test]
fn the_example_answers_inside_and_out_and_leaves_nothing() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = Agent::start();
    let before = agent.traces();
    deploy_hello(&agent);
    assert_eq!(agent.running("hello").len(), 4);

    let whoami = agent.host.get_from_outside(8080, "/whoami").unwrap();
    assert!(whoami.contains(r#""client":"192.0.2.2""#), "the client's address is kept: {whoami}");
    assert!(whoami.contains(r#""count":1"#), "the counter is called by name: {whoami}");
    let replicas: BTreeSet<String> = (0..12)
        .filter_map(|_| agent.host.get_from_outside(8080, "/whoami"))
        .filter_map(|answer| answer.split('"').nth(3).map(str::to_owned))
        .collect();
    assert_eq!(replicas.len(), 3, "all replicas take part");
    assert!(agent.host.get_from_loopback(8080, "/").unwrap().contains("Hello from Shoal"));

    agent.must(&["service", "scale", "hello_web=5"]);
    assert_eq!(agent.running("hello").len(), 6);
    agent.must(&["service", "scale", "hello_web=1"]);
    assert_eq!(agent.running("hello").len(), 2);
    let logs = agent.must(&["service", "logs", "hello_counter"]);
    assert!(logs.contains("/hit"), "{logs}");

    agent.must(&["stack", "rm", "hello"]);
    assert_eq!(agent.must(&["stack", "ls", "-q"]), "");
    until("ports are closed", || agent.host.get_from_loopback(8080, "/"), Option::is_none);
    agent.end("-TERM");
    assert_eq!(agent.traces(), before, "the host is as it was");
}

#[test]
fn containers_outlive_a_killed_agent() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = Agent::start();
    deploy_hello(&agent);
    let before = agent.running("hello");
    agent.end("-9");
    assert!(agent.host.get_from_outside(8080, "/whoami").is_some(), "traffic goes on");
    // One dies while nobody looks.
    let (_, pid, victim) = before.iter().find(|(_, _, name)| name.contains("web")).unwrap().clone();
    Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    agent.restart();
    let after = until(
        "the dead one is replaced",
        || agent.running("hello"),
        |now| now.len() == 4 && *now != before,
    );
    let kept = before.iter().filter(|task| after.contains(task)).count();
    assert_eq!(kept, 3, "the others are the same tasks with the same processes");
    assert!(after.iter().any(|(_, _, name)| *name == victim));
    let logs = agent.must(&["service", "logs", "hello_web"]);
    assert!(logs.contains("/whoami"), "what was written without an agent is there: {logs}");
}

#[test]
fn a_reboot_brings_everything_back() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = Agent::start();
    deploy_hello(&agent);
    let count = |agent: &Agent| {
        let answer = agent.host.get_from_outside(8080, "/whoami")?;
        answer.rsplit(':').next()?.trim_end_matches(['}', '\n']).parse::<u64>().ok()
    };
    until("it counts", || count(&agent), |count| count.is_some_and(|count| count > 2));
    agent.reboot();
    until("all is back", || agent.running("hello"), |running| running.len() == 4);
    let after = until("it counts on", || count(&agent), Option::is_some);
    assert!(after.unwrap() > 3, "the volume was kept");
}

#[test]
fn stacks_do_not_see_each_other() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_hello();
    let file = agent.file(
        "one.yml",
        "services:\n  counter:\n    image: shoal-hello\n    command: /hello counter\n    volumes: [\"/data\"]\n",
    );
    agent.must(&["stack", "deploy", "-f", &file, "one"]);
    let file = agent
        .file("two.yml", "services:\n  web:\n    image: shoal-hello\n    ports: [\"8081:8080\"]\n");
    agent.must(&["stack", "deploy", "-f", &file, "two"]);
    let page = agent.host.get_from_outside(8081, "/").unwrap();
    assert!(page.contains("can't be reached"), "{page}");
    let tasks: serde_json::Value =
        serde_json::from_str(&agent.must(&["stack", "ps", "one", "--format", "json"])).unwrap();
    let address = tasks[0]["networks"][0]["address"].as_str().unwrap();
    let address = address.split('/').next().unwrap();
    let (_, pid, _) = agent.running("two")[0].clone();
    // By address, from inside the other stack's container.
    let reached = Command::new("nsenter")
        .args([&format!("--net=/proc/{pid}/ns/net"), "curl", "-s", "-m", "2"])
        .arg(format!("http://{address}:9000/health"))
        .output()
        .unwrap();
    assert!(!reached.status.success(), "networks are apart");
}

#[test]
fn wrong_files_are_told_with_their_place() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_hello();
    for (text, words) in [
        (
            "services:\n  web:\n    imagee: x\n",
            "wrong.yml:3:5: services.web: unknown key \"imagee\"; did you mean \"image\"?",
        ),
        (
            "services:\n  web:\n    image: x\n    build: .\n",
            "wrong.yml:4:5: services.web.build: not supported yet",
        ),
        ("services: [\n", "wrong.yml:"),
        ("services:\n  web:\n    image: x\n    ports: [\"no\"]\n", "\"no\" is not a port"),
        ("services:\n  web:\n    image: x\n    networks: [back]\n", "there is no network \"back\""),
        (
            "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n",
            "wait for each other",
        ),
    ] {
        let file = agent.file("wrong.yml", text);
        let output = agent.ctl(&["stack", "deploy", "-f", &file, "wrong"]);
        assert_eq!(output.code, 1, "{output:#?}");
        assert!(output.stderr.contains(words), "want {words:?} in {output:#?}");
    }
    let missing = agent.ctl(&["stack", "deploy", "-f", "/nowhere.yml"]);
    assert!(missing.code == 1 && missing.stderr.contains("/nowhere.yml"), "{missing:#?}");
    assert_eq!(agent.ctl(&["stack", "explode"]).code, 2);
    assert_eq!(agent.must(&["stack", "ls", "-q"]), "");
}

#[test]
fn what_cannot_run_says_why_and_leaves_nothing() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_hello();
    let mut taken = agent.host.command("busybox");
    let mut taken = taken
        .args(["nc", "-ll", "-p", "8082", "-e", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the port is taken", || agent.host.run("ss", &["-ltn"]), |out| out.contains(":8082"));
    for (service, words) in [
        ("image: 127.0.0.1:9/none:1", "127.0.0.1:9"),
        ("image: shoal-hello\n    command: /nothing", "\"/nothing\": no such file"),
        ("image: shoal-hello\n    user: nobody", "no user \"nobody\""),
        ("image: shoal-hello\n    command: /hello nonsense\n    restart: \"no\"", "exit code 2"),
        (
            "image: shoal-hello\n    ports: [\"8082:8080\"]",
            "port 8082/tcp is already in use on this node by",
        ),
        (
            "image: shoal-hello\n    deploy: {resources: {reservations: {memory: 900g}}}",
            "1 lacks memory",
        ),
    ] {
        let text = format!("services:\n  web:\n    {service}\n");
        let file = agent.file("bad.yml", &text);
        let output = agent.ctl(&["stack", "deploy", "-f", &file, "bad", "--timeout", "6s"]);
        assert_eq!(output.code, 1, "{service}: {output:#?}");
        assert!(output.stderr.contains(words), "{service}: want {words:?} in {output:#?}");
        agent.must(&["stack", "rm", "bad"]);
    }
    taken.kill().unwrap();
    taken.wait().unwrap();
    assert!(agent.traces().starts_with("shims: 0\ncontainers: 0\n"), "{}", agent.traces());
}

#[test]
fn each_task_has_a_named_resource_of_its_own_or_waits_for_one() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = Agent::prepare();
    agent.settings("generic-resources = [\"gpu=gpu-b\", \"gpu=gpu-a\"]\n");
    agent.restart();
    agent.import_busybox();
    let text = r#"
services:
  web:
    image: busybox
    command: ["sh", "-c", "echo $$DOCKER_RESOURCE_GPU; sleep 1000"]
    stop_grace_period: 0s
    deploy:
      replicas: 3
      resources:
        reservations:
          generic_resources:
            - discrete_resource_spec: {kind: gpu, value: 1}
"#;
    let file = agent.file("app.yml", text);
    agent.must(&["stack", "deploy", "-f", &file, "app", "--detach"]);
    let said = || {
        let logs = agent.ctl(&["service", "logs", "--no-task", "app_web"]).stdout;
        logs.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    until("two have one each", said, |said| said.iter().eq(["gpu-a", "gpu-b"]));
    until(
        "the third waits",
        || agent.must(&["stack", "ps", "--no-trunc", "app"]),
        |tasks| tasks.contains("no suitable node (1 lacks generic resource gpu)"),
    );
    let node = agent.must(&["node", "ls", "-q"]);
    let node = agent.must(&["node", "inspect", node.trim()]);
    assert!(node.contains(r#""kind": "gpu""#) && node.contains(r#""gpu-a""#), "{node}");
    assert!(agent.must(&["info"]).contains("Generic resources: gpu=gpu-a, gpu=gpu-b"));
}

#[test]
fn one_agent_a_folder_and_several_a_machine() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    let second = agent.command().output().unwrap();
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && error.contains("another agent (pid"), "{error}");
    // Other folders, the same host: another port is found, both work.
    let dir = agent.dir().join("second");
    let mut command = agent.host.command(shoal_tests::binary("agent").to_str().unwrap());
    let log = fs::File::create(agent.dir().join("second.log")).unwrap();
    let mut other = command
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg("--run-dir")
        .arg(dir.join("run"))
        .stderr(log)
        .spawn()
        .unwrap();
    let socket = format!("unix://{}", dir.join("run/shoal.sock").display());
    until(
        "the second answers",
        || {
            Command::new(shoal_tests::binary("ctl"))
                .args(["--host", &socket, "info"])
                .output()
                .unwrap()
        },
        |output| output.status.success(),
    );
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn only_root_and_only_with_an_agent() {
    let _turn = turn();
    if skip() {
        return;
    }
    let nobody = 65_534;
    let copy = tempfile::Builder::new().prefix("shoal-test-").tempdir().unwrap();
    let program = copy.path().join("agent");
    fs::copy(shoal_tests::binary("agent"), &program).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(copy.path(), mode).unwrap();
    let output = Command::new(&program).uid(nobody).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("must run as root"), "{error}");
    let agent = Agent::prepare();
    let output = agent.ctl(&["info"]);
    assert!(output.code == 1 && output.stderr.contains("is it running?"), "{output:#?}");
}

#[test]
fn an_update_that_cannot_run_costs_no_running_task() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_hello();
    let service = |image: &str| {
        format!(
            "services:\n  web:\n    image: {image}\n    ports: [\"8083:8080\"]\n    deploy: {{replicas: 2}}\n"
        )
    };
    let file = agent.file("app.yml", &service("shoal-hello"));
    agent.must(&["stack", "deploy", "-f", &file, "app"]);
    let before = agent.running("app");
    let file = agent.file("app.yml", &service("127.0.0.1:9/none:1"));
    let output = agent.ctl(&["stack", "deploy", "-f", &file, "app", "--timeout", "20s"]);
    assert_eq!(output.code, 1, "{output:#?}");
    assert_eq!(agent.running("app"), before);
    assert!(agent.host.get_from_outside(8083, "/whoami").is_some());
    let text = service("shoal-hello") + "    environment: {CHANGED: \"1\"}\n";
    let file = agent.file("app.yml", &text);
    agent.must(&["stack", "deploy", "-f", &file, "app"]);
    let after = agent.running("app");
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|task| !before.contains(task)), "both were replaced");
}
