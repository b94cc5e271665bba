//! Containers whose users are none of the host's.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use shoal_runtime::spec;
use shoal_runtime::{CreateRequest, ExecMode, ExecRequest, IdRange, Namespaces};

use super::fixture::{Fixture, until};

const IDS: IdRange = IdRange { uid: 1_878_982_656, gid: 1_878_982_656, count: 65_536 };

fn remapped(request: &mut CreateRequest) {
    request.namespaces = Namespaces { user: Some(IDS), ..Namespaces::default() };
}

pub(super) fn root_is_nobody_outside(fixture: &Fixture) {
    let (code, output) = fixture.sh(
        "id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /made && ls -ln /made; \
         cat /proc/self/status; hostname; ls /sys/class/net; ls -ln /dev/null /tmp; \
         chroot / /bin/true && echo chroot",
        remapped,
    );
    assert_eq!(code, 0, "{output}");
    let map = "         0 1878982656      65536";
    assert!(output.starts_with(&format!("0\n{map}\n{map}\n")), "{output}");
    assert!(output.contains("CapEff:\t00000000a80425fb"), "{output}");
    assert!(output.contains("Seccomp:\t2"), "{output}");
    assert!(output.contains("boxed\nlo\n"), "{output}");
    assert!(output.contains("chroot"), "{output}");
    let owned = output.lines().filter(|line| line.contains("    1 0        0  ")).count();
    assert!(owned >= 2, "its root owns what it makes: {output}");
    // On disk the owner is the container's own number: the layer serves without the namespace too.
    let made = fixture.dir.path().join("layers/sh/upper/made");
    assert_eq!(fs::metadata(made).unwrap().uid(), 0);
}

pub(super) fn rights_end_at_it(fixture: &Fixture) {
    // A file of the host's root, given to the container as it is.
    let secret = fixture.dir.path().join("secret");
    fs::write(&secret, "of the host's root").unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut request = fixture.request("host", &["cat", "/secret"], |options| {
        let bind = spec::mount("bind", &secret, Path::new("/secret"), &["bind"]).unwrap();
        options.mounts.push(bind);
    });
    remapped(&mut request);
    fixture.start("host", request);
    assert_eq!(fixture.wait("host").code, 1);
    assert!(fixture.output("host").contains("Permission denied"), "{}", fixture.output("host"));

    // With every capability that there is, in its own namespaces alone.
    let all = |request: &mut CreateRequest| {
        remapped(request);
        let all = shoal_runtime::capability::set(&["ALL".to_owned()], &[]).unwrap();
        request.capabilities = all;
        request.seccomp = shoal_runtime::Seccomp::Unconfined;
    };
    let (code, output) = fixture.sh(
        "hostname changed && hostname; mount -t tmpfs x /tmp && echo mounted; \
         mknod /dev/mem0 c 1 1 || echo no device; echo 1 > /proc/sys/kernel/panic || echo no sysctl",
        all,
    );
    assert_eq!(code, 0, "{output}");
    for word in ["changed", "mounted", "no device", "no sysctl"] {
        assert!(output.contains(word), "{word}: {output}");
    }
}

pub(super) fn a_volume_is_its_users(fixture: &Fixture) {
    let volume = fixture.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    chown(&volume, Some(33), Some(34)).unwrap();
    let mut request =
        fixture.request("web", &["sh", "-c", "ls -ldn /data; touch /data/x"], |options| {
            let options_of_mount = ["rbind", "rprivate", "idmap"];
            let mount = spec::mount("bind", &volume, Path::new("/data"), &options_of_mount);
            options.mounts.push(mount.unwrap());
        });
    remapped(&mut request);
    request.user = "web".to_owned();
    fixture.start("web", request);
    assert_eq!(fixture.wait("web").code, 0, "{}", fixture.output("web"));
    assert!(fixture.output("web").contains(" 33       34 "), "{}", fixture.output("web"));
    assert_eq!(fs::metadata(volume.join("x")).unwrap().uid(), 33);
}

pub(super) fn execs_are_inside_too(fixture: &Fixture) {
    let mut request = fixture.request("long", &["sleep", "60"], |_| {});
    remapped(&mut request);
    request.streams.terminal = true;
    fixture.start("long", request);
    let exec = |terminal: bool, line: &str| {
        let request = ExecRequest {
            args: ["sh", "-c", line].map(str::to_owned).to_vec(),
            max_output: 64 << 10,
            terminal,
            mode: ExecMode::Collect,
            ..ExecRequest::default()
        };
        let result = fixture.runtime.exec("long", &request).unwrap();
        (result.exit_code, String::from_utf8(result.output).unwrap())
    };
    let (code, output) = exec(
        false,
        "id -u; cat /proc/self/uid_map; cat /proc/self/cgroup; \
         readlink /proc/self/ns/user; readlink /proc/1/ns/user; touch /x; ls -ln /x",
    );
    assert_eq!(code, 0, "{output}");
    assert!(output.starts_with("0\n         0 1878982656      65536\n"), "{output}");
    let links: Vec<&str> = output.lines().filter(|line| line.starts_with("user:")).collect();
    assert!(links.len() == 2 && links[0] == links[1], "{output}");
    assert!(!output.contains("/.."), "its cgroups are its own: {output}");
    let (code, output) = exec(true, "test -t 0 && ls -ln /dev/console");
    assert!(code == 0 && output.contains(" 0 "), "{output}");
    fixture.runtime.signal("long", 9).unwrap();
    until("it has ended", || {
        matches!(fixture.runtime.state("long"), Ok(shoal_runtime::ContainerState::Exited(_)))
    });
}
