//! Control groups: one for each container, below a parent of the agent's own, in whatever
//! hierarchies the host has (cgroups(7)): v2 alone, v1, or v1 with an empty v2 beside it (hybrid).

mod device;
mod limits;
mod usage;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;

use crate::error::RuntimeError;
pub use usage::{DeviceUsage, Usage};

/// Which hierarchies the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    /// One, with all controllers.
    V2,
    /// One for each controller.
    V1,
    /// As v1, and a v2 hierarchy without controllers.
    Hybrid,
}

impl fmt::Display for CgroupMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
        })
    }
}

/// A mounted hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    /// v1 controllers; empty for v2 and for named hierarchies.
    pub(crate) controllers: Vec<String>,
    pub(crate) v2: bool,
}

/// The host's hierarchies.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    parent: String,
}

const CONTROLLERS: [&str; 11] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls",
    "net_prio", "hugetlb",
];
/// For deleting a group whose processes are still being reaped.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);

impl Cgroups {
    /// Finds what is mounted. `parent` is the group, from each hierarchy's root, that all
    /// containers' groups are made in.
    pub(crate) fn detect(parent: &str) -> Result<Self, RuntimeError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(RuntimeError::io("read", path))?;
        let hierarchies: Vec<Hierarchy> = text.lines().filter_map(hierarchy).collect();
        if hierarchies.is_empty() {
            return Err(RuntimeError::Invalid(
                "no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup".to_owned(),
            ));
        }
        Ok(Self { hierarchies, parent: parent.trim_matches('/').to_owned() })
    }

    pub(crate) fn mode(&self) -> CgroupMode {
        let v1 = self.hierarchies.iter().any(|hierarchy| !hierarchy.v2);
        match (v1, self.hierarchies.iter().any(|hierarchy| hierarchy.v2)) {
            (false, _) => CgroupMode::V2,
            (true, true) => CgroupMode::Hybrid,
            (true, false) => CgroupMode::V1,
        }
    }

    pub(crate) fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// Makes the container's group in every hierarchy and sets its limits. On an error, nothing
    /// of it remains.
    pub(crate) fn create(
        &self,
        id: &str,
        limits: Option<&LinuxResources>,
    ) -> Result<Group, RuntimeError> {
        let group = self.group(id);
        let made = self.make(&group, limits);
        if made.is_err() {
            // The first error tells more than one from cleaning up.
            let _ = group.delete();
        }
        made.map(|()| group)
    }

    fn make(&self, group: &Group, limits: Option<&LinuxResources>) -> Result<(), RuntimeError> {
        for (hierarchy, path) in &group.paths {
            if hierarchy.v2 {
                enable_controllers(&hierarchy.mount, path)?;
            }
            fs::create_dir_all(path).map_err(RuntimeError::io("create cgroup", path))?;
            if hierarchy.controllers.iter().any(|name| name == "cpuset") {
                inherit_cpuset(&hierarchy.mount, path)?;
            }
            limits::set(hierarchy, path, limits)?;
            device::restrict(hierarchy, path, limits)?;
        }
        Ok(())
    }

    /// The container's group, which may not exist.
    pub(crate) fn group(&self, id: &str) -> Group {
        let path = |hierarchy: &Hierarchy| hierarchy.mount.join(&self.parent).join(id);
        Group {
            paths: self.hierarchies.iter().map(|one| (one.clone(), path(one))).collect(),
            mode: self.mode(),
        }
    }

    /// The containers that have a group in any hierarchy.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for hierarchy in &self.hierarchies {
            let read = fs::read_dir(hierarchy.mount.join(&self.parent)).into_iter().flatten();
            let groups = read.flatten().filter(|entry| entry.path().is_dir());
            names.extend(groups.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Takes the parent away when no container is left in it.
    pub(crate) fn remove_parent(&self) {
        for hierarchy in &self.hierarchies {
            // Not there, or in use by a container: both are fine.
            let _ = fs::remove_dir(hierarchy.mount.join(&self.parent));
        }
    }
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let (root, mount) = (fields.nth(3)?, fields.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    // Bind mounts of single groups, as inside containers, are not hierarchies to work in.
    if root != "/" || !mount.starts_with("/sys/fs/cgroup") {
        return None;
    }
    let mount = PathBuf::from(mount);
    match kind {
        "cgroup2" => Some(Hierarchy { mount, controllers: Vec::new(), v2: true }),
        "cgroup" => {
            let controllers = options.split(',').filter(|name| CONTROLLERS.contains(name));
            Some(Hierarchy {
                mount,
                controllers: controllers.map(str::to_owned).collect(),
                v2: false,
            })
        }
        _ => None,
    }
}

/// v2 hands controllers down one level at a time; what a level lacks stays unset.
fn enable_controllers(root: &Path, path: &Path) -> Result<(), RuntimeError> {
    let Ok(below) = path.strip_prefix(root) else { return Ok(()) };
    let mut level = root.to_owned();
    for part in below.parent().into_iter().flat_map(Path::components) {
        enable_at(&level);
        level.push(part);
        // Another container's start may make it at the same time.
        fs::create_dir_all(&level).map_err(RuntimeError::io("create cgroup", &level))?;
    }
    enable_at(&level);
    Ok(())
}

fn enable_at(level: &Path) {
    let available = fs::read_to_string(level.join("cgroup.controllers")).unwrap_or_default();
    for name in available.split_whitespace() {
        // One that can't be enabled here only makes limits of its kind fail, which is reported.
        let _ = fs::write(level.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

/// A v1 cpuset starts empty, and takes no process until it has CPUs and memory nodes.
fn inherit_cpuset(root: &Path, path: &Path) -> Result<(), RuntimeError> {
    let Ok(below) = path.strip_prefix(root) else { return Ok(()) };
    let mut level = root.to_owned();
    for part in below.components() {
        let parent = level.clone();
        level.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = level.join(file);
            let text = fs::read_to_string(&own).map_err(RuntimeError::io("read", &own))?;
            if text.trim().is_empty() {
                let inherited =
                    fs::read(parent.join(file)).map_err(RuntimeError::io("read", &own))?;
                fs::write(&own, inherited).map_err(RuntimeError::io("write", &own))?;
            }
        }
    }
    Ok(())
}

/// A container's group in all hierarchies.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    paths: Vec<(Hierarchy, PathBuf)>,
    mode: CgroupMode,
}

impl Group {
    /// The v1 files through which a process with one thread moves itself, by writing 0. Moving
    /// another process, or a whole one through cgroup.procs, makes the kernel wait for all CPUs.
    pub(crate) fn tasks_files(&self) -> Vec<PathBuf> {
        let v1 = self.paths.iter().filter(|(hierarchy, _)| !hierarchy.v2);
        v1.map(|(_, path)| path.join("tasks")).collect()
    }

    /// The group in the v2 hierarchy, where there is one: processes are cloned into it.
    pub(crate) fn v2(&self) -> Option<PathBuf> {
        self.paths.iter().find(|(hierarchy, _)| hierarchy.v2).map(|(_, path)| path.clone())
    }

    /// The file that counts the processes killed for want of memory.
    pub(crate) fn oom_file(&self) -> Option<PathBuf> {
        self.paths.iter().find_map(|(hierarchy, path)| match hierarchy.v2 {
            true if self.mode == CgroupMode::V2 => Some(path.join("memory.events")),
            false if hierarchy.controllers.iter().any(|name| name == "memory") => {
                Some(path.join("memory.oom_control"))
            }
            _ => None,
        })
    }

    /// Stops or lets go all processes of the group.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), RuntimeError> {
        let Some((file, word, other)) = self.freezer() else {
            let why = "this host has no cgroup freezer: containers can't be paused";
            return Err(RuntimeError::Invalid(why.to_owned()));
        };
        let wanted = if frozen { word } else { other };
        fs::write(&file, wanted).map_err(RuntimeError::io("write", &file))
    }

    pub(crate) fn is_frozen(&self) -> bool {
        let Some((file, word, _)) = self.freezer() else { return false };
        let text = fs::read_to_string(file).unwrap_or_default();
        // v1 says FREEZING until the last process has stopped.
        text.trim() == word || text.trim() == "FREEZING"
    }

    /// The freezer's file, and its words for stopped and running.
    fn freezer(&self) -> Option<(PathBuf, &'static str, &'static str)> {
        self.paths.iter().find_map(|(hierarchy, path)| {
            if hierarchy.controllers.iter().any(|name| name == "freezer") {
                return Some((path.join("freezer.state"), "FROZEN", "THAWED"));
            }
            let alone = hierarchy.v2 && self.mode == CgroupMode::V2;
            alone.then(|| (path.join("cgroup.freeze"), "1", "0"))
        })
    }

    /// Sets further limits.
    pub(crate) fn update(&self, limits: &LinuxResources) -> Result<(), RuntimeError> {
        for (hierarchy, path) in &self.paths {
            limits::set(hierarchy, path, Some(limits))?;
        }
        Ok(())
    }

    /// What its processes use.
    pub(crate) fn usage(&self) -> Usage {
        usage::read(&self.paths)
    }

    /// Kills all that runs in the group.
    pub(crate) fn kill(&self) -> io::Result<()> {
        for (hierarchy, path) in &self.paths {
            if hierarchy.v2 && path.join("cgroup.kill").exists() {
                return fs::write(path.join("cgroup.kill"), "1");
            }
        }
        for pid in self.processes() {
            match nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(crate) fn processes(&self) -> Vec<nix::unistd::Pid> {
        let mut pids: Vec<i32> = Vec::new();
        for (_, path) in &self.paths {
            let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        pids.sort_unstable();
        pids.dedup();
        pids.into_iter().map(nix::unistd::Pid::from_raw).collect()
    }

    /// Kills what is left in the group and takes it away; fine when it is not there.
    pub(crate) fn delete(&self) -> Result<(), RuntimeError> {
        let until = Instant::now() + BUSY_PATIENCE;
        let mut pause = Duration::from_millis(1);
        for (_, path) in &self.paths {
            loop {
                match fs::remove_dir(path) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error)
                        if error.kind() == io::ErrorKind::ResourceBusy
                            && Instant::now() < until =>
                    {
                        self.kill().map_err(RuntimeError::io("kill cgroup", path))?;
                        // The kernel has no event for "the last process of a group is reaped".
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(50));
                    }
                    Err(source) => return Err(RuntimeError::io("remove cgroup", path)(source)),
                }
            }
        }
        Ok(())
    }
}

fn write(path: &Path, file: &str, value: impl ToString) -> Result<(), RuntimeError> {
    let path = path.join(file);
    fs::write(&path, value.to_string()).map_err(RuntimeError::io("write", &path))
}

/// Where v2 has the controllers, it also decides on devices; beside v1 it does not.
fn has_v2_devices(path: &Path) -> bool {
    limits::has_controllers(path)
}

fn open_dir(path: &Path) -> Result<File, RuntimeError> {
    File::open(path).map_err(RuntimeError::io("open cgroup", path))
}

fn attach_program(path: &Path, program: &[u64]) -> Result<(), RuntimeError> {
    let directory = open_dir(path)?;
    crate::sys::attach_device_program(directory.as_fd(), program)
        .map_err(RuntimeError::io("restrict devices of", path))
}
