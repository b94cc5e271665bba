//! Real containers from a busybox root, through the runtime's public face. Has a `main` of its
//! own: the shims that it starts are copies of this very program.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // it is all test

mod failures;
mod fixture;
mod user_namespace;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fixture::{Fixture, cgroups_named, open, shims_in, until};
use nix::sys::signal::Signal;
use shoal_runtime::spec::{self, ContainerOptions};
use shoal_runtime::{
    ConsoleEvent, ConsoleInput, ConsoleReader, ContainerState, ExecMode, ExecRequest, Namespace,
    Namespaces, Rootfs, RuntimeError, Streams,
};

fn main() -> ExitCode {
    shoal_runtime::run_if_shim();
    if let Some(code) = failures::run_if_asked() {
        return code;
    }
    // As cargo's own: a part of the names that are run, and after --skip of those that are not.
    let (mut filter, mut skipped) = (None, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--skip" => skipped.extend(args.next()),
            other if !other.starts_with('-') => filter = Some(arg),
            _ => {}
        }
    }
    if std::env::args().any(|arg| arg == "--list") {
        for (name, _) in TESTS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if let Some(lack) = lacks() {
        if std::env::var_os("SHOAL_REQUIRE_PRIVILEGED").is_some() {
            eprintln!("containers: {lack}");
            return ExitCode::FAILURE;
        }
        println!("SKIPPED: {lack}");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    let chosen: Vec<_> = TESTS
        .iter()
        .filter(|(name, _)| filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())))
        .filter(|(name, _)| !skipped.iter().any(|skipped| name.contains(skipped.as_str())))
        .collect();
    for (name, test) in &chosen {
        let fixture = Fixture::new();
        let passed = catch_unwind(AssertUnwindSafe(|| test(&fixture))).is_ok();
        let clean = fixture.clean_up();
        failed += usize::from(!(passed && clean));
        println!("test {name} ... {}", if passed && clean { "ok" } else { "FAILED" });
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
        TESTS.len() - chosen.len()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn lacks() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root");
    }
    (!Path::new(BUSYBOX).exists()).then_some("busybox-static")
}

type Test = fn(&Fixture);

const BUSYBOX: &str = "/bin/busybox";
const TESTS: &[(&str, Test)] = &[
    ("a_container_is_alone", a_container_is_alone),
    ("exit_codes_and_signals", exit_codes_and_signals),
    (
        "a_lease_that_is_not_renewed_ends_its_container",
        a_lease_that_is_not_renewed_ends_its_container,
    ),
    ("commands_that_cannot_run", commands_that_cannot_run),
    ("output_is_logged", output_is_logged),
    ("privileges_are_what_docker_gives", privileges_are_what_docker_gives),
    ("limits_hold", limits_hold),
    ("exec_runs_inside", exec_runs_inside),
    ("a_new_agent_finds_its_containers", a_new_agent_finds_its_containers),
    ("a_killed_shim_takes_its_container_along", a_killed_shim_takes_its_container_along),
    ("init_forwards_and_reaps", init_forwards_and_reaps),
    ("links_in_an_image_lead_nowhere", links_in_an_image_lead_nowhere),
    ("a_failed_create_leaves_nothing", a_failed_create_leaves_nothing),
    ("a_shim_sleeps_and_holds_only_its_own", a_shim_sleeps_and_holds_only_its_own),
    ("streams_are_carried_both_ways", streams_are_carried_both_ways),
    ("a_terminal_is_a_terminal", a_terminal_is_a_terminal),
    ("execs_have_streams_and_terminals", execs_have_streams_and_terminals),
    (
        "a_reader_that_hangs_holds_nothing_up_for_long",
        a_reader_that_hangs_holds_nothing_up_for_long,
    ),
    ("paused_processes_stand_still", paused_processes_stand_still),
    ("namespaces_are_shared_where_asked", namespaces_are_shared_where_asked),
    ("many_at_once", many_at_once),
    ("user_namespace::root_is_nobody_outside", user_namespace::root_is_nobody_outside),
    ("user_namespace::rights_end_at_it", user_namespace::rights_end_at_it),
    ("user_namespace::a_volume_is_its_users", user_namespace::a_volume_is_its_users),
    ("user_namespace::execs_are_inside_too", user_namespace::execs_are_inside_too),
    ("every_failing_step_leaves_nothing", failures::every_failing_step_leaves_nothing),
];

