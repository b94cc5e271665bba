//! How a container ended, as its shim records it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// As a shell has it: 128 + signal for a process that a signal killed.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// When.
    pub finished_at: SystemTime,
}

impl ExitStatus {
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("exit")
    }

    /// `CODE SIGNAL OOM NANOSECONDS`
    pub(crate) fn encode(&self) -> String {
        let since = self.finished_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let signal = self.signal.unwrap_or(0);
        format!("{} {signal} {} {}", self.code, u8::from(self.oom_killed), since.as_nanos())
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace();
        let code = fields.next()?.parse().ok()?;
        let signal: i32 = fields.next()?.parse().ok()?;
        let oom_killed = fields.next()? == "1";
        let finished_at = UNIX_EPOCH + Duration::from_nanos(fields.next()?.parse().ok()?);
        Some(Self { code, signal: (signal != 0).then_some(signal), oom_killed, finished_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_as_written() {
        let finished_at = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        for (code, signal, oom_killed) in [(0, None, false), (137, Some(9), true)] {
            let exit = ExitStatus { code, signal, oom_killed, finished_at };
            assert_eq!(ExitStatus::decode(&exit.encode()), Some(exit));
        }
        assert_eq!(ExitStatus::decode("12 garbage"), None);
    }
}
