//! Single containers through a real agent: what `docker run` and its family do.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde_json::Value;
use shoal_tests::{Agent, Output, binary, skip, turn, until};

/// An agent with a busybox image.
fn start() -> Agent {
    let agent = Agent::start();
    agent.import_busybox();
    agent
}

/// A command that must come to this exit code.
fn ends(agent: &Agent, code: i32, args: &[&str]) -> Output {
    let output = agent.ctl(args);
    assert_eq!(output.code, code, "ctl {args:?}: {output:#?}\n{}", agent.log());
    output
}

fn run(agent: &Agent, args: &[&str]) -> String {
    agent.must(&[&["run", "--rm"][..], args].concat())
}

fn inspect(agent: &Agent, name: &str) -> Value {
    let text = agent.must(&["inspect", name]);
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

fn state(agent: &Agent, name: &str) -> String {
    let text = agent.must(&["ps", "-a", "--filter", &format!("name={name}"), "--format", "json"]);
    let containers: Value = serde_json::from_str(&text).unwrap();
    let status = containers[0]["state"]["status"].as_str().unwrap_or("CONTAINER_STATUS_CREATED");
    status.trim_start_matches("CONTAINER_STATUS_").to_lowercase()
}

#[test]
fn run_has_the_commands_exit_code_and_leaves_nothing() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = start();
    let before = agent.traces();
    assert_eq!(run(&agent, &["busybox", "echo", "hello"]), "hello\n");
    ends(&agent, 7, &["run", "--rm", "busybox", "sh", "-c", "exit 7"]);
    ends(&agent, 137, &["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"]);
    let missing = ends(&agent, 127, &["run", "--rm", "busybox", "nowhere"]);
    assert!(missing.stderr.contains("\"nowhere\": executable file not found"), "{missing:#?}");
    let plain = ends(&agent, 126, &["run", "--rm", "busybox", "/etc/passwd"]);
    assert!(plain.stderr.contains("not executable"), "{plain:#?}");
    let both = ends(&agent, 0, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    // Refused before anything starts.
    for (args, words) in [
        (&["--cap-add", "NOTHING"][..], "no capability"),
        (&["--stop-signal", "SIGNOTHING"], "no signal"),
        (&["--sysctl", "kernel.hostname=x"], "not of the container's own namespaces"),
        (&["--device", "/dev/nowhere"], "/dev/nowhere"),
        (&["--ulimit", "nothing=1"], "no resource limit"),
        (&["--security-opt", "magic=1"], "unknown security option"),
        (&["--network", "nowhere"], "no such network: nowhere"),
        (&["--pid", "container:nobody"], "no such container: nobody"),
        (&["--log-driver", "pigeon"], "log driver \"pigeon\""),
        (&["--restart", "always"], "--rm"),
        (&["-v", "/nowhere/at/all:relative"], "relative"),
        (&["--name", "not a name"], "can't be a container's name"),
        (&["--memory", "64m", "--memory-swap", "32m"], "below the memory's"),
    ] {
        let args = [&["run", "--rm"][..], args, &["busybox", "true"]].concat();
        let refused = ends(&agent, 125, &args);
        assert!(refused.stderr.contains(words), "{args:?}: want {words:?} in {refused:#?}");
    }
    let unknown = ends(&agent, 125, &["run", "--rm", "127.0.0.1:9/nothing", "true"]);
    assert!(unknown.stderr.contains("127.0.0.1:9"), "{unknown:#?}");
    assert_eq!(agent.must(&["ps", "-aq"]), "");
    agent.end("-TERM");
    assert_eq!(agent.traces(), before, "the host is as it was");
}

#[test]
fn streams_and_terminals_are_the_containers() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = start();
    let socket = format!("unix://{}", agent.dir().join("run/shoal.sock").display());
    // A megabyte through and back.
    let mut child = Command::new(binary("ctl"))
        .args(["--host", &socket, "run", "--rm", "-i", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes = "0123456789abcdef".repeat(64 << 10);
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(sent.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.stdout == bytes.as_bytes(), "what goes in comes out");
    // Through a terminal of this side's, which script(1) makes. Typed once the marker is seen:
    // before that the terminal is not the container's yet.
    let on_terminal = |line: &str, marker: &str, typed: &str| {
        let line = format!("{} --host {socket} {line}", binary("ctl").display());
        let mut child = Command::new("timeout")
            .args(["30", "script", "-qfec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        let mut is_typed = false;
        loop {
            if !is_typed && String::from_utf8_lossy(&text).contains(marker) {
                stdin.write_all(typed.as_bytes()).unwrap();
                stdin.flush().unwrap();
                is_typed = true;
            }
            match stdout.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
            }
        }
        let status = child.wait().unwrap();
        (status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = on_terminal(
        "run --rm -it busybox sh -c 'test -t 0 && tty; read x; echo got $x; exit 5'",
        "/dev/pts/0",
        "typed\r",
    );
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("/dev/pts/0") && text.contains("got typed"), "{text}");
    // The detach keys leave it running; attach finds it again.
    let (code, text) = on_terminal("run -it --name kept busybox sh", "# ", "\x10\x11");
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(state(&agent, "kept"), "running");
    let (code, text) = on_terminal("attach kept", "", "echo 1$((1+1))3; exit 9\r");
    assert_eq!(code, Some(9), "{text}");
    assert!(text.contains("123"), "{text}");
    until("its end is recorded", || state(&agent, "kept"), |state| state == "exited");
    // exec on a terminal
    agent.must(&["run", "-d", "--name", "box", "--init", "busybox", "sleep", "1000"]);
    let (code, text) = on_terminal("exec -it box sh -c 'tty; exit 4'", "", "");
    assert!(code == Some(4) && text.contains("/dev/pts/"), "{code:?} {text}");
    let refused = ends(&agent, 125, &["run", "--rm", "-it", "busybox", "sh"]);
    assert!(refused.stderr.contains("not a terminal"), "{refused:#?}");
    let first = agent.must(&["exec", "box", "cat", "/proc/1/cmdline"]);
    assert!(!first.contains("/shoal"), "its init tells nothing of the host: {first:?}");
}

#[test]
fn a_container_goes_through_its_states() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = start();
    let line = "trap 'echo told; exit 6' TERM; echo up; while true; do sleep 0.05; done";
    let id = agent.must(&["create", "--name", "one", "busybox", "sh", "-c", line]);
    assert_eq!(state(&agent, "one"), "created");
    assert_eq!(agent.must(&["ps", "-q"]), "");
    agent.must(&["start", "one"]);
    until("it is up", || agent.must(&["logs", "one"]), |logs| logs == "up\n");
    assert_eq!(state(&agent, "one"), "running");
    agent.must(&["pause", "one"]);
    assert_eq!(state(&agent, "one"), "paused");
    let paused = agent.ctl(&["exec", "one", "true"]);
    assert!(paused.code == 1 && paused.stderr.contains("paused"), "{paused:#?}");
    agent.must(&["unpause", "one"]);
    agent.must(&["stop", "one"]);
    assert_eq!(agent.must(&["logs", "one"]), "up\ntold\n");
    assert_eq!(agent.must(&["wait", "one"]), "6\n");
    agent.must(&["restart", "one"]);
    until("it is up again", || agent.must(&["logs", "-n", "1", "one"]), |logs| logs == "up\n");
    agent.must(&["rename", "one", "two"]);
    let taken = agent.ctl(&["create", "--name", "two", "busybox"]);
    assert!(taken.code == 1 && taken.stderr.contains("\"two\""), "{taken:#?}");
    let running = agent.ctl(&["rm", "two"]);
    assert!(running.code == 1 && running.stderr.contains("is running"), "{running:#?}");
    agent.must(&["kill", "two"]);
    assert_eq!(agent.must(&["wait", "two"]), "137\n");
    // A beginning of its id is enough.
    agent.must(&["rm", &id[..8]]);
    assert_eq!(agent.must(&["ps", "-aq"]), "");
    let gone = agent.ctl(&["inspect", "two"]);
    assert!(gone.code == 1 && gone.stderr.contains("no such container: two"), "{gone:#?}");
}

#[test]
fn options_do_what_docker_says() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = start();
    let file = agent.file("variables", "# comment\nFROM_FILE=1\n");
    let shown = |args: &[&str]| run(&agent, args);
    assert_eq!(shown(&["-e", "A=b c", "busybox", "sh", "-c", "echo $A"]), "b c\n");
    assert_eq!(shown(&["--env-file", &file, "busybox", "sh", "-c", "echo $FROM_FILE"]), "1\n");
    assert_eq!(shown(&["-u", "web", "busybox", "id", "-un"]), "web\n");
    assert_eq!(shown(&["-u", "1234:5678", "--group-add", "9", "busybox", "id", "-G"]), "5678 9\n");
    assert_eq!(shown(&["-w", "/made/here", "busybox", "pwd"]), "/made/here\n");
    assert_eq!(shown(&["--entrypoint", "echo", "busybox", "x"]), "x\n");
    assert_eq!(shown(&["-h", "named", "busybox", "hostname"]), "named\n");
    assert_eq!(
        shown(&[
            "--shm-size",
            "8m",
            "busybox",
            "sh",
            "-c",
            "df /dev/shm | tail -1 | awk '{print $2}'"
        ]),
        "8192\n"
    );
    assert_eq!(
        shown(&["--ulimit", "nofile=77:99", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"]),
        "77\n99\n"
    );
    assert_eq!(
        shown(&[
            "--sysctl",
            "net.ipv4.ip_default_ttl=33",
            "busybox",
            "cat",
            "/proc/sys/net/ipv4/ip_default_ttl"
        ]),
        "33\n"
    );
    assert_eq!(
        shown(&["--oom-score-adj", "321", "busybox", "cat", "/proc/self/oom_score_adj"]),
        "321\n"
    );
    ends(&agent, 1, &["run", "--rm", "--read-only", "busybox", "touch", "/x"]);
    ends(&agent, 0, &["run", "--rm", "--read-only", "--tmpfs", "/t", "busybox", "touch", "/t/x"]);
    let host = agent.dir().join("shared");
    fs::create_dir(&host).unwrap();
    let bind = format!("{}:/in", host.display());
    shown(&["-v", &bind, "busybox", "sh", "-c", "echo kept >/in/file"]);
    assert_eq!(fs::read_to_string(host.join("file")).unwrap(), "kept\n");
    let read_only = format!("{bind}:ro");
    ends(&agent, 1, &["run", "--rm", "-v", &read_only, "busybox", "touch", "/in/x"]);
    let absent = ["--mount", "type=bind,src=/nowhere/at/all,dst=/in", "busybox", "true"];
    let absent = ends(&agent, 125, &[&["run", "--rm"][..], &absent].concat());
    assert!(absent.stderr.contains("/nowhere/at/all"), "{absent:#?}");
    shown(&["-v", "vol:/v", "busybox", "sh", "-c", "echo 1 >/v/x"]);
    assert_eq!(shown(&["-v", "vol:/v:ro", "busybox", "cat", "/v/x"]), "1\n");
    let capabilities = |args: &[&str]| {
        shown(&[args, &["busybox", "grep", "CapEff", "/proc/self/status"]].concat())
    };
    assert!(capabilities(&[]).contains("00000000a80425fb"));
    assert!(capabilities(&["--cap-drop", "ALL"]).contains("0000000000000000"));
    assert!(capabilities(&["--cap-drop", "ALL", "--cap-add", "KILL"]).contains("0000000000000020"));
    let seccomp = |args: &[&str]| {
        shown(
            &[args, &["busybox", "grep", "-E", "Seccomp:|NoNewPrivs", "/proc/self/status"]]
                .concat(),
        )
    };
    assert_eq!(seccomp(&[]), "NoNewPrivs:\t0\nSeccomp:\t2\n");
    assert_eq!(seccomp(&["--security-opt", "no-new-privileges"]), "NoNewPrivs:\t1\nSeccomp:\t2\n");
    assert_eq!(seccomp(&["--security-opt", "seccomp=unconfined"]), "NoNewPrivs:\t0\nSeccomp:\t0\n");
    let profile = agent.file(
        "profile.json",
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#,
    );
    let profile = format!("seccomp={profile}");
    ends(&agent, 1, &["run", "--rm", "--security-opt", &profile, "busybox", "mkdir", "/x"]);
    assert_eq!(
        shown(&["--add-host", "other:192.0.2.9", "busybox", "grep", "other", "/etc/hosts"]),
        "192.0.2.9\tother\n"
    );
    assert!(
        shown(&["--dns", "192.0.2.53", "busybox", "cat", "/etc/resolv.conf"])
            .contains("nameserver 192.0.2.53")
    );
    let privileged = shown(&[
        "--privileged",
        "busybox",
        "sh",
        "-c",
        "ls /dev | wc -l; mount -t tmpfs x /tmp && echo mounted",
    ]);
    assert!(privileged.contains("mounted"), "{privileged}");
    let device = ["--device", "/dev/null:/dev/nothing:r", "busybox", "ls", "/dev/nothing"];
    assert_eq!(shown(&device), "/dev/nothing\n");
    assert_eq!(shown(&["--network", "none", "busybox", "sh", "-c", "ls /sys/class/net"]), "lo\n");
    assert!(shown(&["--network", "host", "busybox", "ls", "/sys/class/net"]).contains("up0"));
    let limit = ["-m", "64m", "--pids-limit", "50", "--cpus", "0.5", "-d", "--name", "limited"];
    agent.must(&[&["run"][..], &limit, &["busybox", "sleep", "1000"]].concat());
    let stats: Value =
        serde_json::from_str(&agent.must(&["stats", "--no-stream", "--format", "json", "limited"]))
            .unwrap();
    assert_eq!(stats[0]["memoryLimitBytes"], "67108864", "{stats}");
    agent.must(&["update", "--memory", "128m", "limited"]);
    let shared = |kind: &str, mode: &str| {
        let option = format!("--{kind}");
        shown(&[&option, mode, "busybox", "readlink", &format!("/proc/self/ns/{kind}")])
    };
    let first = agent.must(&["exec", "limited", "readlink", "/proc/self/ns/pid"]);
    assert_eq!(shared("pid", "container:limited"), first);
    let first = agent.must(&["exec", "limited", "readlink", "/proc/self/ns/net"]);
    let second =
        shown(&["--network", "container:limited", "busybox", "readlink", "/proc/self/ns/net"]);
    assert_eq!(second, first);
}

#[test]
fn a_container_may_have_users_of_its_own() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = start();
    let remapped = |args: &[&str]| run(&agent, &[&["--userns", "remapped"], args].concat());
    let shown = remapped(&[
        "-v",
        "kept:/data",
        "busybox",
        "sh",
        "-c",
        "cat /proc/self/uid_map; echo 1 >/data/x; ping -c 1 $(hostname -i) >/dev/null && id -u",
    ]);
    assert!(shown.contains("1878982656") && shown.ends_with("\n0\n"), "{shown}");
    // The volume serves a container without as well.
    let listed = run(&agent, &["-v", "kept:/data", "busybox", "ls", "-ln", "/data/x"]);
    assert!(listed.contains(" 0        0 "), "{listed}");
    agent.must(&["run", "-d", "--userns", "remapped", "--name", "own", "busybox", "sleep", "1000"]);
    assert_eq!(agent.must(&["exec", "own", "id", "-u"]), "0\n");
    let file = agent.file("in", "content");
    agent.must(&["cp", &file, "own:/etc/in"]);
    let listed = agent.must(&["exec", "own", "ls", "-ln", "/etc/in"]);
    assert!(listed.contains(" 0        0 "), "{listed}");
    for option in [&["--privileged"][..], &["--network", "host"], &["--pid", "host"]] {
        let args = [&["run", "--rm", "--userns", "remapped"], option, &["busybox", "true"]];
        let refused = ends(&agent, 125, &args.concat());
        assert!(refused.stderr.contains("--userns host"), "{refused:#?}");
    }
}

#[test]
fn devices_come_by_the_names_that_vendors_give_them() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = start();
    let hook = agent.file("hook", "#!/bin/sh\ncat >\"$OUT\"\ngrep -q '\"root\"' \"$(dirname \"$OUT\")/run/containers/\"*/config.json\n");
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let out = agent.dir().join("state");
    let file = agent.file("driver", "a driver");
    let text = format!(
        r#"{{"cdiVersion": "0.6.0", "kind": "test.shoal/gpu", "devices": [{{"name": "0", "containerEdits": {{
            "env": ["GPU=0"],
            "deviceNodes": [{{"path": "/dev/gpu0", "hostPath": "/dev/zero", "permissions": "r"}}],
            "mounts": [{{"hostPath": "{file}", "containerPath": "/usr/lib/driver", "options": ["ro", "bind"]}}],
            "additionalGids": [4321],
            "hooks": [{{"hookName": "createContainer", "path": "{hook}", "args": ["hook"], "env": ["OUT={}", "PATH=/usr/bin:/bin"]}}]
        }}}}]}}"#,
        out.display()
    );
    let description = CdiFile::new(&text);
    let shown = run(
        &agent,
        &[
            "--device",
            "test.shoal/gpu=0",
            "busybox",
            "sh",
            "-c",
            "echo $GPU; head -c 3 /dev/gpu0 | wc -c; cat /usr/lib/driver; echo; id -G",
        ],
    );
    assert_eq!(shown, "0\n3\na driver\n0 4321\n");
    let state: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(state["status"], "creating");
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{state}");
    fs::write(&hook, "#!/bin/sh\necho broken >&2\nexit 3\n").unwrap();
    let failed = ["run", "--rm", "--device", "test.shoal/gpu=0", "busybox", "true"];
    let failed = ends(&agent, 125, &failed);
    assert!(failed.stderr.contains("broken"), "{failed:#?}");
    let unknown = ends(&agent, 125, &["run", "--rm", "--gpus", "all", "busybox", "true"]);
    assert!(unknown.stderr.contains("nvidia.com/gpu=all"), "{unknown:#?}");
    assert!(unknown.stderr.contains("test.shoal/gpu=0"), "it says which there are: {unknown:#?}");
    assert_eq!(agent.must(&["ps", "-aq"]), "");
    drop(description);
}

