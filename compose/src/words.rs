//! Command lines as the shell splits them: quotes and backslashes, nothing else.

/// Splits a text into words.
///
/// # Errors
/// A quote that is not closed.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(format!("{text:?}: a ' without its end")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some('\n') => {}
                            Some(c) => word.extend(['\\', c]),
                            None => return Err(format!("{text:?}: a \" without its end")),
                        },
                        Some(c) => word.push(c),
                        None => return Err(format!("{text:?}: a \" without its end")),
                    }
                }
            }
            // With a line break it only continues the line (POSIX, Shell Command Language, 2.2.1).
            '\\' => match chars.next() {
                Some('\n') => {}
                escaped => word.get_or_insert_default().extend(escaped),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_split_as_the_shell_does() {
        for (text, words) in [
            ("a b  c", vec!["a", "b", "c"]),
            ("echo 'a b' \"c \\\" d\"", vec!["echo", "a b", "c \" d"]),
            ("a\\ b ''", vec!["a b", ""]),
            ("run \\\n  --all", vec!["run", "--all"]),
            (
                "one\\\nword \"and\\\nthis\" 'not\\\nthis'",
                vec!["oneword", "andthis", "not\\\nthis"],
            ),
            ("", vec![]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert!(split("'open").is_err());
    }
}
