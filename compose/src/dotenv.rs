//! `.env` files (compose specification, "Env_file format"): `NAME=VALUE` lines, with quotes.

use std::collections::BTreeMap;

/// Reads such a file. Assignments to an empty name are passed over, as Compose does.
///
/// # Errors
/// The first line that is neither a comment nor an assignment, or that has a quote without its
/// end, with its number.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {}: {line:?} is not NAME=VALUE", number + 1));
        };
        let name = name.trim();
        // Without the value, which may be a password.
        let value = unquote(value.trim()).ok_or_else(|| {
            let rule = "a quote without its end; a value ends in the line that it begins in";
            format!("line {}: {name:?}: {rule}", number + 1)
        })?;
        if !name.is_empty() {
            variables.insert(name.to_owned(), value);
        }
    }
    Ok(variables)
}

/// None for a quote that is not closed. A backslash before the quote keeps it from closing; in
/// double quotes there are escapes besides, and a backslash before anything else is itself.
fn unquote(value: &str) -> Option<String> {
    let mut chars = value.chars();
    let Some(quote @ ('"' | '\'')) = chars.next() else {
        let comment = value.find(" #").unwrap_or(value.len());
        return Some(value[..comment].trim_end().to_owned());
    };
    let mut inner = String::new();
    loop {
        match chars.next()? {
            '\\' => match (quote, chars.next()?) {
                (_, c) if c == quote => inner.push(c),
                ('"', 'n') => inner.push('\n'),
                ('"', 'r') => inner.push('\r'),
                ('"', 't') => inner.push('\t'),
                ('"', c @ ('\\' | '$')) => inner.push(c),
                (_, c) => inner.extend(['\\', c]),
            },
            c if c == quote => return Some(inner),
            c => inner.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn assignments_are_read_with_and_without_quotes() {
        let text = "# top\nA=1\nexport B = two # note\nC='a # b'\nD=\"x\\ny\"\nE=\n";
        let read = parse(text).unwrap();
        let values: Vec<&str> = read.values().map(String::as_str).collect();
        assert_eq!(values, ["1", "two", "a # b", "x\ny", ""]);
        assert!(parse("no assignment").is_err());
    }

    #[test]
    fn a_backslash_escapes_one_character_and_only_once() {
        for (value, expected) in [
            (r#""a \" b" # note"#, r#"a " b"#),
            (r#""a\\nb""#, r"a\nb"),
            (r#""a\\\nb""#, "a\\\nb"),
            (r#""\t\r\$\x""#, "\t\r$\\x"),
            (r#""ends with \\""#, r"ends with \"),
            (r"'it\'s \n \\'", r"it's \n \\"),
            (r#"a\"b\n"#, r#"a\"b\n"#),
        ] {
            let read = parse(&format!("A={value}\n")).unwrap();
            assert_eq!(read.get("A").map(String::as_str), Some(expected), "{value}");
        }
        for value in [r#""a"#, r#""a \""#, "'a", r"'a\'", "\""] {
            assert!(parse(&format!("A={value}\n")).is_err(), "{value}");
        }
    }

    #[test]
    fn a_value_without_a_name_is_passed_over() {
        let read = parse("=x\n = y\nA=z\n").unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), [("A".to_owned(), "z".to_owned())]);
    }
}