/// A description of devices where every agent looks for them; gone with the test.
struct CdiFile(std::path::PathBuf, bool);

impl CdiFile {
    fn new(text: &str) -> Self {
        let folder = std::path::Path::new("/etc/cdi");
        let made = fs::create_dir(folder).is_ok();
        let path = folder.join(format!("shoal-test-{}.json", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path, made)
    }
}

impl Drop for CdiFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        if self.1 {
            let _ = fs::remove_dir("/etc/cdi");
        }
    }
}

#[test]
fn files_go_in_and_out() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = start();
    agent.must(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]);
    let here = agent.dir().join("here");
    fs::create_dir_all(here.join("site/sub")).unwrap();
    fs::write(here.join("site/sub/page"), "content").unwrap();
    let path = |name: &str| here.join(name).display().to_string();
    agent.must(&["cp", &path("site"), "box:/srv"]);
    assert_eq!(agent.must(&["exec", "box", "cat", "/srv/sub/page"]), "content");
    agent.must(&["cp", &path("site"), "box:/srv"]);
    assert_eq!(agent.must(&["exec", "box", "cat", "/srv/site/sub/page"]), "content");
    agent.must(&["cp", &path("site/sub/page"), "box:/srv/other"]);
    agent.must(&["cp", "box:/srv/other", &path("back")]);
    assert_eq!(fs::read_to_string(here.join("back")).unwrap(), "content");
    agent.must(&["cp", "box:/srv/.", &path("all")]);
    assert_eq!(fs::read_to_string(here.join("all/sub/page")).unwrap(), "content");
    let none = agent.ctl(&["cp", "box:/nowhere", &path("x")]);
    assert!(none.code == 1 && none.stderr.contains("/nowhere"), "{none:#?}");
    let none = agent.ctl(&["cp", &path("back"), "box:/no/such/folder/x"]);
    assert!(none.code == 1 && none.stderr.contains("no folder"), "{none:#?}");
    // A link to the host's root is the container's own root.
    agent.must(&["exec", "box", "ln", "-s", "/../../../../etc", "/srv/out"]);
    agent.must(&["cp", &path("back"), "box:/srv/out/planted"]);
    assert!(!std::path::Path::new("/etc/planted").exists());
    assert_eq!(agent.must(&["exec", "box", "cat", "/etc/planted"]), "content");
    let changes = agent.must(&["diff", "box"]);
    assert!(changes.contains("A /srv/other\n") && changes.contains("C /etc\n"), "{changes}");
    agent.must(&["stop", "-t", "0", "box"]);
    // One that does not run has its files too.
    agent.must(&["cp", &path("back"), "box:/srv/late"]);
    let archive = path("export.tar");
    agent.must(&["export", "-o", &archive, "box"]);
    let listed = Command::new("tar").args(["-tf", &archive]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("srv/late") && listed.contains("bin/busybox"), "{listed}");
    agent.must(&["start", "box"]);
    assert_eq!(agent.must(&["exec", "box", "cat", "/srv/late"]), "content");
}

