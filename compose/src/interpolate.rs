//! `$NAME` and `${…}` in values (compose specification, "Interpolation"): `:-` and `-` give a
//! default, `:?` and `?` an error, `:+` and `+` a replacement; with a colon, empty counts as
//! unset. `$$` is a dollar.

use std::collections::BTreeMap;

use crate::diagnostic::{Log, Place};
use crate::yaml::{Node, Value};

type Environment = BTreeMap<String, String>;

/// `${A:-${B:-…}}` deeper than this is refused.
const MAX_DEPTH: usize = 20;

/// Replaces variables in all values; keys stay as they are.
pub(crate) fn interpolate(node: &mut Node, environment: &Environment, log: &mut Log<'_>) {
    match &mut node.value {
        Value::Text(text) if text.contains('$') => {
            let mut unset = Vec::new();
            match substitute(text, environment, &mut unset, 0) {
                Ok(replaced) => *text = replaced,
                Err(rule) => log.error(node.place, rule),
            }
            warn(&unset, node.place, log);
        }
        Value::List(items) => {
            items.iter_mut().for_each(|item| interpolate(item, environment, log));
        }
        Value::Map(entries) => {
            entries.iter_mut().for_each(|(_, value)| interpolate(value, environment, log));
        }
        _ => {}
    }
}

fn warn(unset: &[String], place: Place, log: &mut Log<'_>) {
    for name in unset {
        log.warn(place, format!("the variable {name} is not set; it counts as empty"));
    }
}

fn substitute(
    text: &str,
    environment: &Environment,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    if depth > MAX_DEPTH {
        return Err("variables are nested too deep".to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let end = closing(inner)
                .ok_or_else(|| format!("{text:?}: a ${{ without its }}; write $$ for a dollar"))?;
            out.push_str(&expand(&inner[..end], environment, unset, depth)?);
            rest = &inner[end + 1..];
        } else {
            let end = name_length(rest);
            if end == 0 {
                return Err(format!("{text:?}: a $ without a name; write $$ for a dollar"));
            }
            out.push_str(&lookup(&rest[..end], environment, unset));
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn lookup(name: &str, environment: &Environment, unset: &mut Vec<String>) -> String {
    environment.get(name).cloned().unwrap_or_else(|| {
        unset.push(name.to_owned());
        String::new()
    })
}

fn name_length(text: &str) -> usize {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if first { end } else { 0 }
}

/// Where the brace that was opened before `text` is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    let bytes = text.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if index > 0 && bytes[index - 1] == b'$' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(index);
        }
    }
    None
}

/// What stands between the braces.
fn expand(
    text: &str,
    environment: &Environment,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    let end = name_length(text);
    let (name, operator) = text.split_at(end);
    if end == 0 {
        return Err(format!("${{{text}}} names no variable"));
    }
    if operator.is_empty() {
        return Ok(lookup(name, environment, unset));
    }
    let (colon, operator) = match operator.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, operator),
    };
    let value = environment.get(name).filter(|value| !colon || !value.is_empty());
    let mut chars = operator.chars();
    let kind = chars.next();
    let word = chars.as_str();
    let mut word = || substitute(word, environment, unset, depth + 1);
    match (kind, value) {
        (Some('-' | '?'), Some(value)) => Ok(value.clone()),
        (Some('-'), None) => word(),
        (Some('+'), Some(_)) => word(),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => match word()? {
            message if message.is_empty() => Err(format!("the variable {name} must be set")),
            message => Err(format!("the variable {name} must be set: {message}")),
        },
        _ => Err(format!("${{{text}}}: after the name comes :-, -, :?, ?, :+ or +")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let environment =
            [("A", "a"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        substitute(text, &environment.into(), &mut Vec::new(), 0)
    }

    #[test]
    fn variables_are_replaced_as_the_specification_says() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$A-${A}", "a-a"),
            ("$$A", "$A"),
            ("${NO:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${A:+r}", "r"),
            ("${EMPTY:+r}", ""),
            ("${EMPTY+r}", "r"),
            ("${NO:-${A}x}", "ax"),
            ("${NO}", ""),
        ] {
            assert_eq!(run(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for text in ["$", "${", "${}", "${1}", "$1", "${A!}", "${NO:?why}", "${NO?}"] {
            assert!(run(text).is_err(), "{text}");
        }
    }
}
