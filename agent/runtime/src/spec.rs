//! OCI runtime specs with the defaults that Docker users know: mounts, devices, hidden paths.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
};

/// Hidden: what would tell of or reach into the host (Docker's list).
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Write-protected (Docker's list).
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const SHM_SIZE: u64 = 64 << 20;
/// The kernel's period for CPU quotas, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// A mount option of our own: an empty source gets the files that the image has at the target,
/// as Docker does with a new volume.
pub const COPY_UP: &str = "shoal-copy-up";

/// What differs from one container to the next.
#[derive(Debug, Clone, Default)]
pub struct ContainerOptions {
    /// Command and arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; made when the image lacks it.
    pub cwd: PathBuf,
    /// Host name in the container.
    pub hostname: String,
    /// Volumes, binds and the like, after the default mounts.
    pub mounts: Vec<Mount>,
    /// No writes to the root.
    pub read_only: bool,
    /// Set-uid programs gain nothing.
    pub no_new_privileges: bool,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: HashMap<String, String>,
    /// `(name, soft, hard)`, as in `ulimit`: "nofile".
    pub ulimits: Vec<(String, u64, u64)>,
    /// Bytes of /dev/shm; 0: 64 MiB.
    pub shm_size: u64,
    /// Bytes of memory, swap included; 0: no limit.
    pub memory_limit: i64,
    /// Bytes of memory that are kept for it when memory is short; 0: none.
    pub memory_reservation: i64,
    /// Billionths of a CPU; 0: no limit.
    pub nano_cpus: i64,
    /// Processes; 0: no limit.
    pub pids_limit: i64,
}

/// Why a spec can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A limit that the kernel does not have.
    #[error("{0:?} is no resource limit; use the names of setrlimit(2) such as nofile")]
    Ulimit(String),
    /// A parameter that is the host's, not the container's.
    #[error(
        "sysctl {0} is not of the container's own namespaces; \
         only net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.* can be set"
    )]
    Sysctl(String),
    /// The library refused.
    #[error(transparent)]
    Oci(#[from] OciSpecError),
}

/// The spec of a container with Docker's defaults.
///
/// # Errors
/// See [`SpecError`].
pub fn build(options: ContainerOptions) -> Result<Spec, SpecError> {
    for name in options.sysctls.keys() {
        if !is_namespaced(name) {
            return Err(SpecError::Sysctl(name.clone()));
        }
    }
    let limits: Vec<PosixRlimit> = options.ulimits.iter().map(ulimit).collect::<Result<_, _>>()?;
    let process = ProcessBuilder::default()
        .args(options.args.clone())
        .env(options.env.clone())
        .cwd(options.cwd.clone())
        .no_new_privileges(options.no_new_privileges)
        .rlimits(limits)
        .build()?;
    let shm = if options.shm_size == 0 { SHM_SIZE } else { options.shm_size };
    let mut mounts = default_mounts(shm)?;
    mounts.extend(options.mounts.iter().cloned());
    let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let linux = LinuxBuilder::default()
        .masked_paths(strings(&MASKED))
        .readonly_paths(strings(&READ_ONLY))
        .sysctl(options.sysctls.clone())
        .resources(resources(&options)?)
        .build()?;
    let root = RootBuilder::default().path("rootfs").readonly(options.read_only).build()?;
    Ok(SpecBuilder::default()
        .version("1.2.0")
        .process(process)
        .root(root)
        .hostname(options.hostname)
        .mounts(mounts)
        .linux(linux)
        .build()?)
}

fn is_namespaced(name: &str) -> bool {
    name.starts_with("net.")
        || name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name == "kernel.sem"
        || name.starts_with("fs.mqueue.")
}

fn ulimit((name, soft, hard): &(String, u64, u64)) -> Result<PosixRlimit, SpecError> {
    use PosixRlimitType as Kind;
    let kind = match name.as_str() {
        "core" => Kind::RlimitCore,
        "cpu" => Kind::RlimitCpu,
        "data" => Kind::RlimitData,
        "fsize" => Kind::RlimitFsize,
        "locks" => Kind::RlimitLocks,
        "memlock" => Kind::RlimitMemlock,
        "msgqueue" => Kind::RlimitMsgqueue,
        "nice" => Kind::RlimitNice,
        "nofile" => Kind::RlimitNofile,
        "nproc" => Kind::RlimitNproc,
        "rss" => Kind::RlimitRss,
        "rtprio" => Kind::RlimitRtprio,
        "rttime" => Kind::RlimitRttime,
        "sigpending" => Kind::RlimitSigpending,
        "stack" => Kind::RlimitStack,
        _ => return Err(SpecError::Ulimit(name.clone())),
    };
    Ok(PosixRlimitBuilder::default().typ(kind).soft(*soft).hard(*hard).build()?)
}

/// A mount of any kind.
///
/// # Errors
/// Never, as all fields are given; the library's builder can't say so.
pub fn mount(
    kind: &str,
    source: &Path,
    target: &Path,
    options: &[&str],
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .typ(kind)
        .source(source)
        .destination(target)
        .options(options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>())
        .build()
}

fn default_mounts(shm_size: u64) -> Result<Vec<Mount>, OciSpecError> {
    let one = |kind: &str, source: &str, target: &str, options: &[&str]| {
        mount(kind, Path::new(source), Path::new(target), options)
    };
    let shm = format!("size={shm_size}");
    Ok(vec![
        one("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        one("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        one(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        one("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm])?,
        one("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        one("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"])?,
        one("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"])?,
    ])
}

fn resources(
    options: &ContainerOptions,
) -> Result<oci_spec::runtime::LinuxResources, OciSpecError> {
    let mut memory = LinuxMemoryBuilder::default();
    if options.memory_limit > 0 {
        // No swap beyond the memory: a limit that is passed ends in an OOM kill, not in thrashing.
        memory = memory.limit(options.memory_limit).swap(options.memory_limit);
    }
    if options.memory_reservation > 0 {
        memory = memory.reservation(options.memory_reservation);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if options.nano_cpus > 0 {
        let quota = i128::from(options.nano_cpus) * i128::from(CPU_PERIOD) / 1_000_000_000;
        // Under a millisecond the kernel refuses.
        let quota = i64::try_from(quota).unwrap_or(i64::MAX).max(1000);
        cpu = cpu.period(CPU_PERIOD).quota(quota);
    }
    let mut resources = LinuxResourcesBuilder::default()
        .devices(devices()?)
        .memory(memory.build()?)
        .cpu(cpu.build()?);
    if options.pids_limit > 0 {
        resources = resources.pids(LinuxPidsBuilder::default().limit(options.pids_limit).build()?);
    }
    resources.build()
}

/// Nothing but the harmless devices; any may be made (`mknod`), as in Docker.
fn devices() -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let rule = |allow, kind, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
        if let Some(major) = major {
            rule = rule.major(major);
        }
        if let Some(minor) = minor {
            rule = rule.minor(minor);
        }
        rule.build()
    };
    let character = LinuxDeviceType::C;
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm")?,
        rule(true, character, None, None, "m")?,
        rule(true, LinuxDeviceType::B, None, None, "m")?,
    ];
    // null, zero, full, random, urandom, tty, ptmx, console
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (5, 1)] {
        rules.push(rule(true, character, Some(major), Some(minor), "rwm")?);
    }
    // pts
    rules.push(rule(true, character, Some(136), None, "rwm")?);
    Ok(rules)
}
