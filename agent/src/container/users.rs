//! Whether a container's users are the host's, or those of a user namespace (docker run, "--userns";
//! dockerd, "--userns-remap").

use std::path::Path;

use shoal_proto::v1::ContainerConfig;
use shoal_runtime::IdRange;

/// The last of the numbers that systemd keeps for containers (its documentation, "Users, Groups,
/// UIDs and GIDs on systemd Systems"): nobody's on any usual host.
const DEFAULT: IdRange = IdRange { uid: 0x6fff_0000, gid: 0x6fff_0000, count: 0x1_0000 };

/// A node's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Users {
    /// The ids of user namespaces.
    range: IdRange,
    /// Containers that ask for nothing have one.
    by_default: bool,
}

impl Users {
    /// The rule for a setting: none, `default`, `FIRST:COUNT`, or the name of a user whose
    /// subordinate ids in /etc/subuid and /etc/subgid are taken.
    pub(crate) fn of(setting: Option<&str>) -> Result<Self, String> {
        let range = match setting {
            None => return Ok(Self { range: DEFAULT, by_default: false }),
            Some("default") => DEFAULT,
            Some(text) => match text.split_once(':') {
                Some((first, count)) => numbers(first, count)
                    .map(|(first, count)| IdRange { uid: first, gid: first, count })
                    .ok_or_else(|| format!("{text:?} is not of the form FIRST:COUNT"))?,
                None => subordinate(text, Path::new("/etc/subuid"), Path::new("/etc/subgid"))?,
            },
        };
        if range.uid == 0 || range.gid == 0 || range.count < 1000 {
            return Err("the ids must leave out 0, and be 1000 at the least".to_owned());
        }
        Ok(Self { range, by_default: true })
    }

    /// The container's ids; none: they are the host's.
    pub(crate) fn range(self, config: &ContainerConfig) -> Result<Option<IdRange>, String> {
        let remapped = match config.userns_mode.as_str() {
            "host" => false,
            "remapped" => true,
            "" => self.by_default,
            other => {
                return Err(format!(
                    "user namespace mode {other:?} is unknown; there are host and remapped"
                ));
            }
        };
        if !remapped {
            return Ok(None);
        }
        let clash = [
            ("--privileged", config.privileged),
            ("--network host", config.network_mode == "host"),
            ("--pid host", config.pid_mode == "host"),
            ("--ipc host", config.ipc_mode == "host"),
            ("--uts host", config.uts_mode == "host"),
        ];
        match clash.iter().find(|(_, wanted)| *wanted) {
            Some((option, _)) => Err(format!(
                "{option} is of no use in a user namespace, whose root has no rights on the host; \
                 add --userns host"
            )),
            None => Ok(Some(self.range)),
        }
    }
}

fn numbers(first: &str, count: &str) -> Option<(u32, u32)> {
    let (first, count) = (first.parse::<u32>().ok()?, count.parse::<u32>().ok()?);
    first.checked_add(count)?;
    Some((first, count))
}

/// The first range of the user's in each file (subuid(5)).
fn subordinate(user: &str, uids: &Path, gids: &Path) -> Result<IdRange, String> {
    let find = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let range = text.lines().find_map(|line| {
            let rest = line.strip_prefix(user)?.strip_prefix(':')?;
            let (first, count) = rest.split_once(':')?;
            numbers(first.trim(), count.trim())
        });
        range.ok_or_else(|| format!("{} has no range for user {user:?}", path.display()))
    };
    let ((uid, users), (gid, groups)) = (find(uids)?, find(gids)?);
    Ok(IdRange { uid, gid, count: users.min(groups) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_rule_is_a_range_or_a_users_subordinate_ids() {
        let range = Users::of(Some("200000:65536")).unwrap();
        assert_eq!(range.range.uid, 200_000);
        assert!(range.by_default && !Users::of(None).unwrap().by_default);
        for wrong in ["0:65536", "5:7", "4294967295:9999", "x:y", "nobody-of-that-name"] {
            assert!(Users::of(Some(wrong)).is_err(), "{wrong}");
        }
        let dir = tempfile::tempdir().unwrap();
        let (uids, gids) = (dir.path().join("subuid"), dir.path().join("subgid"));
        std::fs::write(&uids, "web:100000:65536\nweb2:165536:70000\n").unwrap();
        std::fs::write(&gids, "web2:300000:65536\n").unwrap();
        let expected = IdRange { uid: 165_536, gid: 300_000, count: 65_536 };
        assert_eq!(subordinate("web2", &uids, &gids), Ok(expected));
        assert!(subordinate("web", &uids, &gids).unwrap_err().contains("subgid"));
    }

    #[test]
    fn a_container_may_choose_where_it_makes_sense() {
        let of = |by_default: bool, mode: &str, network: &str| {
            let config = ContainerConfig {
                userns_mode: mode.to_owned(),
                network_mode: network.to_owned(),
                ..ContainerConfig::default()
            };
            Users { range: DEFAULT, by_default }.range(&config)
        };
        assert_eq!(of(false, "", ""), Ok(None));
        assert_eq!(of(true, "", ""), Ok(Some(DEFAULT)));
        assert_eq!(of(true, "host", "host"), Ok(None));
        assert_eq!(of(false, "remapped", "none"), Ok(Some(DEFAULT)));
        assert!(of(true, "", "host").unwrap_err().contains("--userns host"));
        assert!(of(false, "auto", "").unwrap_err().contains("host and remapped"));
    }
}
