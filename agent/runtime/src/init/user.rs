//! Users and groups by name, from the container's own /etc/passwd and /etc/group.

use std::fs;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Resolves `user[:group]` as Docker does: names or numbers; a number need not be in the files.
/// Called with the container's root as `/`.
pub(crate) fn resolve(text: &str, additional: &[String]) -> Result<Identity, String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    resolve_in(&passwd, &group, text, additional)
}

fn resolve_in(
    passwd: &str,
    group: &str,
    text: &str,
    additional: &[String],
) -> Result<Identity, String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let mut found = None;
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, uid, gid, _, home, ..] = fields[..]
            && (name == user || uid == user)
            && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
        {
            found = Some((name.to_owned(), uid, gid, home.to_owned()));
            break;
        }
    }
    let (name, uid, gid, home) = match (found, user.parse::<u32>()) {
        (Some(found), _) => found,
        (None, Ok(uid)) => (String::new(), uid, 0, "/".to_owned()),
        (None, Err(_)) => return Err(format!("no user {user:?} in the image's /etc/passwd")),
    };
    let gid = match wanted_group {
        Some(wanted) => group_id(group, wanted)?,
        None => gid,
    };
    let mut groups = Vec::new();
    if wanted_group.is_none() && !name.is_empty() {
        groups.extend(member_of(group, &name));
    }
    for wanted in additional {
        groups.push(group_id(group, wanted)?);
    }
    let home = if home.is_empty() { "/".to_owned() } else { home };
    Ok(Identity { uid, gid, groups, home })
}

fn group_id(file: &str, wanted: &str) -> Result<u32, String> {
    let named = file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == wanted).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    named
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| format!("no group {wanted:?} in the image's /etc/group"))
}

fn member_of(file: &str, user: &str) -> Vec<u32> {
    let groups = file.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member.trim() == user).then_some(gid)
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:4:web,root\n";

    #[test]
    fn users_and_groups_by_name_and_number() {
        let identity = |text: &str| resolve_in(PASSWD, GROUP, text, &[]).unwrap();
        assert_eq!((identity("").uid, identity("").home.as_str()), (0, "/root"));
        assert_eq!(identity("web").gid, 34);
        assert_eq!(identity("web").groups, [4]);
        assert_eq!(identity("33").gid, 34);
        assert_eq!((identity("web:logs").gid, identity("web:logs").groups.len()), (4, 0));
        assert_eq!((identity("1234:99").uid, identity("1234:99").gid), (1234, 99));
        assert_eq!(identity("1234").home, "/");
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(resolve_in(PASSWD, GROUP, "nobody", &[]).unwrap_err().contains("nobody"));
        assert!(resolve_in(PASSWD, GROUP, "web:none", &[]).unwrap_err().contains("none"));
        assert!(resolve_in(PASSWD, GROUP, "web", &["none".to_owned()]).is_err());
    }
}