#[test]
fn published_ports_lead_to_the_container() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = start();
    let serve = "echo page >/index.html; exec httpd -f -p 80 -h /";
    agent.must(&["run", "-d", "--name", "web", "-p", "8090:80", "busybox", "sh", "-c", serve]);
    let get = || agent.host.get_from_outside(8090, "/");
    until("it answers outside", get, |page| page.as_deref() == Some("page\n"));
    until("and on loopback", || agent.host.get_from_loopback(8090, "/"), Option::is_some);
    assert_eq!(agent.must(&["port", "web", "80"]), "0.0.0.0:8090\n");
    let taken = agent.ctl(&["run", "-d", "-p", "8090:81", "busybox", "sleep", "1"]);
    assert!(taken.code == 125 && taken.stderr.contains("8090"), "{taken:#?}");
    // Containers of the node find each other by name.
    let page = run(&agent, &["busybox", "wget", "-q", "-O", "-", "http://web/"]);
    assert_eq!(page, "page\n");
    agent.must(&["rm", "-f", "web"]);
    until("the port is closed", get, Option::is_none);
}

#[test]
fn restarts_health_and_the_kernels_killer() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = start();
    let failing = ["run", "-d", "--name", "retry", "--restart", "on-failure:2", "busybox"];
    agent.must(&[&failing[..], &["sh", "-c", "echo try; exit 3"]].concat());
    until("it gives up", || agent.must(&["logs", "retry"]), |logs| logs.lines().count() == 3);
    until("it has ended", || state(&agent, "retry"), |state| state == "exited");
    assert_eq!(inspect(&agent, "retry")["summary"]["state"]["restartCount"], 2);
    let always = ["run", "-d", "--name", "always", "--restart", "always", "busybox"];
    agent.must(&[&always[..], &["sh", "-c", "sleep 0.1"]].concat());
    until(
        "it comes back",
        || inspect(&agent, "always")["summary"]["state"]["restartCount"].clone(),
        |count| count.as_u64() >= Some(2),
    );
    agent.must(&["stop", "-t", "1", "always"]);
    assert_eq!(state(&agent, "always"), "exited");
    let check = ["--health-cmd", "test -e /tmp/well", "--health-interval", "100ms"];
    let ill = ["--health-retries", "2", "--name", "ill", "busybox", "sleep", "1000"];
    agent.must(&[&["run", "-d"][..], &check, &ill].concat());
    let health = || inspect(&agent, "ill")["summary"]["state"]["health"].clone();
    until("it is ill", health, |health| *health == "HEALTH_UNHEALTHY");
    agent.must(&["exec", "ill", "sh", "-c", "mkdir -p /tmp && touch /tmp/well"]);
    until("it is well", health, |health| *health == "HEALTH_HEALTHY");
    let eat = "x=$(head -c 200000000 /dev/zero | tr '\\0' x)";
    let killed = agent.ctl(&["run", "--name", "eater", "-m", "20m", "busybox", "sh", "-c", eat]);
    assert_ne!(killed.code, 0, "{killed:#?}");
    assert_eq!(inspect(&agent, "eater")["summary"]["state"]["oomKilled"], true);
}