fn a_container_is_alone(fixture: &Fixture) {
    let (code, output) = fixture.sh(
        "echo pid $$; hostname; ls /proc | head -1; ls /sys/class/net; cat /proc/1/cgroup; touch /tmp/x && echo wrote; cat /proc/self/mountinfo",
        |_| {},
    );
    assert_eq!(code, 0, "{output}");
    assert!(output.starts_with("pid 1\nboxed\n1\nlo\n"), "{output}");
    assert!(output.contains("wrote"));
    assert!(output.lines().any(|line| line.ends_with(":/") || line.contains("::/")), "{output}");
    assert!(!fixture.dir.path().join("image/tmp/x").exists(), "it wrote to the image");
    let mount_points = output.lines().filter_map(|line| line.split(' ').nth(4));
    assert!(mount_points.clone().count() > 5, "{output}");
    for point in mount_points.filter(|point| point.starts_with('/')) {
        let own = ["/proc", "/dev", "/sys"].iter().any(|top| point.starts_with(top));
        assert!(own || point == "/", "the host's {point} is visible");
    }
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let request = fixture.request("ns", &["sleep", "60"], |_| {});
    let created = fixture.runtime.create("ns", request).unwrap();
    for kind in ["pid", "mnt", "uts", "ipc", "net", "cgroup"] {
        let inside = fs::read_link(format!("/proc/{}/ns/{kind}", created.pid)).unwrap();
        let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(inside, outside, "{kind}");
    }
    assert_ne!(fs::read_link(created.netns).unwrap(), own);
}

fn exit_codes_and_signals(fixture: &Fixture) {
    assert_eq!(fixture.sh("exit 0", |_| {}).0, 0);
    assert_eq!(fixture.sh("exit 42", |_| {}).0, 42);
    fixture.start("sleep", fixture.request("sleep", &["sleep", "60"], |_| {}));
    assert!(matches!(fixture.runtime.state("sleep").unwrap(), ContainerState::Running { .. }));
    fixture.runtime.signal("sleep", 9).unwrap();
    let exit = fixture.wait("sleep");
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
    assert_eq!(fixture.runtime.state("sleep").unwrap(), ContainerState::Exited(exit));
    fixture.runtime.delete("sleep").unwrap();
    fixture.runtime.delete("sleep").unwrap();
    assert!(matches!(fixture.runtime.state("sleep"), Err(RuntimeError::Missing(_))));
}

fn commands_that_cannot_run(fixture: &Fixture) {
    for (args, code, words) in [
        (&["nothing"][..], 127, "executable file not found in $PATH"),
        (&["/bin/nothing"], 127, "no such file"),
        (&["/bin/plain"], 126, "not executable"),
        (&["/tmp"], 126, "directory"),
    ] {
        fixture.runtime.create("bad", fixture.request("bad", args, |_| {})).unwrap();
        match fixture.runtime.start("bad") {
            Err(RuntimeError::Exec { code: found, message }) => {
                assert_eq!(found, code, "{message}");
                assert!(message.contains(words), "{message}");
            }
            other => panic!("{args:?}: {other:?}"),
        }
        fixture.runtime.delete("bad").unwrap();
    }
}

fn output_is_logged(fixture: &Fixture) {
    let (_, output) = fixture.sh("echo one; echo two >&2; printf 'no end'", |_| {});
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["no end", "one", "two"]);
    let (_, output) = fixture.sh("yes 0123456789 | head -20000", |_| {});
    assert_eq!(output.lines().filter(|line| *line == "0123456789").count(), output.lines().count());
    assert!(fs::metadata(fixture.log("sh")).unwrap().len() <= 1 << 20);
}

