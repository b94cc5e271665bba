//! Generic resources as people declare them: `gpu=2`, or `gpu=UUID-1` once for each with a name.

use std::collections::BTreeMap;

use shoal_proto::v1::GenericResource;

const FORM: &str = "want NAME=VALUE: how many, as in gpu=2, or one of several, as in gpu=UUID-1";
const NAME: &str = "the name is empty, or has more than letters, digits, '_', '.' and '-'";
const COUNT: &str = "want a whole number of 1 or more";
const VALUE: &str = "the value is empty, or has a space or comma; give the option once for each";
const MIXED: &str = "a name is given either one number, or values that are no numbers";
const TWICE: &str = "it is given twice";

/// A declaration that can't be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--generic-resource {text:?}: {rule}")]
pub(crate) struct GenericError {
    /// As given.
    text: String,
    rule: &'static str,
}

/// In the order of kinds, each with its names in order.
pub(crate) fn parse(declared: &[String]) -> Result<Vec<GenericResource>, GenericError> {
    let mut kinds = BTreeMap::new();
    for text in declared {
        add(&mut kinds, text).map_err(|rule| GenericError { text: text.clone(), rule })?;
    }
    let mut resources: Vec<GenericResource> = kinds.into_values().collect();
    for resource in &mut resources {
        resource.names.sort_unstable();
    }
    Ok(resources)
}

fn add(kinds: &mut BTreeMap<String, GenericResource>, text: &str) -> Result<(), &'static str> {
    let (kind, value) = text.split_once('=').ok_or(FORM)?;
    let (kind, value) = (kind.trim(), value.trim());
    if !is_kind(kind) {
        return Err(NAME);
    }
    let resource = kinds.entry(kind.to_owned()).or_default();
    resource.kind = kind.to_owned();
    if is_number(value) {
        if resource.count > 0 || !resource.names.is_empty() {
            return Err(MIXED);
        }
        resource.count = value.parse::<u64>().ok().filter(|count| *count > 0).ok_or(COUNT)?;
        return Ok(());
    }
    if !is_name(value) {
        return Err(VALUE);
    }
    if resource.count > 0 {
        return Err(MIXED);
    }
    if resource.names.iter().any(|name| name == value) {
        return Err(TWICE);
    }
    resource.names.push(value.to_owned());
    Ok(())
}

/// Part of a variable's name in the containers.
fn is_kind(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !text.is_empty() && text.chars().all(inner)
}

/// One of the words, with commas between, that such a variable has.
fn is_name(text: &str) -> bool {
    let outer = |c: char| c == ',' || c.is_whitespace() || c.is_control();
    !text.is_empty() && !text.contains(outer)
}

/// Also one that is too large, negative or broken: nobody means a name by it.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.chars().all(|c| c.is_ascii_digit() || c == '.') && digits.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each as `KIND COUNT NAMES`.
    fn parsed(declared: &[&str]) -> Result<Vec<String>, String> {
        let declared: Vec<String> = declared.iter().map(|text| (*text).to_owned()).collect();
        let resources = parse(&declared).map_err(|error| error.to_string())?;
        let shown = |one: &GenericResource| {
            format!("{} {} {}", one.kind, one.count, one.names.join(" ")).trim_end().to_owned()
        };
        Ok(resources.iter().map(shown).collect())
    }

    #[test]
    fn a_number_is_a_count_and_anything_else_a_name() {
        let declared = ["ssd=disk-b", "gpu=2", "ssd = disk-a", "id=5e12=x", "GPU.a_b-c=18"];
        let expected = ["GPU.a_b-c 18", "gpu 2", "id 0 5e12=x", "ssd 0 disk-a disk-b"];
        assert_eq!(parsed(&declared).unwrap(), expected);
        assert_eq!(parsed(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_the_flags_name() {
        let cases: [(&[&str], &str, &str); 15] = [
            (&["gpu"], "gpu", FORM),
            (&["=2"], "=2", NAME),
            (&["my gpu=2"], "my gpu=2", NAME),
            (&["gpu=0"], "gpu=0", COUNT),
            (&["gpu=-1"], "gpu=-1", COUNT),
            (&["gpu=2.5"], "gpu=2.5", COUNT),
            (&["gpu=99999999999999999999"], "gpu=99999999999999999999", COUNT),
            (&["gpu="], "gpu=", VALUE),
            (&["gpu=a,b"], "gpu=a,b", VALUE),
            (&["gpu=a b"], "gpu=a b", VALUE),
            (&["gpu=2", "gpu=3"], "gpu=3", MIXED),
            (&["gpu=2", "gpu=a"], "gpu=a", MIXED),
            (&["gpu=a", "gpu=2"], "gpu=2", MIXED),
            (&["gpu=a", "gpu=b", "gpu=a"], "gpu=a", TWICE),
            (&["ssd=a", "gpu=a", "gpu=0"], "gpu=0", MIXED),
        ];
        for (declared, text, rule) in cases {
            let expected = format!("--generic-resource {text:?}: {rule}");
            assert_eq!(parsed(declared), Err(expected), "{declared:?}");
        }
    }
}
