//! How long a container takes from the request to the exec of its command, without images, network
//! and API: beside a bare prototype that makes the same kernel objects in one process and keeps
//! nothing (no shim, no log, no record of the exit, no errors that say why). Interleaved; medians.

#![allow(unsafe_code)] // the prototype is bare system calls
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::ptr::null;
use std::time::Instant;

use shoal_runtime::spec::{self, ContainerOptions};
use shoal_runtime::{CreateRequest, LogConfig, Rootfs, Runtime, RuntimeConfig};

const RUNS: usize = 60;
/// As long as the default profile's program on x86_64.
const FILTER: usize = 500;

fn main() {
    shoal_runtime::run_if_shim();
    if !nix::unistd::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        return println!("start: needs root and busybox-static");
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    for folder in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(image.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", image.join("bin/true")).unwrap();
    let parent = format!("shoal-bench-{}", std::process::id());
    let config = RuntimeConfig { run_dir: dir.path().join("run"), cgroup_parent: parent.clone() };
    let runtime = Runtime::open(config).unwrap();
    let (mut own, mut bare) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let layer = dir.path().join(format!("layer{run}"));
        own.push(by_runtime(&runtime, &image, &layer));
        bare.push(by_prototype(&image, &dir.path().join(format!("bare{run}")), &parent));
    }
    runtime.close();
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (own, bare) = (median(&mut own), median(&mut bare));
    println!("| figure | shoal | bare prototype | ratio | target |\n|---|---|---|---|---|");
    println!(
        "| request to exec in the process, ms | {own:.2} | {bare:.2} | {:.2} | <= 1.5 x |",
        own / bare
    );
}

fn by_runtime(runtime: &Runtime, image: &Path, layer: &Path) -> f64 {
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    fs::create_dir_all(&upper).unwrap();
    fs::create_dir_all(&work).unwrap();
    let options = ContainerOptions {
        args: vec!["/bin/true".to_owned()],
        hostname: "bench".to_owned(),
        ..ContainerOptions::default()
    };
    let request = CreateRequest {
        spec: spec::build(options).unwrap(),
        rootfs: Rootfs::Overlay { lower: vec![image.to_owned()], upper, work },
        log: LogConfig {
            path: layer.join("log"),
            max_size: 1 << 20,
            max_files: 2,
            ..LogConfig::default()
        },
        user: String::new(),
        additional_groups: Vec::new(),
        capabilities: shoal_runtime::capability::set(&[], &[]).unwrap(),
        seccomp: shoal_runtime::Seccomp::Default,
        init: false,
        streams: shoal_runtime::Streams::default(),
        namespaces: shoal_runtime::Namespaces::default(),
        apparmor: String::new(),
        label: String::new(),
    };
    let started = Instant::now();
    runtime.create("bench", request).unwrap();
    runtime.start("bench").unwrap();
    let time = started.elapsed().as_secs_f64() * 1000.0;
    runtime.delete("bench").unwrap();
    time
}

/// `/sys/fs/cgroup` or what is mounted below it.
fn hierarchies() -> (Vec<PathBuf>, Option<PathBuf>) {
    let top = Path::new("/sys/fs/cgroup");
    if top.join("cgroup.controllers").exists() {
        return (Vec::new(), Some(top.to_owned()));
    }
    let all: Vec<PathBuf> = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path()).collect();
    let v2 = all.iter().find(|path| path.join("cgroup.controllers").exists()).cloned();
    let v1 = all.into_iter().filter(|path| path.join("tasks").exists() && !path.is_symlink());
    (v1.collect(), v2)
}