#[test]
fn single_containers_outlive_a_killed_agent() {
    let _turn = turn();
    if skip() {
        return;
    }
    let mut agent = start();
    let line = "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.02; done";
    agent.must(&["run", "-d", "--name", "talker", "-p", "8091:80", "busybox", "sh", "-c", line]);
    agent.must(&["run", "-d", "--name", "brief", "busybox", "sh", "-c", "sleep 0.5; exit 8"]);
    let pid = inspect(&agent, "talker")["summary"]["state"]["pid"].clone();
    let followed = agent.dir().join("followed");
    let socket = format!("unix://{}", agent.dir().join("run/shoal.sock").display());
    let mut follower = Command::new(binary("ctl"))
        .args(["--host", &socket, "logs", "-f", "talker"])
        .stdout(fs::File::create(&followed).unwrap())
        .spawn()
        .unwrap();
    until(
        "it is followed",
        || fs::read_to_string(&followed).unwrap(),
        |text| text.contains("line 1"),
    );
    agent.end("-9");
    let brief = || fs::read_dir(agent.dir().join("run/containers")).unwrap().count();
    assert!(brief() > 0);
    agent.restart();
    assert_eq!(inspect(&agent, "talker")["summary"]["state"]["pid"], pid, "the same process");
    until("the other's end is known", || state(&agent, "brief"), |state| state == "exited");
    assert_eq!(inspect(&agent, "brief")["summary"]["state"]["exitCode"], 8);
    let count = |agent: &Agent| agent.must(&["logs", "talker"]).lines().count();
    let seen = count(&agent);
    until("it talks on", || count(&agent), |now| *now > seen);
    let logs = agent.must(&["logs", "talker"]);
    for (number, line) in logs.lines().enumerate() {
        assert_eq!(line, format!("line {}", number + 1), "no line is lost");
    }
    assert_eq!(agent.must(&["exec", "talker", "echo", "exec works"]), "exec works\n");
    // Now without a crash, as for an upgrade.
    agent.end("-TERM");
    agent.restart();
    let last = count(&agent);
    until(
        "whoever follows has all",
        || fs::read_to_string(&followed).unwrap().lines().count(),
        |lines| *lines > last,
    );
    agent.must(&["rm", "-f", "talker", "brief"]);
    assert!(follower.wait().unwrap().success(), "following ends with the container");
    for (number, line) in fs::read_to_string(&followed).unwrap().lines().enumerate() {
        assert_eq!(
            line,
            format!("line {}", number + 1),
            "followed: nothing is lost or comes twice"
        );
    }
    assert_eq!(agent.must(&["ps", "-aq"]), "");
}

#[test]
fn a_tasks_container_can_be_looked_into_and_not_stopped() {
    let _turn = turn();
    if skip() {
        return;
    }
    let agent = start();
    agent.import_hello();
    let file = agent.file(
        "app.yml",
        "services:\n  web:\n    image: busybox\n    command: sh -c 'echo up; exec sleep 1000'\n",
    );
    agent.must(&["stack", "deploy", "-f", &file, "app"]);
    assert!(agent.must(&["ps"]).contains("app_web.1."));
    assert_eq!(agent.must(&["logs", "app_web.1"]), "up\n");
    assert_eq!(agent.must(&["exec", "app_web.1", "echo", "inside"]), "inside\n");
    assert!(agent.must(&["top", "app_web.1"]).contains("sleep 1000"));
    let refused = agent.ctl(&["rm", "-f", "app_web.1"]);
    assert!(refused.code == 1 && refused.stderr.contains("ctl service"), "{refused:#?}");
}
