//! `secrets:` and `configs:` at the top level.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use shoal_proto::v1::{PayloadKind, PayloadSpec, StackPayload, StackService};

use super::external;
use crate::diagnostic::{Diagnostic, Log};
use crate::name::is_key;
use crate::path::absolute;
use crate::section::Section;
use crate::yaml::Node;
use crate::{LoadOptions, keys};

/// A file with the data of a secret or config. Who has files reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadFile {
    /// Which of the spec's payloads, from 0.
    pub payload: usize,
    /// Absolute.
    pub path: String,
    /// So many bytes it may have.
    pub limit: usize,
    /// Where the compose file names it.
    place: Diagnostic,
}

impl PayloadFile {
    /// What is wrong with it, shown where the compose file names it.
    #[must_use]
    pub fn diagnostic(&self, rule: impl Display) -> Diagnostic {
        let message = format!("{}: {rule}", self.place.message);
        Diagnostic { message, ..self.place.clone() }
    }
}

/// A secret or config of the file, be it used or not.
pub(super) struct Declared {
    payload: StackPayload,
    file: Option<PayloadFile>,
}

pub(super) fn read(
    project: &str,
    options: &LoadOptions<'_>,
    kind: PayloadKind,
    node: Option<&Node>,
    log: &mut Log<'_>,
) -> Vec<Declared> {
    let path = format!("{kind}s");
    let Some(section) = node.and_then(|node| Section::of(&path, node, log)) else {
        return Vec::new();
    };
    let entries = section.entries().into_iter().filter(|(key, _)| !key.name.starts_with("x-"));
    let read = entries.filter_map(|(key, node)| {
        // The name is a file's, unless the service says otherwise.
        if !is_key(&key.name) || matches!(key.name.as_str(), "." | "..") {
            let rule = format!("a {kind}'s name has letters, digits, '.', '_' and '-'");
            log.error(key.place, format!("{path}: {:?}: {rule}", key.name));
            return None;
        }
        let section = Section::of(&format!("{path}.{}", key.name), node, log)?;
        Some(declared(project, options, kind, &key.name, section, log))
    });
    read.collect()
}

/// Full names by keys.
pub(super) fn names(declared: &[Declared]) -> BTreeMap<String, String> {
    let payloads = declared.iter().map(|declared| &declared.payload);
    payloads
        .map(|payload| {
            let name = payload.spec.as_ref().map(|spec| spec.name.clone());
            (payload.key.clone(), name.unwrap_or_default())
        })
        .collect()
}

/// Those that services use and those made elsewhere, and the files with their data.
pub(super) fn kept(
    declared: impl Iterator<Item = Declared>,
    services: &[StackService],
) -> (Vec<StackPayload>, Vec<PayloadFile>) {
    let used: BTreeSet<(PayloadKind, &str)> = services
        .iter()
        .flat_map(|service| service.spec.iter().flat_map(|spec| &spec.task))
        .flat_map(|task| task.container.iter().flat_map(|container| &container.payloads))
        .map(|reference| (reference.kind(), reference.payload_id.as_str()))
        .collect();
    let (mut payloads, mut files) = (Vec::new(), Vec::new());
    for Declared { payload, file } in declared {
        let kind = payload.spec.as_ref().map(PayloadSpec::kind).unwrap_or_default();
        if payload.external || used.contains(&(kind, payload.key.as_str())) {
            files.extend(file.map(|file| PayloadFile { payload: payloads.len(), ..file }));
            payloads.push(payload);
        }
    }
    (payloads, files)
}

/// In bytes, as in Swarm.
fn limit(kind: PayloadKind) -> usize {
    match kind {
        PayloadKind::Secret => 512_000,
        PayloadKind::Config => 1_024_000,
    }
}

/// Errors are in the log, also when something comes back.
fn declared(
    project: &str,
    options: &LoadOptions<'_>,
    kind: PayloadKind,
    key: &str,
    mut section: Section<'_>,
    log: &mut Log<'_>,
) -> Declared {
    let has_external = section.has("external");
    let external = external(&mut section, log);
    // One that can't be read is in the log; what it was meant to be counts.
    let is_external = external.as_ref().map_or(has_external, |(is_external, _)| *is_external);
    check(kind, is_external, &section, log);
    let name = section.text("name", log).or(external.and_then(|(_, old_name)| old_name));
    let mut spec = PayloadSpec {
        name: name.unwrap_or_else(|| match is_external {
            true => key.to_owned(),
            false => format!("{project}_{key}"),
        }),
        labels: section.labels(log),
        ..PayloadSpec::default()
    };
    spec.set_kind(kind);
    let driver = section.parsed("template_driver", log, |text| match text {
        "golang" => Ok(()),
        other => Err(format!("{other:?} is no template driver; want golang")),
    });
    spec.is_template = driver.is_some();
    let data = data(options, kind, &mut section, log).unwrap_or_default();
    let file = file(options, kind, &mut section, log);
    let known = match kind {
        PayloadKind::Secret => keys::SECRET,
        PayloadKind::Config => keys::CONFIG,
    };
    section.finish(known, log);
    let payload =
        StackPayload { key: key.to_owned(), spec: Some(spec), external: is_external, data };
    Declared { payload, file }
}

