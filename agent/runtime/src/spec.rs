//! OCI runtime specs with the defaults that Docker users know: mounts, devices, hidden paths.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    BoxBuilder, LinuxBlockIo, LinuxBlockIoBuilder, LinuxBuilder, LinuxCpuBuilder, LinuxDevice,
    LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
    LinuxThrottleDeviceBuilder, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
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
    /// Bytes of memory and swap together; 0: no swap beyond the memory, -1: no limit of swap.
    pub memory_swap: i64,
    /// The weight of its CPU time; 0: 1024.
    pub cpu_shares: u64,
    /// Microseconds of CPU time in a period; 0: by `nano_cpus`.
    pub cpu_quota: i64,
    /// Microseconds of a period; 0: 100,000.
    pub cpu_period: u64,
    /// CPUs that it may run on: `0-2,4`; empty: all.
    pub cpuset_cpus: String,
    /// Memory nodes that it may use; empty: all.
    pub cpuset_mems: String,
    /// Limits of its block devices.
    pub block_io: BlockIo,
    /// It waits for memory instead of being killed (cgroup v1 alone).
    pub oom_kill_disable: bool,
    /// How gladly the kernel kills it for want of memory, from -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Devices of the host's to have, besides the harmless ones.
    pub devices: Vec<Device>,
    /// Further rules on which devices it may make and open, as `c 1:3 rwm`.
    pub device_rules: Vec<String>,
    /// All devices, and nothing hidden or write-protected.
    pub privileged: bool,
    /// Nothing hidden or write-protected.
    pub unconfined_paths: bool,
    /// Columns and rows of its terminal at its start; 0: unknown.
    pub console_size: (u32, u32),
    /// Domain name in the container.
    pub domainname: String,
}

/// Limits of block devices.
#[derive(Debug, Clone, Default)]
pub struct BlockIo {
    /// 10 to 1000; 0: the kernel's default.
    pub weight: u16,
    /// Bytes a second.
    pub read_bytes: Vec<DeviceRate>,
    /// Bytes a second.
    pub write_bytes: Vec<DeviceRate>,
    /// Operations a second.
    pub read_operations: Vec<DeviceRate>,
    /// Operations a second.
    pub write_operations: Vec<DeviceRate>,
}

/// How much a second a container may do with a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRate {
    /// The device's numbers.
    pub device: (i64, i64),
    /// So many a second.
    pub rate: u64,
}

/// A device of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its place in the container.
    pub path: PathBuf,
    /// A block device, not a character device.
    pub block: bool,
    /// Its numbers.
    pub number: (i64, i64),
    /// Rights of its file.
    pub mode: u32,
    /// Its file's owner and group.
    pub owner: (u32, u32),
    /// Of "rwm".
    pub access: String,
}

/// Why a spec can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A limit that the kernel does not have.
    #[error("{0:?} is no resource limit; use the names of setrlimit(2) such as nofile")]
    Ulimit(String),
    /// A device rule of another form.
    #[error(
        "{0:?} is no device rule; write it as \"c 1:3 rwm\": a, b or c, numbers or *, and of rwm"
    )]
    DeviceRule(String),
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
    let mut process = ProcessBuilder::default()
        .args(options.args.clone())
        .env(options.env.clone())
        .cwd(options.cwd.clone())
        .no_new_privileges(options.no_new_privileges)
        .rlimits(limits)
        .build()?;
    process.set_oom_score_adj(options.oom_score_adj);
    let (columns, rows) = options.console_size;
    if columns > 0 && rows > 0 {
        let size = BoxBuilder::default().width(columns).height(rows).build()?;
        process.set_console_size(Some(size));
    }
    let shm = if options.shm_size == 0 { SHM_SIZE } else { options.shm_size };
    let mut mounts = default_mounts(shm, options.privileged)?;
    // One of the user's at the same place takes the place of ours.
    mounts
        .retain(|own| options.mounts.iter().all(|mount| mount.destination() != own.destination()));
    mounts.extend(options.mounts.iter().cloned());
    let strings = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let open = options.privileged || options.unconfined_paths;
    let devices = options.devices.iter().map(device).collect::<Result<Vec<_>, _>>()?;
    let linux = LinuxBuilder::default()
        .masked_paths(if open { Vec::new() } else { strings(&MASKED) })
        .readonly_paths(if open { Vec::new() } else { strings(&READ_ONLY) })
        .sysctl(options.sysctls.clone())
        .devices(devices)
        .resources(resources(&options)?)
        .build()?;
    let root = RootBuilder::default().path("rootfs").readonly(options.read_only).build()?;
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .process(process)
        .root(root)
        .mounts(mounts)
        .linux(linux)
        .build()?;
    let some = |text: String| (!text.is_empty()).then_some(text);
    spec.set_hostname(some(options.hostname));
    spec.set_domainname(some(options.domainname));
    Ok(spec)
}

