//! `secrets:` and `configs:` of a service: names, or mappings that say more.

use shoal_proto::v1::{PayloadKind, PayloadReference};

use crate::diagnostic::{Log, Place};
use crate::near::nearest;
use crate::section::{self, Section, whole};
use crate::stack::Project;
use crate::yaml::{Node, Value};

pub(super) fn read(
    project: &Project<'_>,
    service: &mut Section<'_>,
    log: &mut Log<'_>,
) -> Vec<PayloadReference> {
    let mut read: Vec<PayloadReference> = Vec::new();
    for kind in [PayloadKind::Secret, PayloadKind::Config] {
        let key = format!("{kind}s");
        let path = service.at(&key);
        for item in service.items(&key, log) {
            let reference = match &item.value {
                Value::Map(_) => Section::of(&path, item, log)
                    .and_then(|section| long(project, kind, section, log)),
                _ => section::text(&path, item, log)
                    .and_then(|source| named(project, kind, &path, item.place, &source, log)),
            };
            let Some(reference) = reference else { continue };
            let place = |one: &PayloadReference| match one.env.is_empty() {
                true => one.target.clone(),
                false => one.env.clone(),
            };
            let own = place(&reference);
            if read.iter().any(|other| place(other) == own) {
                log.error(item.place, format!("{path}: {own:?} is there twice"));
                continue;
            }
            read.push(reference);
        }
    }
    read
}

/// The reference that a name alone stands for. None, with an error, when nothing has the name.
fn named(
    project: &Project<'_>,
    kind: PayloadKind,
    path: &str,
    place: Place,
    source: &str,
    log: &mut Log<'_>,
) -> Option<PayloadReference> {
    let names = project.payloads(kind);
    let Some(name) = names.get(source) else {
        let rule = match nearest(source, names.keys().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("declare it under {kind}s: at the top level"),
        };
        log.error(place, format!("{path}: there is no {kind} {source:?}; {rule}"));
        return None;
    };
    let mut reference = PayloadReference {
        payload_id: source.to_owned(),
        name: name.clone(),
        target: format!("{}/{source}", folder(kind)),
        ..PayloadReference::default()
    };
    reference.set_kind(kind);
    Some(reference)
}

fn long(
    project: &Project<'_>,
    kind: PayloadKind,
    mut section: Section<'_>,
    log: &mut Log<'_>,
) -> Option<PayloadReference> {
    let (path, place) = (section.at("source"), section.place_of("source"));
    if place.is_none() {
        let rule = format!("is missing; want a {kind} of the top level");
        log.error(section.place(), format!("{path}: {rule}"));
    }
    let source = section.text("source", log);
    let variable = match kind {
        PayloadKind::Secret => None,
        PayloadKind::Config => variable(&mut section, log),
    };
    let has_target = section.has("target");
    let target = section.parsed("target", log, |text| target(kind, text));
    let uid = section.parsed("uid", log, whole::<u32>);
    let gid = section.parsed("gid", log, whole::<u32>);
    let mode_path = section.at("mode");
    let mode = section.take("mode").and_then(|node| mode(&mode_path, node, log));
    let known: &[&str] = match kind {
        PayloadKind::Secret => &["source", "target", "uid", "gid", "mode"],
        PayloadKind::Config => &["source", "target", "uid", "gid", "mode", "x-shoal-env"],
    };
    section.finish(known, log);
    let reference = named(project, kind, &path, place?, &source?, log)?;
    let (target, env) = match (variable, target) {
        (Some(variable), _) => (String::new(), variable?),
        (None, Some(target)) => (target, String::new()),
        (None, None) if has_target => return None,
        (None, None) => (reference.target, String::new()),
    };
    Some(PayloadReference {
        target,
        env,
        uid: uid.unwrap_or(0),
        gid: gid.unwrap_or(0),
        mode: mode.unwrap_or(0),
        ..reference
    })
}