/// One source it must have; and one that was made elsewhere is as it was made.
fn check(kind: PayloadKind, is_external: bool, section: &Section<'_>, log: &mut Log<'_>) {
    let mut sources: Vec<&str> =
        ["file", "environment", "content"].into_iter().filter(|key| section.has(key)).collect();
    if is_external {
        sources.push("external");
    }
    let path = section.path();
    match sources[..] {
        [] => {
            let all = match kind {
                PayloadKind::Secret => "file, environment or external",
                PayloadKind::Config => "file, environment, content or external",
            };
            log.error(section.place(), format!("{path}: has no data; want {all}"));
        }
        [_] => {}
        _ => {
            let several = sources.join(" and ");
            log.error(section.place(), format!("{path}: has {several}; want one of them"));
        }
    }
    for key in ["labels", "template_driver"] {
        if let (true, Some(place)) = (is_external, section.place_of(key)) {
            let rule = format!("an external {kind} has its own; leave it out");
            log.error(place, format!("{path}.{key}: {rule}"));
        }
    }
}

/// What is in the compose file itself or in the caller's environment.
fn data(
    options: &LoadOptions<'_>,
    kind: PayloadKind,
    section: &mut Section<'_>,
    log: &mut Log<'_>,
) -> Option<Vec<u8>> {
    let limited = |text: &str| match (text.len(), limit(kind)) {
        (size, limit) if size > limit => {
            Err(format!("it has {size} bytes; a {kind} has {limit} at the most"))
        }
        _ => Ok(text.as_bytes().to_vec()),
    };
    let value = section.parsed("environment", log, |name| match options.environment.get(name) {
        Some(value) => limited(value),
        None => Err(format!("the variable {name} is not set")),
    });
    let content = section.parsed("content", log, |text| match kind {
        PayloadKind::Secret => {
            Err("a secret does not belong in this file; want file, environment or external"
                .to_owned())
        }
        PayloadKind::Config => limited(text),
    });
    value.or(content)
}

fn file(
    options: &LoadOptions<'_>,
    kind: PayloadKind,
    section: &mut Section<'_>,
    log: &mut Log<'_>,
) -> Option<PayloadFile> {
    let (at, place) = (section.at("file"), section.place_of("file"));
    let path = section.text("file", log)?;
    let place = place?;
    let path = absolute(options, &at, place, &path, log)?;
    let place = log.diagnostic(place, at);
    Some(PayloadFile { payload: 0, path, limit: limit(kind), place })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{LoadOptions, Loaded, SourceFile, load};

    fn read(kind: &str, source: &str, value: &str) -> Result<Loaded, String> {
        let service = format!("services: {{web: {{image: nginx, {kind}: [data]}}}}");
        let text = format!("{service}\n{kind}: {{data: {{{source}}}}}\n");
        let source = SourceFile { path: "compose.yml".to_owned(), text };
        let options = LoadOptions {
            project_name: None,
            default_name: "shop",
            working_dir: "/srv/shop",
            environment: &BTreeMap::from([("VALUE".to_owned(), value.to_owned())]),
        };
        load(&source, &options).map_err(|errors| errors.to_string())
    }

    #[test]
    fn what_is_too_large_is_refused() {
        for (kind, source, limit) in [
            ("secrets", "environment: VALUE", 512_000),
            ("configs", "environment: VALUE", 1_024_000),
            ("configs", "content: $VALUE", 1_024_000),
        ] {
            let loaded = read(kind, source, &"a".repeat(limit)).unwrap();
            assert_eq!(loaded.spec.payloads[0].data.len(), limit, "{source}");
            let error = read(kind, source, &"a".repeat(limit + 1)).unwrap_err();
            assert!(error.contains(&format!("it has {} bytes", limit + 1)), "{error}");
        }
    }

    #[test]
    fn a_file_is_refused_where_it_is_named() {
        let loaded = read("secrets", "file: ./data", "").unwrap();
        let shown = loaded.files[0].diagnostic("no such file").to_string();
        let expected = "compose.yml:2:24: secrets.data.file: no such file\n 2 | secrets: ";
        assert!(shown.starts_with(expected), "{shown}");
    }
}
