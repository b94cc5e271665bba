//! Project names, by Compose's rule: lower-case letters, digits, `-` and `_`, a letter or digit first.

/// Makes a project name of a folder's name: what is not allowed is left out. May be empty.
#[must_use]
pub fn normalize_project_name(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept: String =
        lower.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    kept.trim_start_matches(['-', '_']).to_owned()
}

pub(crate) fn is_project_name(text: &str) -> bool {
    !text.is_empty() && normalize_project_name(text) == text
}

/// A service, network or volume: as the specification's pattern for keys.
pub(crate) fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}
