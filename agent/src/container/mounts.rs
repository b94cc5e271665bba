//! Mounts of a configuration, as the runtime takes them.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount as OciMount;
use shoal_proto::v1::{Mount, MountType};
use shoal_runtime::spec::{self, COPY_UP};

use crate::node::{Node, Volumes};

/// Without `.` and `..`, as the words say and whatever the links in the image.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    cleaned
}

/// The mount; makes the volume or the folder that it needs.
pub(super) fn build(
    node: &Node,
    container: &str,
    number: usize,
    mount: &Mount,
) -> Result<OciMount, String> {
    if !mount.target.starts_with('/') {
        return Err(format!("mount target {:?} is not an absolute path", mount.target));
    }
    let target = &clean(Path::new(&mount.target));
    if target == Path::new("/") {
        return Err(format!("mount target {:?} is the root itself", mount.target));
    }
    let access = if mount.read_only { "ro" } else { "rw" };
    let built = match mount.r#type() {
        MountType::Volume => {
            let name = match mount.source.as_str() {
                "" => Volumes::anonymous(container, number),
                name => name.to_owned(),
            };
            let ensured = node.volumes.ensure(&name);
            let source = ensured.map_err(|error| format!("volume {name}: {error}"))?;
            let mut options = vec!["rbind", "rprivate", "idmap", access];
            if !mount.no_copy {
                options.push(COPY_UP);
            }
            spec::mount("bind", &source, target, &options)
        }
        MountType::Bind => {
            let source = Path::new(&mount.source);
            if !source.exists() {
                if !mount.create_host_path {
                    return Err(format!(
                        "bind mount: {} does not exist on this node",
                        mount.source
                    ));
                }
                std::fs::create_dir_all(source)
                    .map_err(|error| format!("{}: {error}", mount.source))?;
            }
            let propagation = match mount.propagation.as_str() {
                "" => "rprivate",
                known @ ("private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave") => {
                    known
                }
                other => return Err(format!("mount propagation {other:?} is unknown")),
            };
            spec::mount("bind", source, target, &["rbind", propagation, access])
        }
        MountType::Tmpfs => {
            let mut options = vec![
                "nosuid".to_owned(),
                "nodev".to_owned(),
                "noexec".to_owned(),
                access.to_owned(),
            ];
            if mount.tmpfs_size_bytes > 0 {
                options.push(format!("size={}", mount.tmpfs_size_bytes));
            }
            if mount.tmpfs_mode > 0 {
                options.push(format!("mode={:o}", mount.tmpfs_mode));
            }
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            spec::mount("tmpfs", Path::new("tmpfs"), target, &options)
        }
    };
    built.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_cleaned_and_stay_below_the_root() {
        for (path, cleaned) in [("/x/../y", "/y"), ("/a/./b//c/", "/a/b/c"), ("/../..", "/")] {
            assert_eq!(clean(Path::new(path)), Path::new(cleaned));
        }
    }
}
