//! Paths of tar entries: cleaned, and what their names mean (OCI image-spec, layer.md,
//! "Whiteouts").

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const META: &[u8] = b".wh..wh.";

/// A path without `.`, `..`, doubled or outer slashes; empty for the root. Nothing when it leads
/// above the root or holds a zero byte.
pub(super) fn clean(path: &[u8]) -> Option<Vec<u8>> {
    if path.contains(&0) {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join(&b'/'))
}

/// What a name in a layer stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// Itself.
    Plain,
    /// Removes this name of the layers below.
    Whiteout(&'a [u8]),
    /// Removes all of the directory that the layers below have.
    Opaque,
    /// Bookkeeping of aufs, which no one else needs.
    Meta,
    /// A whiteout of nothing or of a directory's own links.
    Wrong,
}

pub(super) fn meaning(name: &[u8]) -> Name<'_> {
    if name == OPAQUE {
        return Name::Opaque;
    }
    if name.starts_with(META) {
        return Name::Meta;
    }
    match name.strip_prefix(WHITEOUT) {
        None => Name::Plain,
        Some(b"" | b"." | b"..") => Name::Wrong,
        Some(hidden) => Name::Whiteout(hidden),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_cleaned_and_never_lead_above_the_root() {
        for (path, want) in [
            ("./", Some("")),
            ("/", Some("")),
            ("./a//b/", Some("a/b")),
            ("/etc/passwd", Some("etc/passwd")),
            ("a/../b", Some("b")),
            ("a/..", Some("")),
            ("..", None),
            ("../a", None),
            ("a/../../b", None),
            ("a\0b", None),
        ] {
            assert_eq!(clean(path.as_bytes()), want.map(|want| want.as_bytes().to_vec()), "{path}");
        }
    }

    #[test]
    fn whiteouts_are_told_from_names_like_them() {
        assert_eq!(meaning(b".wh.a"), Name::Whiteout(b"a"));
        assert_eq!(meaning(b".wh..wh..opq"), Name::Opaque);
        assert_eq!(meaning(b".wh..wh.plnk"), Name::Meta);
        assert_eq!(meaning(b".wh.."), Name::Wrong);
        assert_eq!(meaning(b".wh."), Name::Wrong);
        assert_eq!(meaning(b".wh"), Name::Plain);
    }

    proptest! {
        #[test]
        fn a_cleaned_path_has_only_names(path in "[a./\\\\]{0,40}") {
            if let Some(cleaned) = clean(path.as_bytes()) {
                prop_assert!(cleaned.is_empty() || cleaned.split(|b| *b == b'/').all(
                    |part| !matches!(part, b"" | b"." | b"..")));
                prop_assert_eq!(clean(&cleaned), Some(cleaned.clone()));
            }
        }
    }
}