fn privileges_are_what_docker_gives(fixture: &Fixture) {
    let (_, output) = fixture.sh("cat /proc/self/status; mount -t tmpfs x /tmp; cat /proc/kcore | head -c 1; echo x > /proc/sys/kernel/hostname", |_| {});
    assert!(output.contains("CapEff:\t00000000a80425fb"), "{output}");
    assert!(output.contains("CapBnd:\t00000000a80425fb"), "{output}");
    assert!(output.contains("Seccomp:\t2"), "{output}");
    assert!(output.contains("NoNewPrivs:\t0"), "{output}");
    assert!(output.contains("permission denied") || output.contains("not permitted"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
    let (_, output) = fixture.sh("id; cat /proc/self/status; env", |request| {
        request.user = "web".to_owned();
        request.capabilities = 0;
    });
    assert!(output.contains("uid=33(web) gid=34(www) groups=4(logs)"), "{output}");
    assert!(output.contains("CapEff:\t0000000000000000"), "{output}");
    assert!(output.contains("HOME=/srv"), "{output}");
    let request =
        fixture.request("ro", &["sh", "-c", "touch /file; cat /proc/self/status"], |options| {
            options.read_only = true;
            options.no_new_privileges = true;
            options.ulimits = vec![("nofile".to_owned(), 100, 200)];
        });
    fixture.start("ro", request);
    fixture.wait("ro");
    let output = fixture.output("ro");
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(output.contains("NoNewPrivs:\t1"), "{output}");
}

fn limits_hold(fixture: &Fixture) {
    let request = fixture.request(
        "oom",
        &["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; exit $?"],
        |options| {
            options.memory_limit = 32 << 20;
            options.pids_limit = 50;
            options.nano_cpus = 500_000_000;
        },
    );
    fixture.start("oom", request);
    let exit = fixture.wait("oom");
    assert!(exit.oom_killed, "{exit:?} {}", fixture.output("oom"));
}

fn exec_runs_inside(fixture: &Fixture) {
    let request =
        fixture.request("box", &["sleep", "60"], |options| options.env = vec!["OWN=1".to_owned()]);
    fixture.start("box", request);
    let exec = |args: &[&str], timeout_ms| {
        let request = ExecRequest {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            timeout_ms,
            max_output: 4096,
            ..ExecRequest::default()
        };
        fixture.runtime.exec("box", &request).unwrap()
    };
    let result = exec(&["sh", "-c", "hostname; cat /proc/self/status; env; exit 3"], 5000);
    let output = String::from_utf8(result.output).unwrap();
    assert_eq!(result.exit_code, 3);
    assert!(output.starts_with("boxed\n") && output.contains("Seccomp:\t2"), "{output}");
    assert!(output.contains("CapEff:\t00000000a80425fb") && output.contains("OWN=1"), "{output}");
    assert_eq!(exec(&["nothing"], 5000).exit_code, 127);
    let slow = exec(&["sleep", "30"], 100);
    assert!(slow.timed_out && slow.exit_code == 137);
}

fn a_new_agent_finds_its_containers(fixture: &Fixture) {
    let line = "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 7";
    fixture.start("kept", fixture.request("kept", &["sh", "-c", line], |_| {}));
    let second = open(fixture.dir.path(), &fixture.parent);
    assert_eq!(second.list().unwrap(), ["kept"]);
    assert!(matches!(second.state("kept").unwrap(), ContainerState::Running { .. }));
    let go = ExecRequest {
        args: ["sh", "-c", "mkdir -p /tmp && touch /tmp/go"].map(str::to_owned).to_vec(),
        ..ExecRequest::default()
    };
    assert_eq!(second.exec("kept", &go).unwrap().exit_code, 0);
    let exit = fixture.tokio.block_on(second.wait("kept")).unwrap().unwrap();
    assert_eq!(exit.code, 7);
    until("the shim ends", || shims_in(fixture.dir.path()).is_empty());
    let third = open(fixture.dir.path(), &fixture.parent);
    assert_eq!(third.state("kept").unwrap(), ContainerState::Exited(exit));
    third.delete("kept").unwrap();
    assert!(third.list().unwrap().is_empty());
}

fn a_killed_shim_takes_its_container_along(fixture: &Fixture) {
    let request = fixture.request("orphan", &["sleep", "60"], |_| {});
    let pid = fixture.runtime.create("orphan", request).unwrap().pid;
    fixture.runtime.start("orphan").unwrap();
    let shim = shims_in(fixture.dir.path())[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim as i32), Signal::SIGKILL).unwrap();
    until("the container dies", || !Path::new(&format!("/proc/{pid}/root")).exists());
    assert_eq!(fixture.tokio.block_on(fixture.runtime.wait("orphan")).unwrap(), None);
    assert_eq!(fixture.runtime.state("orphan").unwrap(), ContainerState::Dead);
    fixture.runtime.delete("orphan").unwrap();
}

fn a_lease_that_is_not_renewed_ends_its_container(fixture: &Fixture) {
    let request = fixture.request("leased", &["sleep", "60"], |_| {});
    fixture.runtime.create("leased", request).unwrap();
    let lease = |millis| {
        let until = shoal_runtime::uptime() + Duration::from_millis(millis);
        fixture.runtime.set_lease("leased", until).unwrap();
        until
    };
    lease(2000);
    fixture.runtime.start("leased").unwrap();
    // Put off in time, it goes on; nobody has to be there when it runs out.
    lease(60_000);
    let until = lease(500);
    let exit = fixture.wait("leased");
    assert_eq!(exit.signal, Some(Signal::SIGKILL as i32));
    assert!(shoal_runtime::uptime() >= until, "it ended too early");
    fixture.runtime.delete("leased").unwrap();
}

fn init_forwards_and_reaps(fixture: &Fixture) {
    let line = "trap 'echo told; exit 5' TERM; echo up; while true; do sleep 0.05; done";
    let mut request = fixture.request("tini", &["sh", "-c", line], |_| {});
    request.init = true;
    fixture.start("tini", request);
    until("it runs", || fixture.output("tini").contains("up"));
    fixture.runtime.signal("tini", 15).unwrap();
    assert_eq!(fixture.wait("tini").code, 5);
    assert!(fixture.output("tini").contains("told"));
}

fn links_in_an_image_lead_nowhere(fixture: &Fixture) {
    let victim = fixture.dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let image = fixture.dir.path().join("image");
    std::os::unix::fs::symlink(&victim, image.join("trap")).unwrap();
    let source = fixture.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let request = fixture.request("trap", &["ls", "/trap/inner"], |options| {
        let bind =
            spec::mount("bind", &source, Path::new("/trap/inner"), &["rbind", "ro"]).unwrap();
        options.mounts = vec![bind];
    });
    let created = fixture.runtime.create("trap", request);
    assert!(!victim.join("inner").exists(), "a mount point was made on the host");
    drop(created);
}

fn a_failed_create_leaves_nothing(fixture: &Fixture) {
    let before = cgroups_named(&format!("{}/bad", fixture.parent));
    let mut no_source = fixture.request("bad", &["true"], |options| {
        let bind =
            spec::mount("bind", Path::new("/nowhere/at/all"), Path::new("/x"), &["bind"]).unwrap();
        options.mounts = vec![bind];
    });
    let error = fixture.runtime.create("bad", no_source.clone()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    no_source.rootfs = Rootfs::Overlay {
        lower: vec![PathBuf::from("/nowhere")],
        upper: PathBuf::from("/nowhere"),
        work: PathBuf::from("/nowhere"),
    };
    assert!(fixture.runtime.create("bad", no_source).is_err());
    let mut no_user = fixture.request("bad", &["true"], |_| {});
    no_user.user = "nobody-here".to_owned();
    let error = fixture.runtime.create("bad", no_user).unwrap_err();
    assert!(error.to_string().contains("nobody-here"), "{error}");
    assert!(fixture.runtime.list().unwrap().is_empty());
    assert_eq!(cgroups_named(&format!("{}/bad", fixture.parent)), before);
    until("no shim is left", || shims_in(fixture.dir.path()).is_empty());
    assert!(
        spec::build(ContainerOptions {
            sysctls: [("kernel.hostname".to_owned(), "x".to_owned())].into(),
            ..ContainerOptions::default()
        })
        .is_err()
    );
}

fn a_shim_sleeps_and_holds_only_its_own(fixture: &Fixture) {
    // Open in the agent, and passed on to whatever it starts.
    let leaked = fs::File::create(fixture.dir.path().join("leaked")).unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    fixture.start("quiet", fixture.request("quiet", &["sleep", "60"], |_| {}));
    for pid in shims_in(fixture.dir.path()) {
        let state = || {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            text.lines().any(|line| line.starts_with("State:\tS"))
        };
        until("the shim sleeps", state);
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            let own = ["socket:", "pipe:", "anon_inode:[signalfd]", "/dev/null", "log"];
            assert!(own.iter().any(|kind| target.contains(kind)), "it holds {target}");
        }
    }
}

/// Reads to the end; returns output, errors and exit code.
async fn read_all(mut reader: ConsoleReader) -> (String, String, i32) {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    loop {
        match reader.next().await.unwrap().expect("an exit comes before the end") {
            ConsoleEvent::Stdout(bytes) => output.extend(bytes),
            ConsoleEvent::Stderr(bytes) => errors.extend(bytes),
            ConsoleEvent::Exited(exit) => {
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(output), text(errors), exit.code);
            }
        }
    }
}

