//! `--filter KEY=VALUE`, as listings take it.

use std::collections::HashMap;

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// One of those that the listing knows.
    pub(super) key: &'static str,
    pub(super) value: String,
}

impl Filter {
    /// # Errors
    /// Not `KEY=VALUE`, or a key that the listing doesn't know.
    pub(super) fn parse(text: &str, known: &[&'static str]) -> Result<Self, String> {
        let list = || known.join(", ");
        let Some((key, value)) = text.split_once('=') else {
            return Err(format!("{text:?} is not KEY=VALUE; the keys are {}", list()));
        };
        match known.iter().find(|known| **known == key) {
            Some(key) => Ok(Self { key, value: value.to_owned() }),
            None => Err(format!("the filter {key:?} is unknown; there are {}", list())),
        }
    }
}

/// Whether something is to be shown: one filter of each key that is given lets it through.
pub(super) fn pass(filters: &[Filter], matches: impl Fn(&Filter) -> bool) -> bool {
    filters.iter().all(|filter| {
        let mut same = filters.iter().filter(|other| other.key == filter.key);
        same.any(&matches)
    })
}

/// `NAME`, or `NAME=VALUE`.
pub(super) fn has_label(labels: &HashMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|own| own == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["name", "state"];

    #[test]
    fn unknown_keys_are_refused_with_the_known_ones() {
        assert_eq!(Filter::parse("name=a=b", &KNOWN).unwrap().value, "a=b");
        for wrong in ["name", "nme=a", "=a"] {
            let error = Filter::parse(wrong, &KNOWN).unwrap_err();
            assert!(error.contains("name, state"), "{error}");
        }
    }

    #[test]
    fn one_of_each_key_must_match() {
        let filter = |text: &str| Filter::parse(text, &KNOWN).unwrap();
        let filters = [filter("name=a"), filter("name=b"), filter("state=up")];
        let shown = |name: &str, state: &str| {
            pass(&filters, |filter| match filter.key {
                "name" => filter.value == name,
                _ => filter.value == state,
            })
        };
        assert!(shown("a", "up") && shown("b", "up"));
        assert!(!shown("c", "up") && !shown("a", "down"));
        assert!(pass(&[], |_| false));
    }

    #[test]
    fn labels_have_names_and_perhaps_values() {
        let labels = HashMap::from([("team".to_owned(), "a".to_owned())]);
        assert!(has_label(&labels, "team") && has_label(&labels, "team=a"));
        assert!(!has_label(&labels, "team=b") && !has_label(&labels, "a"));
    }
}
