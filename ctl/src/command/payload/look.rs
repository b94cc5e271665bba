//! Listings of secrets and configs, and all that is known of one.

use std::process::ExitCode;

use clap::Args;
use shoal_proto::v1::{
    GetPayloadRequest, ListPayloadsRequest, PayloadKind, PayloadSpec, PayloadSummary,
};
use shoal_proto::{ByteSize, Timestamp};

use crate::client::Client;
use crate::command::Ids;
use crate::command::filter::{Filter, has_label, pass};
use crate::output::{self, Format, short};
use crate::when;

/// So many services are named.
const SERVICES: usize = 3;

/// How they are listed.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    ids: Ids,
    /// Only those that match: name=PREFIX, label=NAME[=VALUE]; of one key, any
    #[arg(short, long, value_name = "FILTER", value_parser = filter)]
    filter: Vec<Filter>,
}

/// Which are shown, and how.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// For people, instead of JSON
    #[arg(long)]
    pretty: bool,
}

fn filter(text: &str) -> Result<Filter, String> {
    Filter::parse(text, &["name", "label"])
}

fn matches(filters: &[Filter], spec: &PayloadSpec) -> bool {
    pass(filters, |Filter { key, value }| match *key {
        "name" => spec.name.starts_with(value.as_str()),
        _ => has_label(&spec.labels, value),
    })
}

fn spec(summary: &PayloadSummary) -> PayloadSpec {
    summary.payload.clone().unwrap_or_default().spec.unwrap_or_default()
}

pub(crate) async fn ls(
    client: &mut Client,
    kind: PayloadKind,
    args: Ls,
) -> anyhow::Result<ExitCode> {
    let request = ListPayloadsRequest { kind: kind.into() };
    let mut payloads = client.control.list_payloads(request).await?.into_inner().payloads;
    payloads.retain(|summary| matches(&args.filter, &spec(summary)));
    if args.ids.quiet {
        for summary in &payloads {
            output::line(&summary.payload.clone().unwrap_or_default().id)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.ids.listing.format == Format::Json {
        output::json(&payloads)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = payloads.iter().map(row).collect();
    let head = ["ID", "NAME", "VERSION", "SIZE", "USED BY", "CREATED", "UPDATED"];
    output::table(&head, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(summary: &PayloadSummary) -> Vec<String> {
    let payload = summary.payload.clone().unwrap_or_default();
    let meta = payload.meta.unwrap_or_default();
    vec![
        short(&payload.id, false),
        payload.spec.unwrap_or_default().name,
        payload.number.to_string(),
        ByteSize(summary.size).to_string(),
        users(&summary.services),
        when::ago(meta.created_at.as_ref()),
        when::ago(meta.updated_at.as_ref()),
    ]
}

fn users(services: &[String]) -> String {
    let named = services.iter().take(SERVICES).cloned().collect::<Vec<_>>().join(", ");
    match services.len().saturating_sub(SERVICES) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

pub(crate) async fn inspect(
    client: &mut Client,
    kind: PayloadKind,
    args: Inspect,
) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for payload in args.names {
        let request = GetPayloadRequest { kind: kind.into(), payload };
        let answer = client.control.get_payload(request).await?.into_inner();
        // As it is listed, with a config's data in it.
        found
            .push(PayloadSummary { payload: answer.payload, ..answer.summary.unwrap_or_default() });
    }
    if !args.pretty {
        output::json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (index, summary) in found.iter().enumerate() {
        if index > 0 {
            output::line("")?;
        }
        output::line(page(kind, summary).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(kind: PayloadKind, summary: &PayloadSummary) -> String {
    let payload = summary.payload.clone().unwrap_or_default();
    let (spec, meta) = (payload.spec.unwrap_or_default(), payload.meta.unwrap_or_default());
    let mut labels: Vec<String> =
        spec.labels.iter().map(|(name, value)| format!(" - {name}={value}\n")).collect();
    labels.sort();
    let time = |stamp: &Option<Timestamp>| stamp.as_ref().map(when::rfc3339).unwrap_or_default();
    let mut text =
        format!("ID: {}\nName: {}\nVersion: {}\n", payload.id, spec.name, payload.number);
    text.push_str(&format!("Size: {}\n", ByteSize(summary.size)));
    if !labels.is_empty() {
        text.push_str(&format!("Labels:\n{}", labels.concat()));
    }
    if spec.is_template {
        text.push_str("Template Driver: golang\n");
    }
    if !summary.services.is_empty() {
        text.push_str(&format!("Used by: {}\n", summary.services.join(", ")));
    }
    text.push_str(&format!("Created at: {}\n", time(&meta.created_at)));
    text.push_str(&format!("Updated at: {}\n", time(&meta.updated_at)));
    if kind == PayloadKind::Config {
        text.push_str(&format!("Data:\n{}\n", String::from_utf8_lossy(&payload.data)));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use shoal_proto::v1::Payload;

    use super::*;

    fn summary() -> PayloadSummary {
        let spec = PayloadSpec {
            name: "shop_app.conf".to_owned(),
            labels: HashMap::from([("team".to_owned(), "a".to_owned())]),
            ..PayloadSpec::default()
        };
        let payload = Payload {
            id: "p1".to_owned(),
            spec: Some(spec),
            number: 2,
            data: b"level=info".to_vec(),
            ..Payload::default()
        };
        PayloadSummary {
            payload: Some(payload),
            size: 10,
            services: vec!["shop_web".to_owned()],
            versions: 2,
        }
    }

    #[test]
    fn people_are_shown_a_configs_data() {
        let config = page(PayloadKind::Config, &summary());
        assert!(config.contains("Labels:\n - team=a\nUsed by: shop_web\n"), "{config}");
        assert!(config.ends_with("Data:\nlevel=info\n"), "{config}");
        assert!(!page(PayloadKind::Secret, &summary()).contains("Data"));
    }

    #[test]
    fn many_users_are_counted() {
        let services: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(users(&services[..3]), "a, b, c");
        assert_eq!(users(&services), "a, b, c and 2 more");
    }

    #[test]
    fn filters_look_at_names_and_labels() {
        let shows = |text: &str| matches(&[filter(text).unwrap()], &spec(&summary()));
        assert!(shows("name=shop_") && shows("label=team") && shows("label=team=a"));
        assert!(!shows("name=app") && !shows("label=team=b"));
        assert!(filter("size=1").unwrap_err().contains("name, label"));
    }
}