fn streams_are_carried_both_ways(fixture: &Fixture) {
    let mut request = fixture.request("cat", &["sh", "-c", "cat; echo done >&2; exit 4"], |_| {});
    request.streams = Streams { stdin: true, stdin_once: true, terminal: false };
    fixture.runtime.create("cat", request).unwrap();
    let bytes = "0123456789abcdef".repeat(64 << 10);
    let (output, errors, code) = fixture.tokio.block_on(async {
        // From before the start: nothing is missed.
        let (reader, mut writer) = fixture.runtime.attach("cat", true).await.unwrap();
        let runtime = fixture.runtime.clone();
        tokio::task::spawn_blocking(move || runtime.start("cat").unwrap()).await.unwrap();
        let send = async {
            writer.send(&ConsoleInput::Data(bytes.clone().into_bytes())).await.unwrap();
            writer.send(&ConsoleInput::Close).await.unwrap();
        };
        tokio::join!(read_all(reader), send).0
    });
    assert!(output == bytes, "a megabyte comes back as it was");
    assert_eq!((errors.as_str(), code), ("done\n", 4));
    fixture.runtime.delete("cat").unwrap();
}

fn a_terminal_is_a_terminal(fixture: &Fixture) {
    let line = "stty size; test -t 0 && test -t 1 && echo yes; readlink /proc/self/fd/0; \
                ls /dev/console; read answer; echo got $answer; exit 3";
    let mut request = fixture.request("tty", &["sh", "-c", line], |_| {});
    request.streams = Streams { stdin: true, stdin_once: true, terminal: true };
    let mut process = request.spec.process().clone().unwrap();
    let size = oci_spec::runtime::BoxBuilder::default().width(100_u64).height(40_u64).build();
    process.set_console_size(Some(size.unwrap()));
    request.spec.set_process(Some(process));
    fixture.runtime.create("tty", request).unwrap();
    let (output, errors, code) = fixture.tokio.block_on(async {
        let (reader, mut writer) = fixture.runtime.attach("tty", true).await.unwrap();
        let runtime = fixture.runtime.clone();
        tokio::task::spawn_blocking(move || runtime.start("tty").unwrap()).await.unwrap();
        writer.send(&ConsoleInput::Data(b"hello\r".to_vec())).await.unwrap();
        read_all(reader).await
    });
    for part in ["40 100\r\n", "yes\r\n", "/dev/pts/0", "/dev/console", "got hello\r\n"] {
        assert!(output.contains(part), "{part:?} in {output:?}");
    }
    assert_eq!((errors.as_str(), code), ("", 3));
    assert!(fixture.output("tty").contains("got hello"), "it is in the log too");
}

