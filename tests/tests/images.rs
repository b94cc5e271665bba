//! Images from a real registry, by an agent that runs services of them; and what goes wrong.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use shoal_tests::{Agent, Registry, hello_tar, skip, turn, until};

/// The example's image in the registry; returns its digest.
fn put_hello(registry: &Registry, config: &Value) -> String {
    let layer = registry.scratch().join("hello.tar");
    fs::copy(hello_tar(), &layer).unwrap();
    registry.put("hello", "1", &[layer], config)
}

fn web() -> Value {
    json!({"Cmd": ["/hello", "web"], "ExposedPorts": {"8080/tcp": {}}})
}

fn service(image: &str) -> String {
    format!("services:\n  web:\n    image: {image}\n    ports: [\"8080:8080\"]\n")
}

/// Work under way and what interrupted work has left.
fn unfinished(agent: &Agent) -> Vec<PathBuf> {
    let read = fs::read_dir(agent.dir().join("data/images/tmp")).into_iter().flatten().flatten();
    read.map(|entry| entry.path()).collect()
}

#[test]
fn services_run_from_a_registry_by_tag_and_by_digest() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    let mut registry = Registry::new();
    registry.serve(&agent.host);
    let digest = put_hello(&registry, &web());
    let name = format!("{}/hello", registry.address());
    for image in [format!("{name}:1"), format!("{name}@{digest}")] {
        let file = agent.file("app.yml", &service(&image));
        agent.must(&["stack", "deploy", "-f", &file, "app"]);
        assert!(agent.host.get_from_outside(8080, "/whoami").is_some(), "{image}");
        if !image.contains('@') {
            let used = agent.ctl(&["image", "rm", &image]);
            assert!(used.code == 1 && used.stderr.contains("is used by"), "{used:#?}");
        }
        agent.must(&["stack", "rm", "app"]);
    }
    agent.must(&["image", "rm", "-f", &format!("{name}:1")]);
    assert_eq!(agent.must(&["image", "ls", "-q"]), "");
    // Once here, the registry is not needed again.
    agent.must(&["image", "pull", &format!("{name}@{digest}")]);
    registry.stop();
    let file = agent.file("app.yml", &service(&format!("{name}@{digest}")));
    agent.must(&["stack", "deploy", "-f", &file, "app"]);
}

#[test]
fn a_registry_with_a_certificate_of_its_own_needs_its_authority() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = Agent::prepare();
    let mut registry = Registry::new();
    let authority = registry.serve_tls(&agent.host);
    let _digest = put_hello(&registry, &web());
    let image = format!("{}/hello:1", registry.address());
    agent.restart();
    let refused = agent.ctl(&["image", "pull", &image]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("certificate"), "{refused:#?}");
    agent.end("-TERM");
    agent.settings(&format!(
        "[registries.\"{}\"]\nca = \"{}\"\n",
        registry.address(),
        authority.display()
    ));
    agent.restart();
    let pulled = agent.must(&["image", "pull", "-q", &image]);
    assert!(pulled.starts_with("sha256:"), "{pulled}");
}

