//! Paths of the host that a file names.

use crate::LoadOptions;
use crate::diagnostic::{Log, Place};

/// From the working folder, or from home for `~`. None, with an error that begins with `at`, for
/// `~` when nobody is at home.
pub(crate) fn absolute(
    options: &LoadOptions<'_>,
    at: &str,
    place: Place,
    path: &str,
    log: &mut Log<'_>,
) -> Option<String> {
    if path.starts_with('/') {
        return Some(path.to_owned());
    }
    if let Some(rest) = path.strip_prefix('~') {
        let home = options.environment.get("HOME").filter(|home| home.starts_with('/'));
        if home.is_none() {
            log.error(place, format!("{at}: {path:?}: HOME is not set, so ~ is no folder"));
        }
        return home.map(|home| format!("{home}{rest}"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in options.working_dir.split('/').chain(path.split('/')) {
        match part {
            "." | "" => {}
            // As the kernel does: what is above the root is the root.
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}