fn execs_have_streams_and_terminals(fixture: &Fixture) {
    fixture.start("box", fixture.request("box", &["sleep", "60"], |_| {}));
    let exec = async |line: &str, change: fn(&mut ExecRequest), input: Option<&str>| {
        let mut request = ExecRequest {
            args: ["sh", "-c", line].map(str::to_owned).to_vec(),
            mode: ExecMode::Attach,
            ..ExecRequest::default()
        };
        change(&mut request);
        let (pid, reader, mut writer) =
            fixture.runtime.exec_attached("box", request).await.unwrap();
        assert!(pid > 0);
        if let Some(input) = input {
            writer.send(&ConsoleInput::Data(input.into())).await.unwrap();
            writer.send(&ConsoleInput::Close).await.unwrap();
        }
        read_all(reader).await
    };
    let (piped, terminal, privileged, missing) = fixture.tokio.block_on(async {
        let piped = exec("cat; echo bad >&2; exit 9", |request| request.stdin = true, Some("in"));
        let terminal = |request: &mut ExecRequest| {
            request.terminal = true;
            request.size = (80, 24);
        };
        let line = "grep -e Seccomp: -e CapEff /proc/self/status";
        let request = ExecRequest {
            args: vec!["nowhere".to_owned()],
            mode: ExecMode::Attach,
            ..ExecRequest::default()
        };
        (
            piped.await,
            exec("stty size; test -t 0 && echo yes", terminal, None).await,
            exec(line, |request| request.privileged = true, None).await,
            fixture.runtime.exec_attached("box", request).await.err().unwrap(),
        )
    });
    assert_eq!(piped, ("in".to_owned(), "bad\n".to_owned(), 9));
    assert_eq!(terminal.0, "24 80\r\nyes\r\n");
    assert!(privileged.0.contains("Seccomp:\t0") && privileged.0.contains("CapEff:\t000001"));
    assert!(matches!(missing, RuntimeError::Exec { code: 127, .. }), "{missing}");
    // Neither a child in the background nor closed streams keep it.
    let collect = |line: &str, timeout_ms| {
        let request = ExecRequest {
            args: ["sh", "-c", line].map(str::to_owned).to_vec(),
            timeout_ms,
            max_output: 100,
            ..ExecRequest::default()
        };
        fixture.runtime.exec("box", &request).unwrap()
    };
    let background = collect("sleep 50 & echo first", 0);
    assert_eq!((background.exit_code, &background.output[..]), (0, &b"first\n"[..]));
    let closed = collect("exec >&- 2>&-; sleep 50", 200);
    assert!(closed.timed_out && closed.exit_code == 137);
}

