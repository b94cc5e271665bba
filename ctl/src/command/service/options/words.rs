//! A command as one option's value.

/// Words, as a shell splits them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command::service) struct Words(pub(in crate::command::service) Vec<String>);

impl Words {
    /// # Errors
    /// It ends inside quotes.
    pub(in crate::command::service) fn parse(text: &str) -> Result<Self, String> {
        shlex::split(text).map(Self).ok_or_else(|| format!("{text:?} ends inside quotes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let words = Words::parse(r#"sh -c "echo 'a b'""#).unwrap();
        assert_eq!(words.0, ["sh", "-c", "echo 'a b'"]);
        assert!(Words::parse("").unwrap().0.is_empty());
        assert!(Words::parse("sh -c 'echo").is_err());
    }
}
