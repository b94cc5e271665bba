//! `.env` files (compose specification, "Env_file format"): `NAME=VALUE` lines, with quotes.

use std::collections::BTreeMap;

/// Reads such a file. Lines without a name are passed over, as Compose does.
///
/// # Errors
/// The first line that is neither a comment nor an assignment, with its number.
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
        variables.insert(name.trim().to_owned(), unquote(value.trim()));
    }
    Ok(variables)
}

fn unquote(value: &str) -> String {
    let quoted = |quote: char| {
        let inner = value.strip_prefix(quote)?;
        inner.find(quote).map(|end| &inner[..end])
    };
    if let Some(inner) = quoted('\'') {
        return inner.to_owned();
    }
    if let Some(inner) = quoted('"') {
        return inner.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
    }
    let comment = value.find(" #").unwrap_or(value.len());
    value[..comment].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn assignments_are_read_with_and_without_quotes() {
        let text = "# top\nA=1\nexport B = two # note\nC='a # b'\nD=\"x\\ny\"\nE=\n";
        let read = super::parse(text).unwrap();
        let values: Vec<&str> = read.values().map(String::as_str).collect();
        assert_eq!(values, ["1", "two", "a # b", "x\ny", ""]);
        assert!(super::parse("no assignment").is_err());
    }
}
