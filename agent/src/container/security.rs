//! `--security-opt`, as Docker has it.

use std::path::Path;

use shoal_runtime::Seccomp;

/// What the options come to.
#[derive(Debug, Default)]
pub(super) struct Security {
    pub(super) seccomp: Seccomp,
    pub(super) no_new_privileges: bool,
    pub(super) apparmor: String,
    pub(super) label: String,
    pub(super) unconfined_paths: bool,
}

/// # Errors
/// An option that is unknown, or that this host can't do.
pub(super) fn parse(options: &[String]) -> Result<Security, String> {
    let mut security = Security::default();
    for option in options {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", profile) if profile.trim_start().starts_with('{') => {
                security.seccomp = Seccomp::Profile(profile.to_owned());
            }
            ("seccomp", _) => return Err("seccomp takes unconfined or a profile".to_owned()),
            ("apparmor", "unconfined") => security.apparmor.clear(),
            ("apparmor", profile) if !profile.is_empty() => {
                if !Path::new("/sys/kernel/security/apparmor").exists() {
                    return Err(format!("apparmor={profile}: this host has no AppArmor"));
                }
                security.apparmor = profile.to_owned();
            }
            ("label", "disable") => security.label.clear(),
            ("label", label) if !label.is_empty() => {
                if !Path::new("/sys/fs/selinux/enforce").exists() {
                    return Err(format!("label={label}: this host has no SELinux"));
                }
                security.label = label.to_owned();
            }
            ("systempaths", "unconfined") => security.unconfined_paths = true,
            _ => {
                return Err(format!(
                    "unknown security option {option:?}; there are seccomp, no-new-privileges, \
                     apparmor, label and systempaths"
                ));
            }
        }
    }
    Ok(security)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Result<Security, String> {
        parse(&options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn dockers_options_are_known_and_others_refused() {
        let all = of(&["no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"]);
        let all = all.unwrap();
        assert!(all.no_new_privileges && all.unconfined_paths);
        assert_eq!(all.seccomp, Seccomp::Unconfined);
        assert!(of(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        let profile = r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#;
        assert!(matches!(of(&[profile]).unwrap().seccomp, Seccomp::Profile(_)));
        for wrong in ["seccomp=", "magic=1", "apparmor=", "no-new-privileges=perhaps"] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
    }
}
