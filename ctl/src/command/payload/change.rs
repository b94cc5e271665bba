//! Making, changing and removing secrets and configs.

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use shoal_proto::v1::{
    CreatePayloadRequest, PayloadKind, PayloadSpec, RemovePayloadRequest, UpdatePayloadRequest,
};

use crate::client::Client;
use crate::command::container::options::pairs;
use crate::output;

/// A new one.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name
    name: String,
    /// The file with its data, or - for standard input
    file: String,
    /// Label: NAME=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// Fill in placeholders, as in Go templates, for each task
    #[arg(long, value_name = "DRIVER", value_parser = ["golang"])]
    template_driver: Option<String>,
}

/// New data, or labels.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Its name
    name: String,
    /// The file with its new data, or - for standard input
    file: Option<String>,
    /// Set a label: NAME=VALUE
    #[arg(long, value_name = "LABEL")]
    label_add: Vec<String>,
    /// Take a label away
    #[arg(long, value_name = "NAME")]
    label_rm: Vec<String>,
}

/// Those that are to go.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Bytes at the most: what the managers take.
fn limit(kind: PayloadKind) -> u64 {
    match kind {
        PayloadKind::Secret => 500 * 1024,
        PayloadKind::Config => 1000 * 1024,
    }
}

pub(crate) async fn create(
    client: &mut Client,
    kind: PayloadKind,
    args: Create,
) -> anyhow::Result<ExitCode> {
    let data = read(kind, &args.file)?;
    let spec = PayloadSpec {
        kind: kind.into(),
        name: args.name.clone(),
        labels: pairs(&args.label),
        is_template: args.template_driver.is_some(),
    };
    let request = CreatePayloadRequest { spec: Some(spec), data };
    let Some(made) = client.control.create_payload(request).await?.into_inner().payload else {
        bail!("{kind} {} went away while it was made", args.name);
    };
    output::line(made.id)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn update(
    client: &mut Client,
    kind: PayloadKind,
    args: Update,
) -> anyhow::Result<ExitCode> {
    if args.file.is_none() && args.label_add.is_empty() && args.label_rm.is_empty() {
        bail!(
            "nothing is to change about {kind} {}; name a file with new data, or give --label-add or \
             --label-rm",
            args.name
        );
    }
    let request = UpdatePayloadRequest {
        kind: kind.into(),
        payload: args.name,
        data: args.file.map(|file| read(kind, &file)).transpose()?,
        add_labels: pairs(&args.label_add),
        remove_labels: args.label_rm,
    };
    let answer = client.control.update_payload(request).await?.into_inner();
    for service in answer.services {
        output::line(format!("Updating service {service}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Goes on after one that can't be removed.
pub(crate) async fn remove(
    client: &mut Client,
    kind: PayloadKind,
    args: Remove,
) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for payload in args.names {
        let request = RemovePayloadRequest { kind: kind.into(), payload };
        match client.control.remove_payload(request).await {
            Ok(answer) => output::line(answer.into_inner().name)?,
            Err(status) => {
                output::complain(&status.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// All of a file that is not too large; of another no more than it takes to know.
fn read(kind: PayloadKind, file: &str) -> anyhow::Result<Vec<u8>> {
    let limit = limit(kind);
    let mut data = Vec::new();
    let read = match file {
        "-" => io::stdin().lock().take(limit + 1).read_to_end(&mut data),
        path => File::open(path).and_then(|open| open.take(limit + 1).read_to_end(&mut data)),
    };
    let shown = if file == "-" { "standard input" } else { file };
    read.with_context(|| format!("can't read the {kind} in {shown}"))?;
    if data.len() as u64 > limit {
        bail!("{shown} is too large: a {kind} has {limit} bytes at the most");
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let path = std::env::temp_dir().join(format!("shoal-payload-read-{}", std::process::id()));
        let file = path.to_str().unwrap();
        fs::write(&path, vec![b'x'; 512_000]).unwrap();
        let most = read(PayloadKind::Secret, file).map(|data| data.len());
        fs::write(&path, vec![b'x'; 512_001]).unwrap();
        let secret = read(PayloadKind::Secret, file).unwrap_err().to_string();
        let config = read(PayloadKind::Config, file).map(|data| data.len());
        fs::remove_file(&path).unwrap();
        assert_eq!((most.unwrap(), config.unwrap()), (512_000, 512_001));
        assert!(secret.contains("512000 bytes"), "{secret}");
        assert!(read(PayloadKind::Config, file).is_err());
    }
}