fn by_prototype(image: &Path, layer: &Path, parent: &str) -> f64 {
    let (upper, work, root) = (layer.join("upper"), layer.join("work"), layer.join("root"));
    for folder in [&upper, &work, &root] {
        fs::create_dir_all(folder).unwrap();
    }
    let (v1, v2) = hierarchies();
    let started = Instant::now();
    let group = |root: &Path| root.join(parent).join("bare");
    let groups: Vec<PathBuf> = v1.iter().chain(&v2).map(|root| group(root)).collect();
    for group in &groups {
        fs::create_dir_all(group).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let above = group.parent().unwrap();
            let top = above.parent().unwrap().join(file);
            if top.exists()
                && fs::read_to_string(group.join(file)).is_ok_and(|t| t.trim().is_empty())
            {
                fs::write(above.join(file), fs::read(&top).unwrap()).unwrap();
                fs::write(group.join(file), fs::read(&top).unwrap()).unwrap();
            }
        }
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        image.display(),
        upper.display(),
        work.display()
    );
    let tasks: Vec<PathBuf> = v1.iter().map(|root| group(root).join("tasks")).collect();
    let v2 = v2.map(|root| File::open(group(&root)).unwrap());
    let mut pipe = [0; 2];
    // SAFETY: plain system calls on values that live as long as the calls; the child of a process
    // with one thread goes on as if it were alone, and execs or exits.
    let child = unsafe {
        assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
        let mut args: libc::clone_args = std::mem::zeroed();
        args.flags = (libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWNET) as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        if let Some(v2) = &v2 {
            args.flags |= 0x2_0000_0000;
            args.cgroup = std::os::fd::AsRawFd::as_raw_fd(v2) as u64;
        }
        let size = size_of::<libc::clone_args>();
        let child = libc::syscall(libc::SYS_clone3, &raw mut args, size);
        if child == 0 {
            be_the_container(&tasks, &root, &options);
        }
        libc::close(pipe[1]);
        assert!(child > 0);
        child as libc::pid_t
    };
    // SAFETY: the descriptor is new and ours. It closes with the exec.
    let mut end = unsafe { File::from_raw_fd(pipe[0]) };
    let mut message = Vec::new();
    end.read_to_end(&mut message).unwrap();
    let time = started.elapsed().as_secs_f64() * 1000.0;
    let mut status = 0;
    // SAFETY: waits for a child of ours.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the prototype failed");
    for group in groups {
        fs::remove_dir(group).unwrap();
    }
    time
}

/// # Safety
/// In a child that shares no memory.
unsafe fn be_the_container(tasks: &[PathBuf], root: &Path, options: &str) -> ! {
    let text = |text: &str| CString::new(text).unwrap();
    let mount = |source: &str, target: &Path, kind: &str, flags: libc::c_ulong, data: &str| {
        let target = text(target.to_str().unwrap());
        let (source, kind, data) = (text(source), text(kind), text(data));
        // SAFETY: all are C strings.
        let done = unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                flags,
                data.as_ptr().cast(),
            )
        };
        assert_eq!(done, 0, "{source:?} {target:?}");
    };
    for file in tasks {
        fs::write(file, "0").unwrap();
    }
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let plain = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
    // SAFETY: plain system calls on C strings.
    unsafe {
        libc::unshare(libc::CLONE_NEWCGROUP);
        libc::mount(null(), c"/".as_ptr(), null(), private, null());
        libc::sethostname(c"bench".as_ptr(), 5);
    }
    mount("overlay", root, "overlay", 0, options);
    mount("proc", &root.join("proc"), "proc", plain, "");
    mount("tmpfs", &root.join("dev"), "tmpfs", libc::MS_NOSUID, "mode=755");
    for folder in ["pts", "shm", "mqueue"] {
        fs::create_dir(root.join("dev").join(folder)).unwrap();
    }
    mount("devpts", &root.join("dev/pts"), "devpts", 0, "newinstance,ptmxmode=0666");
    mount("shm", &root.join("dev/shm"), "tmpfs", plain, "mode=1777");
    mount("mqueue", &root.join("dev/mqueue"), "mqueue", plain, "");
    mount("sysfs", &root.join("sys"), "sysfs", plain | libc::MS_RDONLY, "");
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        let path = text(root.join("dev").join(name).to_str().unwrap());
        // SAFETY: a C string.
        unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, minor)) };
    }
    let allow = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    let mut filter = vec![libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 }; FILTER - 1];
    filter.push(allow);
    let program = libc::sock_fprog { len: FILTER as u16, filter: filter.as_mut_ptr() };
    let here = text(root.to_str().unwrap());
    let (name, end) = (c"/bin/true", null());
    let args = [name.as_ptr(), end];
    // SAFETY: C strings, and a program that lives through the call.
    unsafe {
        assert_eq!(libc::chdir(here.as_ptr()), 0);
        assert_eq!(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), 0);
        libc::umount2(c".".as_ptr(), libc::MNT_DETACH);
        libc::syscall(libc::SYS_seccomp, 1, 0, &raw const program);
        libc::execve(name.as_ptr(), args.as_ptr(), &raw const end);
        libc::_exit(1)
    }
}