/// `x-shoal-env`, which has no file. None when it is not there; with none in it when the log says
/// why.
fn variable(section: &mut Section<'_>, log: &mut Log<'_>) -> Option<Option<String>> {
    let place = section.place_of("x-shoal-env");
    let variable = section.parsed("x-shoal-env", log, |text| match text {
        "" => Err("want the name of a variable".to_owned()),
        text if text.contains('=') => Err(format!("{text:?} is no name of a variable")),
        text => Ok(text.to_owned()),
    });
    place?;
    for key in ["target", "uid", "gid", "mode"] {
        if let Some(place) = section.place_of(key) {
            let rule = "a variable has none; leave it out, or x-shoal-env";
            log.error(place, format!("{}: {rule}", section.at(key)));
        }
    }
    Some(variable)
}

/// Where a path that is not absolute is.
fn folder(kind: PayloadKind) -> &'static str {
    match kind {
        PayloadKind::Secret => "/run/secrets",
        PayloadKind::Config => "",
    }
}

/// The absolute path of the file.
fn target(kind: PayloadKind, text: &str) -> Result<String, String> {
    let folder = if text.starts_with('/') { "" } else { folder(kind) };
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() || parts.contains(&"..") || text.ends_with('/') {
        return Err(format!("{text:?} is not the path of a file, without .. in it"));
    }
    Ok(format!("{folder}/{}", parts.join("/")))
}

/// As in Compose: a number is octal with a 0 before it, else decimal; a text is octal.
fn mode(path: &str, node: &Node, log: &mut Log<'_>) -> Option<u32> {
    let text = section::text(path, node, log)?;
    let decimal = matches!(&node.value, Value::Number(number) if !number.starts_with('0'));
    let parsed = match decimal {
        true => text.parse::<u32>(),
        false => u32::from_str_radix(text.strip_prefix("0o").unwrap_or(&text), 8),
    };
    let Ok(mode @ 1..=0o7777) = parsed else {
        let rule = "is not a file's mode; want octal digits such as 0440";
        log.error(node.place, format!("{path}: {text:?} {rule}"));
        return None;
    };
    if decimal {
        log.warn(node.place, format!("{path}: {text} without a 0 before it is decimal: 0{mode:o}"));
    }
    Some(mode)
}

#[cfg(test)]
mod tests {
    use shoal_proto::v1::PayloadKind;

    use super::{mode, target};
    use crate::SourceFile;
    use crate::diagnostic::{Log, Place};
    use crate::yaml::{Node, Value};

    #[test]
    fn targets_become_absolute() {
        for (kind, text, expected) in [
            (PayloadKind::Secret, "key", "/run/secrets/key"),
            (PayloadKind::Secret, "tls/key.pem", "/run/secrets/tls/key.pem"),
            (PayloadKind::Secret, "/etc/key", "/etc/key"),
            (PayloadKind::Config, "app.conf", "/app.conf"),
            (PayloadKind::Config, ".//etc/./app.conf", "/etc/app.conf"),
        ] {
            assert_eq!(target(kind, text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "/", ".", "a/", "../key", "/etc/../key"] {
            assert!(target(PayloadKind::Secret, text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_mean_what_they_do_in_compose() {
        let number = |text: &str| Value::Number(text.to_owned());
        let text = |text: &str| Value::Text(text.to_owned());
        for (value, expected) in [
            (number("0440"), Some(0o440)),
            (number("0o400"), Some(0o400)),
            (number("288"), Some(0o440)),
            (number("440"), Some(0o670)),
            (text("0440"), Some(0o440)),
            (text("440"), Some(0o440)),
            (text("0o440"), Some(0o440)),
            (number("0"), None),
            (number("0888"), None),
            (number("4096"), None),
            (number("-1"), None),
            (number("4.4"), None),
            (text("rw-r--r--"), None),
        ] {
            let file = SourceFile { path: "compose.yml".to_owned(), text: String::new() };
            let mut log = Log::new(&file);
            let node = Node { place: Place { line: 1, column: 1 }, value };
            assert_eq!(mode("mode", &node, &mut log), expected, "{node:?}");
            assert_eq!(log.finish().is_ok(), expected.is_some(), "{node:?}");
        }
    }
}
