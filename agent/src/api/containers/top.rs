//! The processes of a container, as `ps -ef` would show them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_proto::v1::Process;

/// The kernel counts in hundredths of a second in /proc (USER_HZ, proc(5)).
const TICKS: u64 = 100;

pub(super) fn processes(pids: &[i32]) -> Vec<Process> {
    let boot = boot_time();
    pids.iter().filter_map(|pid| process(*pid, boot)).collect()
}

/// None for one that has ended meanwhile.
fn process(pid: i32, boot: u64) -> Option<Process> {
    let folder = format!("/proc/{pid}");
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    // The name may hold anything, a closing parenthesis too.
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
    let cpu = number(11)? + number(12)?;
    let started = boot + number(19)? / TICKS;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let command = fs::read(format!("{folder}/cmdline")).unwrap_or_default();
    let command = match command.is_empty() {
        true => format!("[{name}]"),
        false => String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " "),
    };
    let uid = fs::metadata(&folder).map(|found| found.uid()).unwrap_or_default();
    let share = cpu * 1000 / TICKS / (now.saturating_sub(started)).max(1);
    Some(Process {
        user: user(uid),
        pid,
        parent: number(1)? as i32,
        started: started.to_string(),
        terminal: terminal(number(4)?),
        cpu_ms: cpu * 1000 / TICKS,
        command,
        cpu_share: u32::try_from(share).unwrap_or(u32::MAX),
    })
}

fn boot_time() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|time| time.trim().parse().ok()).unwrap_or(0)
}

/// The host's name for it, as `docker top` shows.
fn user(uid: u32) -> String {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    line.and_then(|line| line.split(':').next()).map_or_else(|| uid.to_string(), str::to_owned)
}

/// `pts/0`, or `?` for none.
fn terminal(number: u64) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}
