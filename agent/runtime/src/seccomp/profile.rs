//! A profile as Docker writes it (`docker run --security-opt seccomp=FILE`).

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    pub(super) default_action: Action,
    pub(super) default_errno_ret: Option<u16>,
    #[serde(default)]
    pub(super) syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    #[serde(default)]
    pub(super) names: Vec<String>,
    pub(super) action: Action,
    pub(super) errno_ret: Option<u16>,
    #[serde(default)]
    pub(super) args: Vec<Argument>,
    #[serde(default)]
    pub(super) includes: Condition,
    #[serde(default)]
    pub(super) excludes: Condition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Condition {
    #[serde(default)]
    pub(super) caps: Vec<String>,
    #[serde(default)]
    pub(super) arches: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Argument {
    pub(super) index: u32,
    pub(super) value: u64,
    #[serde(default)]
    pub(super) value_two: u64,
    pub(super) op: Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Operator {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// This machine's name in a profile's `arches`.
pub(super) const ARCH: &str = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };

impl Rule {
    /// Whether the rule is for this machine and a container with those capabilities.
    pub(super) fn applies(&self, capabilities: u64) -> bool {
        let has = |name: &String| {
            crate::capability::bit(name).is_some_and(|bit| capabilities & (1 << bit) != 0)
        };
        let here = |arches: &[String]| arches.iter().any(|arch| arch == ARCH);
        let included = self.includes.caps.iter().all(has)
            && (self.includes.arches.is_empty() || here(&self.includes.arches));
        let excluded = self.excludes.caps.iter().any(has) || here(&self.excludes.arches);
        included && !excluded
    }
}
