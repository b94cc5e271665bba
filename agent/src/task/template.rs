//! Placeholders that are filled in for each task, in the form that Docker's templates have for
//! services (docker service create, "Create services using templates"; docker config create,
//! "--template-driver").

/// What placeholders stand for.
pub(super) trait Facts {
    /// The value of `.Task.Slot` and the like; none for one that there is not.
    fn field(&self, name: &str) -> Option<String>;
    /// The value of `env "NAME"` and the like.
    ///
    /// # Errors
    /// Why it can't be had.
    fn call(&self, function: &str, argument: &str) -> Result<String, String>;
}

const FIELDS: &str = ".Service.ID, .Service.Name, .Node.ID, .Node.Hostname, .Node.Platform.OS, \
                      .Node.Platform.Architecture, .Task.ID, .Task.Name, .Task.Slot";

/// What Go's templates take for space.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
/// What an error shows of a placeholder: it may be part of a secret by mistake.
const SHOWN: usize = 40;

/// The text with its placeholders filled in. `{{-` and `-}}` take the space before and after away.
///
/// # Errors
/// One that means nothing, or is not closed.
pub(super) fn expand(text: &str, facts: &impl Facts) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("{{") {
        let inner = &rest[begin + 2..];
        let Some(end) = inner.find("}}") else {
            let before = &text[..text.len() - inner.len()];
            let line = before.matches('\n').count() + 1;
            return Err(format!("template: the {{{{ in line {line} has no closing }}}}"));
        };
        let (mut before, mut inside) = (&rest[..begin], &inner[..end]);
        rest = &inner[end + 2..];
        if let Some(trimmed) = inside.strip_prefix('-').filter(|inner| inner.starts_with(SPACE)) {
            (before, inside) = (before.trim_end_matches(SPACE), trimmed);
        }
        if let Some(trimmed) = inside.strip_suffix('-').filter(|inner| inner.ends_with(SPACE)) {
            (inside, rest) = (trimmed, rest.trim_start_matches(SPACE));
        }
        expanded.push_str(before);
        expanded.push_str(&value(inside.trim_matches(SPACE), facts)?);
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value(placeholder: &str, facts: &impl Facts) -> Result<String, String> {
    let shown: String = placeholder.chars().take(SHOWN).collect();
    if placeholder.starts_with('.') {
        return facts
            .field(placeholder)
            .ok_or_else(|| format!("template: {{{{{shown}}}}} is unknown; there are {FIELDS}"));
    }
    let call = placeholder.split_once(SPACE).and_then(|(function, argument)| {
        let argument = argument.trim_start_matches(SPACE);
        // One argument, and nothing in it that would have to be read as Go reads it.
        let quoted = |quote: char| {
            let inner = argument.strip_prefix(quote)?.strip_suffix(quote)?;
            (!inner.contains([quote, '\\'])).then_some(inner)
        };
        Some((function, quoted('"').or_else(|| quoted('`'))?))
    });
    match call {
        Some((function @ ("env" | "secret" | "config"), argument)) => {
            facts.call(function, argument).map_err(|error| format!("template: {error}"))
        }
        _ => Err(format!(
            "template: {{{{{shown}}}}} is unknown; there are {FIELDS}, env \"NAME\", secret \
             \"NAME\" and config \"NAME\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Example;

    impl Facts for Example {
        fn field(&self, name: &str) -> Option<String> {
            (name == ".Task.Slot").then(|| "3".to_owned())
        }

        fn call(&self, function: &str, argument: &str) -> Result<String, String> {
            match argument {
                "none" => Err(format!("no {function} none")),
                argument => Ok(format!("{function}<{argument}>")),
            }
        }
    }

    #[test]
    fn placeholders_are_filled_in() {
        for (text, expected) in [
            ("", ""),
            ("no braces { here }", "no braces { here }"),
            ("web-{{.Task.Slot}}.local", "web-3.local"),
            ("{{ .Task.Slot }}{{.Task.Slot}}", "33"),
            ("a  {{- .Task.Slot -}}  b", "a3b"),
            ("a  {{- .Task.Slot }}  b", "a3  b"),
            ("a\n{{-\n.Task.Slot\t-}}\r\n\tb", "a3b"),
            ("{{secret   \"a b\" }}", "secret<a b>"),
            ("{{env \"HOME\"}} {{secret `key`}}", "env<HOME> secret<key>"),
            ("}} and {{config \"c\"}}", "}} and config<c>"),
        ] {
            assert_eq!(expand(text, &Example).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_means_nothing_is_told() {
        for (text, words) in [
            ("{{.Task.Colour}}", "{{.Task.Colour}} is unknown; there are .Service.ID"),
            ("{{range .Tasks}}", "is unknown"),
            ("{{env HOME}}", "is unknown"),
            ("{{}}", "is unknown"),
            ("{{-.Task.Slot}}", "{{-.Task.Slot}} is unknown"),
            ("{{env \"A\" \"B\"}}", "is unknown"),
            ("{{env \"A\\\"B\"}}", "is unknown"),
            ("{{env \"}}", "is unknown"),
            ("{{index .Service.Labels \"x\"}}", "is unknown"),
            ("open {{.Task.Slot", "the {{ in line 1 has no closing }}"),
            ("{{.Task.Slot -}}\n\n{{open", "the {{ in line 3 has no closing }}"),
            ("{{secret \"none\"}}", "no secret none"),
        ] {
            let error = expand(text, &Example).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn little_is_shown_of_what_may_be_secret() {
        let key = "k".repeat(200);
        for text in [format!("{{{{{key}}}}}"), format!("{{{{ {key}")] {
            let error = expand(&text, &Example).unwrap_err();
            assert!(!error.contains(&key[..=SHOWN]), "{error}");
        }
    }
}
