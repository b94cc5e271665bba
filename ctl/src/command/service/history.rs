//! `ctl service history`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use shoal_proto::v1::{GetServiceRequest, ServiceRevision, ServiceSpec};

use crate::client::Client;
use crate::command::Listing;
use crate::output::{self, Format};
use crate::when;

/// The changes are cut to this many characters.
const WIDTH: usize = 60;

/// No part of a revision: a rollback leaves it as it is.
const REPLICAS: &str = "mode.replicated.replicas";

/// Show what a service was, the newest revision first.
#[derive(Debug, Args)]
#[command(
    after_help = "The revision that the service is at has a *. \"ctl service rollback --to REVISION\" goes back to one.\n\nExamples:\n  ctl service history web\n  ctl service history --format json web"
)]
pub(crate) struct History {
    /// The service
    service: String,
    #[command(flatten)]
    listing: Listing,
    /// Don't cut the changes
    #[arg(long)]
    no_trunc: bool,
}

pub(super) async fn run(client: &mut Client, args: History) -> anyhow::Result<ExitCode> {
    let request = GetServiceRequest { service: args.service };
    let service = client.control.get_service(request).await?.into_inner().service;
    let revisions = service.unwrap_or_default().revisions;
    if args.listing.format == Format::Json {
        output::json(&revisions.iter().rev().collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    let mut before = None;
    for revision in &revisions {
        rows.push(row(revision, before, args.no_trunc)?);
        before = revision.spec.as_ref();
    }
    rows.reverse();
    if let Some(newest) = rows.first_mut().and_then(|row| row.first_mut()) {
        newest.push_str(" *");
    }
    output::table(&["REVISION", "CREATED", "ORIGIN", "IMAGE", "CHANGES"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(
    revision: &ServiceRevision,
    before: Option<&ServiceSpec>,
    whole: bool,
) -> anyhow::Result<Vec<String>> {
    let spec = revision.spec.clone().unwrap_or_default();
    let changes = match before {
        Some(before) => changes(before, &spec)?.join(", "),
        None => String::new(),
    };
    Ok(vec![
        revision.number.to_string(),
        when::ago(revision.created_at.as_ref()),
        revision.origin.clone(),
        spec.task.unwrap_or_default().container.unwrap_or_default().image,
        if whole { changes } else { output::cut(&changes, WIDTH) },
    ])
}

/// The fields that differ, as JSON has them; what is of tasks and containers without their paths.
fn changes(old: &ServiceSpec, new: &ServiceSpec) -> serde_json::Result<Vec<String>> {
    let mut paths = Vec::new();
    differ("", &serde_json::to_value(old)?, &serde_json::to_value(new)?, &mut paths);
    paths.retain(|path| path != REPLICAS);
    let short = |path: String| match path.strip_prefix("task.") {
        Some(rest) => rest.strip_prefix("container.").unwrap_or(rest).to_owned(),
        None => path,
    };
    Ok(paths.into_iter().map(short).collect())
}

fn differ(path: &str, old: &Value, new: &Value, paths: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |object: &serde_json::Map<String, Value>| {
                    object.get(key).cloned().unwrap_or_default()
                };
                differ(&path, &of(old), &of(new), paths);
            }
        }
        (old, new) if old != new => paths.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use shoal_proto::v1::service_mode::Mode;
    use shoal_proto::v1::{ContainerSpec, ReplicatedMode, Resources, ServiceMode, TaskSpec};

    use super::*;

    fn spec(image: &str, memory: i64, replicas: u64) -> ServiceSpec {
        let container = ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() };
        let limits = Resources { memory_bytes: memory, ..Resources::default() };
        let mode = Mode::Replicated(ReplicatedMode { replicas });
        ServiceSpec {
            mode: Some(ServiceMode { mode: Some(mode) }),
            task: Some(TaskSpec {
                container: Some(container),
                limits: Some(limits),
                ..TaskSpec::default()
            }),
            ..ServiceSpec::default()
        }
    }

    #[test]
    fn changes_are_named_by_their_fields() {
        let before = spec("web:1", 0, 1);
        assert_eq!(changes(&before, &spec("web:1", 0, 5)).unwrap(), Vec::<String>::new());
        let mut after = spec("web:2", 5, 1);
        after.labels.insert("team".to_owned(), "a".to_owned());
        let names = changes(&before, &after).unwrap();
        assert_eq!(names, ["labels", "image", "limits.memoryBytes"]);
    }
}
