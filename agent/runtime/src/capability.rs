//! Capabilities by name and as bit sets (capabilities(7)).

/// In the kernel's order: the position is the number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker gives a container that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The number of a capability, with or without `CAP_`, in any case.
pub(crate) fn bit(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == short).map(|position| position as u32)
}

/// Docker's default set with some added and some dropped; `ALL` means every one.
///
/// # Errors
/// The first name that is no capability.
pub fn set(add: &[String], drop: &[String]) -> Result<u64, String> {
    let all = (1u64 << NAMES.len()) - 1;
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let bits = |names: &[String]| {
        names.iter().filter(|name| !is_all(name)).try_fold(0u64, |set, name| {
            let unknown = || format!("{name:?} is no capability; see capabilities(7)");
            bit(name).map(|bit| set | 1 << bit).ok_or_else(unknown)
        })
    };
    let default = DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | 1 << bit);
    let base = match (add.iter().any(is_all), drop.iter().any(is_all)) {
        (true, _) => all,
        (false, true) => 0,
        (false, false) => default,
    };
    Ok((base | bits(add)?) & !bits(drop)?)
}

/// The highest capability that this kernel knows.
pub(crate) fn last() -> u32 {
    let read = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    read.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(NAMES.len() as u32 - 1)
}