fn device(device: &Device) -> Result<LinuxDevice, OciSpecError> {
    LinuxDeviceBuilder::default()
        .path(device.path.clone())
        .typ(if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .major(device.number.0)
        .minor(device.number.1)
        .file_mode(device.mode)
        .uid(device.owner.0)
        .gid(device.owner.1)
        .build()
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

fn default_mounts(shm_size: u64, privileged: bool) -> Result<Vec<Mount>, OciSpecError> {
    let one = |kind: &str, source: &str, target: &str, options: &[&str]| {
        mount(kind, Path::new(source), Path::new(target), options)
    };
    let shm = format!("size={shm_size}");
    let access = if privileged { "rw" } else { "ro" };
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
        one("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", access])?,
        one("cgroup", "cgroup", "/sys/fs/cgroup", &[access, "nosuid", "noexec", "nodev"])?,
    ])
}

/// What the kernel is to hold it to.
///
/// # Errors
/// A device rule that is none.
pub fn resources(options: &ContainerOptions) -> Result<LinuxResources, SpecError> {
    let mut memory = LinuxMemoryBuilder::default();
    if options.memory_limit > 0 {
        // No swap beyond the memory, unless asked for: a limit that is passed ends in an OOM kill,
        // not in thrashing.
        let swap = match options.memory_swap {
            0 => options.memory_limit,
            swap => swap,
        };
        memory = memory.limit(options.memory_limit).swap(swap);
    }
    if options.memory_reservation > 0 {
        memory = memory.reservation(options.memory_reservation);
    }
    if options.oom_kill_disable {
        memory = memory.disable_oom_killer(true);
    }
    let mut cpu = LinuxCpuBuilder::default();
    let period = if options.cpu_period == 0 { CPU_PERIOD } else { options.cpu_period };
    if options.nano_cpus > 0 {
        let quota = i128::from(options.nano_cpus) * i128::from(period) / 1_000_000_000;
        // Under a millisecond the kernel refuses.
        let quota = i64::try_from(quota).unwrap_or(i64::MAX).max(1000);
        cpu = cpu.period(period).quota(quota);
    } else if options.cpu_quota != 0 {
        cpu = cpu.period(period).quota(options.cpu_quota);
    }
    if options.cpu_shares > 0 {
        cpu = cpu.shares(options.cpu_shares);
    }
    if !options.cpuset_cpus.is_empty() {
        cpu = cpu.cpus(options.cpuset_cpus.clone());
    }
    if !options.cpuset_mems.is_empty() {
        cpu = cpu.mems(options.cpuset_mems.clone());
    }
    let mut resources = LinuxResourcesBuilder::default()
        .devices(devices(options)?)
        .memory(memory.build()?)
        .cpu(cpu.build()?)
        .block_io(block_io(&options.block_io)?);
    if options.pids_limit > 0 {
        resources = resources.pids(LinuxPidsBuilder::default().limit(options.pids_limit).build()?);
    }
    Ok(resources.build()?)
}

fn block_io(limits: &BlockIo) -> Result<LinuxBlockIo, OciSpecError> {
    let rates = |rates: &[DeviceRate]| {
        let one = |rate: &DeviceRate| {
            LinuxThrottleDeviceBuilder::default()
                .major(rate.device.0)
                .minor(rate.device.1)
                .rate(rate.rate)
                .build()
        };
        rates.iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    let mut built = LinuxBlockIoBuilder::default()
        .throttle_read_bps_device(rates(&limits.read_bytes)?)
        .throttle_write_bps_device(rates(&limits.write_bytes)?)
        .throttle_read_iops_device(rates(&limits.read_operations)?)
        .throttle_write_iops_device(rates(&limits.write_operations)?);
    if limits.weight > 0 {
        built = built.weight(limits.weight);
    }
    built.build()
}

/// `c 1:3 rwm`
fn rule(text: &str) -> Result<LinuxDeviceCgroup, SpecError> {
    let wrong = || SpecError::DeviceRule(text.to_owned());
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = fields[..] else { return Err(wrong()) };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(wrong()),
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    if access.is_empty() || access.chars().any(|c| !"rwm".contains(c)) {
        return Err(wrong());
    }
    Ok(device_rule(true, kind, number(major)?, number(minor)?, access)?)
}

fn device_rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup, OciSpecError> {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    if let Some(major) = major {
        rule = rule.major(major);
    }
    if let Some(minor) = minor {
        rule = rule.minor(minor);
    }
    rule.build()
}

/// Nothing but the harmless devices; any may be made (`mknod`), as in Docker.
fn devices(options: &ContainerOptions) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    if options.privileged {
        return Ok(vec![device_rule(true, LinuxDeviceType::A, None, None, "rwm")?]);
    }
    let character = LinuxDeviceType::C;
    let mut rules = vec![
        device_rule(false, LinuxDeviceType::A, None, None, "rwm")?,
        device_rule(true, character, None, None, "m")?,
        device_rule(true, LinuxDeviceType::B, None, None, "m")?,
    ];
    // null, zero, full, random, urandom, tty, ptmx, console
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (5, 1)] {
        rules.push(device_rule(true, character, Some(major), Some(minor), "rwm")?);
    }
    // pts
    rules.push(device_rule(true, character, Some(136), None, "rwm")?);
    for device in &options.devices {
        let kind = if device.block { LinuxDeviceType::B } else { character };
        let (major, minor) = device.number;
        rules.push(device_rule(true, kind, Some(major), Some(minor), &device.access)?);
    }
    for text in &options.device_rules {
        rules.push(rule(text)?);
    }
    Ok(rules)
}
