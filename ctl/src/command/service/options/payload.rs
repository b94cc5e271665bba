//! Secrets and configs that tasks are given.

use shoal_proto::v1::{PayloadKind, PayloadReference};

/// `NAME`, or `source=NAME,target=PATH,uid=…,gid=…,mode=0400`.
///
/// # Errors
/// Neither.
pub(super) fn secret(text: &str) -> Result<PayloadReference, String> {
    parse(PayloadKind::Secret, text)
}

/// As for a secret, and `env=VARIABLE` instead of a file.
///
/// # Errors
/// None of these.
pub(super) fn config(text: &str) -> Result<PayloadReference, String> {
    parse(PayloadKind::Config, text)
}

/// The managers find the newest version of the name.
fn parse(kind: PayloadKind, text: &str) -> Result<PayloadReference, String> {
    let mut reference = PayloadReference::default();
    reference.set_kind(kind);
    if !text.contains('=') {
        text.clone_into(&mut reference.name);
    } else {
        text.split(',').try_for_each(|part| set(&mut reference, kind, part))?;
    }
    if reference.name.is_empty() {
        return Err(format!("the {kind} has no name: source=NAME"));
    }
    let is_file =
        !reference.target.is_empty() || (reference.uid, reference.gid, reference.mode) != (0, 0, 0);
    match (reference.env.is_empty(), is_file) {
        (false, true) => {
            Err("env= makes no file: it goes without target, uid, gid and mode".into())
        }
        (false, false) => Ok(reference),
        (true, _) => {
            let given = match reference.target.as_str() {
                "" => reference.name.as_str(),
                target => target,
            };
            reference.target = path(kind, given)?;
            Ok(reference)
        }
    }
}

fn set(reference: &mut PayloadReference, kind: PayloadKind, part: &str) -> Result<(), String> {
    let Some((key, value)) = part.split_once('=') else {
        return Err(format!("{part:?} is not KEY=VALUE"));
    };
    let number = || value.parse().map_err(|_| format!("{key}: {value:?} is not a number"));
    match key {
        "source" | "src" => value.clone_into(&mut reference.name),
        "target" => value.clone_into(&mut reference.target),
        "uid" => reference.uid = number()?,
        "gid" => reference.gid = number()?,
        "mode" => match u32::from_str_radix(value.trim_start_matches("0o"), 8) {
            Ok(mode @ 1..=0o7777) => reference.mode = mode,
            _ => return Err(format!("mode: {value:?} is not octal digits such as 0400")),
        },
        "env" if kind == PayloadKind::Config && !value.is_empty() => {
            value.clone_into(&mut reference.env);
        }
        "env" if kind == PayloadKind::Secret => {
            let rule = "variables are seen by too many; a file is what a secret can be";
            return Err(format!("env: {rule}"));
        }
        other => {
            let env = if kind == PayloadKind::Config { ", env" } else { "" };
            let known = format!("source, target, uid, gid, mode{env}");
            return Err(format!("{other:?} is unknown, or empty; there are {known}"));
        }
    }
    Ok(())
}

/// The absolute path of the file.
fn path(kind: PayloadKind, text: &str) -> Result<String, String> {
    let folder = match kind {
        PayloadKind::Secret if !text.starts_with('/') => "/run/secrets",
        PayloadKind::Secret | PayloadKind::Config => "",
    };
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() || parts.contains(&"..") || text.ends_with('/') {
        return Err(format!("{text:?} is not the path of a file, without .. in it"));
    }
    Ok(format!("{folder}/{}", parts.join("/")))
}

/// At the same place in the container.
pub(super) fn same_place(one: &PayloadReference, other: &PayloadReference) -> bool {
    (&one.target, &one.env) == (&other.target, &other.env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_has_a_place() {
        let key = secret("key").unwrap();
        assert_eq!((key.name.as_str(), key.target.as_str()), ("key", "/run/secrets/key"));
        assert_eq!((key.kind(), key.payload_id.as_str()), (PayloadKind::Secret, ""));
        assert_eq!(config("app.conf").unwrap().target, "/app.conf");
    }

    #[test]
    fn the_long_form_says_where_and_whose() {
        let key = secret("source=key,target=tls/key.pem,uid=5,gid=6,mode=0400").unwrap();
        assert_eq!((key.uid, key.gid, key.mode), (5, 6, 0o400));
        assert_eq!(key.target, "/run/secrets/tls/key.pem");
        let level = config("source=level,env=LEVEL").unwrap();
        assert_eq!((level.target.as_str(), level.env.as_str()), ("", "LEVEL"));
        for wrong in ["", "target=x", "source=a,mode=9", "source=a,target=../b", "source=a,x"] {
            assert!(config(wrong).is_err(), "{wrong}");
        }
        assert!(config("source=a,env=A,mode=0400").is_err());
        assert!(secret("source=a,env=A").is_err());
    }
}
