//! Mounts, as `-v`, `--mount` and `--tmpfs` take them.

use std::path::{Path, PathBuf};

use shoal_proto::ByteSize;
use shoal_proto::v1::{Mount, MountType};

/// `[SOURCE:]TARGET[:OPTIONS]`; a source with a slash is a path, else a volume's name.
pub(super) fn volume(text: &str) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] if target.starts_with('/') => (source, target, ""),
        [target, options] => ("", target, options),
        [source, target, options] => (source, target, options),
        _ => return Err(format!("{text:?} is not of the form [SOURCE:]TARGET[:OPTIONS]")),
    };
    if !target.starts_with('/') {
        return Err(format!("{target:?} is no absolute path in the container"));
    }
    let is_path = source.contains('/') || source == "." || source == "..";
    let mut mount = Mount { target: target.to_owned(), ..Mount::default() };
    if is_path {
        mount.set_type(MountType::Bind);
        mount.source = absolute(source)?;
        mount.create_host_path = true;
    } else {
        mount.set_type(MountType::Volume);
        mount.source = name(source)?;
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "nocopy" if !is_path => mount.no_copy = true,
            // Labels of SELinux's, on hosts without it: Docker ignores them too.
            "z" | "Z" => {}
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" if is_path => {
                mount.propagation = option.to_owned();
            }
            other => return Err(format!("mount option {other:?} is unknown")),
        }
    }
    Ok(mount)
}

fn absolute(path: &str) -> Result<String, String> {
    let path: PathBuf = match path.strip_prefix("~/") {
        Some(rest) => match std::env::var_os("HOME") {
            Some(home) => Path::new(&home).join(rest),
            None => return Err("there is no HOME for ~".to_owned()),
        },
        None => path.into(),
    };
    let path =
        std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path.display().to_string())
}

fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let good = text.is_empty()
        || text.starts_with(plain)
            && text.chars().all(|c| plain(c) || matches!(c, '_' | '.' | '-'));
    if good { Ok(text.to_owned()) } else { Err(format!("{text:?} can't be a volume's name")) }
}

/// `type=bind,source=/host,target=/in,readonly`
pub(in crate::command) fn mount(text: &str) -> Result<Mount, String> {
    let mut mount = of_task(text)?;
    if mount.r#type() == MountType::Volume {
        mount.source = name(&mount.source)?;
    }
    Ok(mount)
}

/// The same where a volume's name may have placeholders.
pub(in crate::command) fn of_task(text: &str) -> Result<Mount, String> {
    let mut mount = Mount::default();
    let mut kind = MountType::Volume;
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let flag = || match value {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("{key}: {other:?} is neither true nor false")),
        };
        match key {
            "type" => {
                kind = match value {
                    "bind" => MountType::Bind,
                    "volume" => MountType::Volume,
                    "tmpfs" => MountType::Tmpfs,
                    other => return Err(format!("mount type {other:?} is unknown")),
                }
            }
            "source" | "src" => mount.source = value.to_owned(),
            "target" | "dst" | "destination" => mount.target = value.to_owned(),
            "readonly" | "ro" => mount.read_only = flag()?,
            "bind-propagation" => mount.propagation = value.to_owned(),
            "volume-nocopy" => mount.no_copy = flag()?,
            "tmpfs-size" => mount.tmpfs_size_bytes = super::limits::bytes(value)?,
            "tmpfs-mode" => {
                mount.tmpfs_mode = u32::from_str_radix(value, 8)
                    .map_err(|_| format!("tmpfs-mode {value:?} is no mode such as 1777"))?;
            }
            other => return Err(format!("mount option {other:?} is unknown")),
        }
    }
    mount.set_type(kind);
    if !mount.target.starts_with('/') {
        return Err("a mount needs target=, an absolute path in the container".to_owned());
    }
    match kind {
        // Unlike -v, this never makes the folder.
        MountType::Bind if mount.source.is_empty() => Err("a bind needs source=".to_owned()),
        MountType::Bind => {
            mount.source = absolute(&mount.source)?;
            Ok(mount)
        }
        MountType::Volume if mount.source.contains("{{") => Ok(mount),
        MountType::Volume => {
            mount.source = name(&mount.source)?;
            Ok(mount)
        }
        MountType::Tmpfs if !mount.source.is_empty() => Err("a tmpfs has no source".to_owned()),
        MountType::Tmpfs => Ok(mount),
    }
}

/// `TARGET[:OPTIONS]`
pub(super) fn tmpfs(text: &str) -> Result<Mount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        return Err(format!("{target:?} is no absolute path in the container"));
    }
    let mut mount = Mount { target: target.to_owned(), ..Mount::default() };
    mount.set_type(MountType::Tmpfs);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => {
                let size: ByteSize = size.parse().map_err(|error| format!("{error}"))?;
                mount.tmpfs_size_bytes = i64::try_from(size.0).unwrap_or(i64::MAX);
            }
            Some(("mode", mode)) => {
                mount.tmpfs_mode = u32::from_str_radix(mode, 8)
                    .map_err(|_| format!("mode {mode:?} is no mode such as 1777"))?;
            }
            None if option == "ro" => mount.read_only = true,
            // What it is anyway.
            None if matches!(option, "rw" | "nosuid" | "nodev" | "noexec") => {}
            _ => return Err(format!("tmpfs option {option:?} is unknown")),
        }
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_and_binds_are_told_apart() {
        let bind = volume("/host:/in:ro").unwrap();
        assert_eq!((bind.r#type(), bind.read_only), (MountType::Bind, true));
        let named = volume("data:/in").unwrap();
        assert_eq!((named.r#type(), named.source.as_str()), (MountType::Volume, "data"));
        let anonymous = volume("/in").unwrap();
        assert_eq!((anonymous.source.as_str(), anonymous.target.as_str()), ("", "/in"));
        assert!(volume("./here:/in").unwrap().source.starts_with('/'));
        for wrong in ["", "data:in", "a:/b:/c:/d", "x y:/in", "/a:/b:magic"] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_long_form_says_all() {
        let mounted = mount("type=tmpfs,dst=/run,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        assert_eq!((mounted.tmpfs_size_bytes, mounted.tmpfs_mode), (1 << 20, 0o1770));
        let bound = mount("type=bind,src=/etc,target=/in,readonly").unwrap();
        assert!(bound.read_only && !bound.create_host_path);
        for wrong in ["type=magic,dst=/x", "src=/x", "type=bind,dst=/x", "dst=/x,what=1"] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }
}
