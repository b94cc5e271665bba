//! A folder with a busybox root, a runtime on it, and what the tests do with both.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use shoal_runtime::spec::{self, ContainerOptions};
use shoal_runtime::{
    CreateRequest, ExitStatus, LogConfig, LogQuery, LogReader, Rootfs, Runtime, RuntimeConfig,
};

use super::BUSYBOX;

pub(super) struct Fixture {
    pub(super) dir: Folder,
    pub(super) runtime: Runtime,
    pub(super) tokio: LazyLock<tokio::runtime::Runtime>,
    pub(super) parent: String,
}

/// A folder of this fixture's, or of the process that has started this one.
pub(super) enum Folder {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Given(path) => path,
        }
    }
}

impl Fixture {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_image(&dir.path().join("image"));
        let parent = format!("shoal-test-{}", std::process::id());
        Self::with(Folder::Own(dir), parent)
    }

    pub(super) fn at(dir: &Path, parent: &str) -> Self {
        Self::with(Folder::Given(dir.to_owned()), parent.to_owned())
    }

    pub(super) fn with(dir: Folder, parent: String) -> Self {
        let runtime = open(dir.path(), &parent);
        Self { dir, runtime, tokio: LazyLock::new(tokio_runtime), parent }
    }

    pub(super) fn request(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut ContainerOptions),
    ) -> CreateRequest {
        let layer = self.dir.path().join("layers").join(id);
        let (upper, work) = (layer.join("upper"), layer.join("work"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        let mut options = ContainerOptions {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            hostname: "boxed".to_owned(),
            ..ContainerOptions::default()
        };
        change(&mut options);
        CreateRequest {
            spec: spec::build(options).unwrap(),
            rootfs: Rootfs::Overlay { lower: vec![self.dir.path().join("image")], upper, work },
            log: LogConfig {
                path: self.log(id),
                max_size: 1 << 20,
                max_files: 3,
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
        }
    }

    pub(super) fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    pub(super) fn start(&self, id: &str, request: CreateRequest) {
        self.runtime.create(id, request).unwrap();
        self.runtime.start(id).unwrap();
    }

    pub(super) fn wait(&self, id: &str) -> ExitStatus {
        let waited = self.tokio.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), self.runtime.wait(id)).await
        });
        waited.expect("it ends").unwrap().expect("its end is recorded")
    }

    pub(super) fn output(&self, id: &str) -> String {
        let mut reader = LogReader::open(&self.log(id), LogQuery::default()).unwrap();
        let lines = std::iter::from_fn(|| reader.next_ready().unwrap());
        lines.map(|entry| String::from_utf8_lossy(&entry.line).into_owned() + "\n").collect()
    }

    /// Runs a shell line to its end; returns its exit code and output.
    pub(super) fn sh(&self, line: &str, change: impl FnOnce(&mut CreateRequest)) -> (i32, String) {
        let mut request = self.request("sh", &["sh", "-c", line], |_| {});
        change(&mut request);
        let _ = fs::remove_file(self.log("sh"));
        self.start("sh", request);
        let exit = self.wait("sh");
        self.runtime.delete("sh").unwrap();
        (exit.code, self.output("sh"))
    }

    pub(super) fn clean_up(self) -> bool {
        for id in self.runtime.list().unwrap() {
            self.runtime.delete(&id).unwrap();
        }
        self.runtime.close();
        let groups = cgroups_named(&self.parent);
        // A shim that has told of the end may take a moment to be gone.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !shims_in(self.dir.path()).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let left = shims_in(self.dir.path());
        if !groups.is_empty() || !left.is_empty() {
            eprintln!("left over: {groups:?} {left:?}");
        }
        groups.is_empty() && left.is_empty()
    }
}

pub(super) fn tokio_runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

pub(super) fn make_image(root: &Path) {
    for folder in ["bin", "etc", "tmp", "usr/bin"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "sleep", "cat", "id", "true", "false", "ps", "mount", "hostname", "ls", "chroot",
        "mknod", "dd", "kill", "touch", "env", "yes", "head", "stty", "test", "readlink", "grep",
        "tr",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let users = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n";
    fs::write(root.join("etc/passwd"), users).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwww:x:34:\nlogs:x:4:web\n").unwrap();
    fs::write(root.join("bin/plain"), "not executable").unwrap();
}

pub(super) fn open(dir: &Path, parent: &str) -> Runtime {
    Runtime::open(RuntimeConfig { run_dir: dir.join("run"), cgroup_parent: parent.to_owned() })
        .unwrap()
}

pub(super) fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let roots = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    roots.map(|root| root.join(name)).filter(|path| path.exists()).collect()
}

pub(super) fn shims_in(dir: &Path) -> Vec<u32> {
    let marker = dir.to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command);
        (command.starts_with("shoal-shim") && command.contains(&marker)).then_some(pid)
    });
    processes.collect()
}

pub(super) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