#[test]
fn what_a_registry_gets_wrong_is_told_and_leaves_nothing() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    let mut registry = Registry::new();
    registry.serve(&agent.host);
    let digest = put_hello(&registry, &web());
    let image = format!("{}/hello:1", registry.address());
    let none = agent.ctl(&["image", "pull", &format!("{}/hello:2", registry.address())]);
    assert!(none.code == 1 && none.stderr.contains("hello:2"), "{none:#?}");
    // The right length and the wrong bytes.
    let layer = registry.manifest(&digest)["layers"][0]["digest"].as_str().unwrap().to_owned();
    let mut bytes = fs::read(registry.blob(&layer)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(registry.blob(&layer), bytes).unwrap();
    let damaged = agent.ctl(&["image", "pull", &image]);
    assert_eq!(damaged.code, 1);
    assert!(damaged.stderr.contains(&layer[7..19]), "names the layer: {damaged:#?}");
    registry.stop();
    let away = agent.ctl(&["image", "pull", &image]);
    assert!(away.code == 1 && away.stderr.contains(registry.address()), "{away:#?}");
    assert_eq!(agent.must(&["image", "ls", "-q"]), "");
    assert_eq!(unfinished(&agent), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_is_told_and_the_agent_goes_on() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = Agent::prepare();
    agent.limit_data("48m");
    let mut registry = Registry::new();
    registry.serve(&agent.host);
    let _digest = put_hello(&registry, &web());
    let large = registry.scratch().join("large.tar");
    let bytes: Vec<u8> = (0u32..16 << 20).flat_map(|n| (n ^ (n >> 7)).to_le_bytes()).collect();
    fs::write(registry.scratch().join("large"), bytes).unwrap();
    let tar = Command::new("tar")
        .arg("-cf")
        .arg(&large)
        .arg("-C")
        .arg(registry.scratch())
        .arg("large")
        .status()
        .unwrap();
    assert!(tar.success());
    let _digest = registry.put("large", "1", &[large], &json!({"Cmd": ["/large"]}));
    agent.restart();
    let full = agent.ctl(&["image", "pull", &format!("{}/large:1", registry.address())]);
    assert_eq!(full.code, 1);
    assert!(full.stderr.to_lowercase().contains("no space left"), "{full:#?}");
    assert_eq!(unfinished(&agent), Vec::<PathBuf>::new());
    // What was half there has gone: a smaller one has room.
    let file = agent.file("app.yml", &service(&format!("{}/hello:1", registry.address())));
    agent.must(&["stack", "deploy", "-f", &file, "app"]);
    assert!(agent.host.get_from_outside(8080, "/whoami").is_some());
}

#[test]
fn an_images_own_health_check_counts() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    let mut registry = Registry::new();
    registry.serve(&agent.host);
    let mut config = web();
    // Never passes; times in nanoseconds.
    config["Healthcheck"] =
        json!({"Test": ["CMD", "/hello", "nonsense"], "Interval": 50_000_000, "Retries": 2});
    let _digest = put_hello(&registry, &config);
    let image = format!("{}/hello:1", registry.address());
    let file = agent.file("app.yml", &service(&image));
    let output = agent.ctl(&["stack", "deploy", "-f", &file, "app", "--timeout", "15s"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("health check failed: exit code 2"), "{output:#?}");
    agent.must(&["stack", "rm", "app"]);
    let text = service(&image) + "    healthcheck: {disable: true}\n";
    let file = agent.file("app.yml", &text);
    agent.must(&["stack", "deploy", "-f", &file, "app"]);
}

#[test]
fn a_new_volume_begins_with_what_the_image_has_there() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    let mut registry = Registry::new();
    registry.serve(&agent.host);
    let tree = registry.scratch().join("tree");
    fs::create_dir_all(tree.join("data")).unwrap();
    fs::write(tree.join("data/seed"), "from the image").unwrap();
    let seed = registry.scratch().join("seed.tar");
    let tar = Command::new("tar").arg("-cf").arg(&seed).arg("-C").arg(&tree).arg("data").status();
    assert!(tar.unwrap().success());
    let hello = registry.scratch().join("hello.tar");
    fs::copy(hello_tar(), &hello).unwrap();
    let _digest = registry.put("seeded", "1", &[hello, seed], &web());
    let image = format!("{}/seeded:1", registry.address());
    let text = format!(
        "services:\n  web:\n    image: {image}\n    volumes: [\"state:/data\"]\nvolumes: {{state: {{}}}}\n"
    );
    let file = agent.file("app.yml", &text);
    agent.must(&["stack", "deploy", "-f", &file, "app"]);
    let volume = agent.dir().join("data/volumes/app_state/_data/seed");
    assert_eq!(fs::read_to_string(&volume).unwrap(), "from the image");
    // Later, the volume is what counts.
    fs::write(&volume, "changed").unwrap();
    agent.must(&["stack", "rm", "app"]);
    agent.must(&["stack", "deploy", "-f", &file, "app"]);
    assert_eq!(fs::read_to_string(&volume).unwrap(), "changed");
}

#[test]
fn services_start_after_what_they_depend_on() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = Agent::start();
    agent.import_hello();
    let file = agent.file(
        "app.yml",
        "services:
  front:
    image: shoal-hello
    depends_on:
      back: {condition: service_healthy}
  back:
    image: shoal-hello
    command: /hello counter
    volumes: [\"/data\"]
    healthcheck: {test: [CMD, /hello, check, \"http://127.0.0.1:9000/health\"], interval: 100ms}
  never:
    image: shoal-hello
    depends_on:
      sick: {condition: service_healthy}
  sick:
    image: shoal-hello
    healthcheck: {test: [CMD, /hello, nonsense], interval: 10s, retries: 9}
",
    );
    agent.must(&["stack", "deploy", "-d", "-f", &file, "app"]);
    until(
        "those that can run do",
        || agent.running("app"),
        |tasks| {
            let names: Vec<&str> = tasks.iter().map(|(_, _, name)| name.as_str()).collect();
            names == ["app_back.1", "app_front.1"] || names == ["app_front.1", "app_back.1"]
        },
    );
    let since = |service: &str| {
        let text = agent.must(&["service", "ps", service, "--format", "json"]);
        let tasks: Value = serde_json::from_str(&text).unwrap();
        tasks[0]["status"]["since"].as_str().unwrap().to_owned()
    };
    assert!(since("app_back") <= since("app_front"), "the healthy one was first");
    let waits = agent.must(&["stack", "ps", "app"]);
    assert!(waits.contains("app_sick to be healthy"), "{waits}");
}
