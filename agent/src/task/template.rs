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

/// The text with its placeholders filled in.
///
/// # Errors
/// One that means nothing, or is not closed.
pub(super) fn expand(text: &str, facts: &impl Facts) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("{{") {
        let inner = &rest[begin + 2..];
        let Some(end) = inner.find("}}") else {
            let cut: String = rest[begin..].chars().take(20).collect();
            return Err(format!("template: {cut:?} has no closing }}}}"));
        };
        let (mut before, mut inside) = (&rest[..begin], &inner[..end]);
        rest = &inner[end + 2..];
        if let Some(trimmed) = inside.strip_prefix("- ") {
            (before, inside) = (before.trim_end(), trimmed);
        }
        if let Some(trimmed) = inside.strip_suffix(" -") {
            (inside, rest) = (trimmed, rest.trim_start());
        }
        expanded.push_str(before);
        expanded.push_str(&value(inside.trim(), facts)?);
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value(placeholder: &str, facts: &impl Facts) -> Result<String, String> {
    if placeholder.starts_with('.') {
        return facts.field(placeholder).ok_or_else(|| {
            format!("template: {{{{{placeholder}}}}} is unknown; there are {FIELDS}")
        });
    }
    let call = placeholder.split_once(char::is_whitespace).and_then(|(function, argument)| {
        let argument = argument.trim();
        let quoted = |quote: char| argument.strip_prefix(quote)?.strip_suffix(quote);
        Some((function, quoted('"').or_else(|| quoted('`'))?))
    });
    match call {
        Some((function @ ("env" | "secret" | "config"), argument)) => {
            facts.call(function, argument).map_err(|error| format!("template: {error}"))
        }
        _ => Err(format!(
            "template: {{{{{placeholder}}}}} is unknown; there are {FIELDS}, env \"NAME\", secret \
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
            ("open {{.Task.Slot", "has no closing }}"),
            ("{{secret \"none\"}}", "no secret none"),
        ] {
            let error = expand(text, &Example).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