fn a_reader_that_hangs_holds_nothing_up_for_long(fixture: &Fixture) {
    let line = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end >&2";
    let request = fixture.request("loud", &["sh", "-c", line], |_| {});
    fixture.runtime.create("loud", request).unwrap();
    let (reader, writer) = fixture.tokio.block_on(fixture.runtime.attach("loud", false)).unwrap();
    fixture.runtime.start("loud").unwrap();
    assert_eq!(fixture.wait("loud").code, 0, "though nobody reads");
    assert!(fixture.output("loud").contains("end"), "the log has it all");
    drop((reader, writer));
}

fn paused_processes_stand_still(fixture: &Fixture) {
    let line = "while true; do echo tick; sleep 0.01; done";
    fixture.start("clock", fixture.request("clock", &["sh", "-c", line], |_| {}));
    until("it ticks", || fixture.output("clock").contains("tick"));
    fixture.runtime.pause("clock", true).unwrap();
    until("it is frozen", || fixture.runtime.is_paused("clock"));
    let ticks = || fixture.output("clock").lines().count();
    let before = until_stable(ticks);
    assert_eq!(ticks(), before);
    fixture.runtime.pause("clock", false).unwrap();
    until("it goes on", || ticks() > before);
    fixture.runtime.pause("clock", true).unwrap();
    fixture.runtime.delete("clock").unwrap();
}

/// The value once it no longer changes.
fn until_stable(look: impl Fn() -> usize) -> usize {
    let mut last = look();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        match look() {
            now if now == last => return now,
            now => last = now,
        }
    }
}

fn namespaces_are_shared_where_asked(fixture: &Fixture) {
    fixture.start("first", fixture.request("first", &["sleep", "60"], |_| {}));
    let link = |pid: &str, kind: &str| {
        fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_string_lossy().into_owned()
    };
    let ContainerState::Running { pid, .. } = fixture.runtime.state("first").unwrap() else {
        panic!("it runs");
    };
    let first = pid.to_string();
    let line = "for kind in net pid ipc uts cgroup mnt; do readlink /proc/self/ns/$kind; done";
    let of = || Namespace::Of("first".to_owned());
    let (code, output) = fixture.sh(line, |request| {
        request.namespaces =
            Namespaces { network: of(), pid: of(), ipc: of(), uts: of(), cgroup: of(), user: None };
        request.spec.set_hostname(None);
    });
    assert_eq!(code, 0, "{output}");
    for kind in ["net", "pid", "ipc", "uts", "cgroup"] {
        assert!(output.contains(&link(&first, kind)), "{kind}: {output}");
    }
    assert!(!output.contains(&link(&first, "mnt")), "{output}");
    let (code, output) = fixture.sh(line, |request| {
        let host = || Namespace::Host;
        request.namespaces = Namespaces {
            network: host(),
            pid: host(),
            ipc: host(),
            uts: host(),
            cgroup: host(),
            user: None,
        };
        request.spec.set_hostname(None);
    });
    assert_eq!(code, 0, "{output}");
    for kind in ["net", "pid", "ipc", "uts", "cgroup"] {
        assert!(output.contains(&link("self", kind)), "{kind}: {output}");
    }
}

fn many_at_once(fixture: &Fixture) {
    let ids: Vec<String> = (0..20).map(|number| format!("many{number}")).collect();
    std::thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| fixture.start(id, fixture.request(id, &["sleep", "60"], |_| {})));
        }
    });
    let shims = shims_in(fixture.dir.path());
    assert_eq!(shims.len(), ids.len());
    for pid in shims.iter().take(2) {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let private: u64 = smaps
            .lines()
            .filter(|line| line.starts_with("Private_"))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        println!("a shim holds {private} kB of its own");
    }
}
