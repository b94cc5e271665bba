//! `ctl stack deploy`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use shoal_compose::{LoadOptions, PayloadFile, SourceFile, dotenv};
use shoal_proto::duration;
use shoal_proto::v1::{DeployStackRequest, Service, StackSpec, WatchRequest};

use crate::client::Client;
use crate::follow::{Goal, Patience, follow};
use crate::output;
use crate::progress::Progress;

/// Looked for, in this order, when no file is named (compose specification, "Compose file").
const DEFAULT_FILES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// Merged over the default file by Compose (compose specification, "Merge").
const OVERRIDE_FILES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];

/// Make a stack what a compose file says, and wait until it runs.
///
/// Services that are new are created, those that changed are updated one task at a time, those
/// that the file no longer has are removed. Deploying the same file again changes nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ctl stack deploy -f app.yml\n  ctl stack deploy -f app.yml shop\n  cat app.yml | ctl stack deploy -f - shop"
)]
pub(crate) struct Deploy {
    /// The compose file, or - for standard input [default: compose.yaml, compose.yml,
    /// docker-compose.yaml or docker-compose.yml in this folder]
    #[arg(short, long, short_alias = 'c', visible_alias = "compose-file", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Name of the stack [default: COMPOSE_PROJECT_NAME, else the file's name:, else the folder's
    /// name]
    name: Option<String>,

    /// Don't wait until the tasks run
    #[arg(short, long)]
    detach: bool,

    /// Give up waiting after this long; 0: never
    #[arg(long, default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,

    /// How long all tasks must have run before the deploy counts as done
    #[arg(long, default_value = "1s", value_parser = duration::parse)]
    monitor: Duration,
}

impl Deploy {
    /// Reads the file, and those that it names for secrets and configs. Warnings go to standard
    /// error.
    pub(crate) fn load(&self) -> anyhow::Result<StackSpec> {
        let path = match &self.file {
            Some(path) => path.clone(),
            None => match DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists()) {
                Some(path) => {
                    note_overrides(&path);
                    path
                }
                None => bail!("no compose file here; name one with -f FILE"),
            },
        };
        let from_stdin = path == Path::new("-");
        let text = if from_stdin {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("can't read standard input")?;
            text
        } else {
            std::fs::read_to_string(&path)
                .with_context(|| format!("can't read the compose file {}", path.display()))?
        };
        let folder =
            if from_stdin { Path::new(".") } else { path.parent().unwrap_or(Path::new(".")) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = std::fs::canonicalize(folder)?;
        let mut environment = variables(&folder.join(".env"))?;
        let own = std::env::vars_os();
        environment.extend(own.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
        let default_name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let source = SourceFile { path: path.display().to_string(), text };
        let options = LoadOptions {
            project_name: self.name.as_deref(),
            default_name: default_name.as_deref().unwrap_or_default(),
            working_dir: &folder.to_string_lossy(),
            environment: &environment,
        };
        match shoal_compose::load(&source, &options) {
            Ok(mut loaded) => {
                loaded
                    .warnings
                    .iter()
                    .for_each(|warning| output::note(format!("warning: {warning}")));
                read_payloads(&loaded.files, &mut loaded.spec)?;
                Ok(loaded.spec)
            }
            Err(errors) => bail!("the compose file can't be used\n{errors}"),
        }
    }
}

/// Sets the data of the secrets and configs that are in files. All files that can't be used are
/// told of at once.
fn read_payloads(files: &[PayloadFile], spec: &mut StackSpec) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for file in files {
        match (content(&file.path, file.limit), spec.payloads.get_mut(file.payload)) {
            (Ok(data), Some(payload)) => payload.data = data,
            (Ok(_), None) => {}
            (Err(rule), _) => wrong.push(file.diagnostic(rule).to_string()),
        }
    }
    if !wrong.is_empty() {
        bail!("the compose file can't be used\n{}", wrong.join("\n"));
    }
    Ok(())
}

/// All of a file, or why it is none that can be used.
fn content(path: &str, limit: usize) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("can't read {path}: {error}");
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(format!("{path} is a folder; want a file"));
    }
    let mut data = Vec::new();
    // It may be no regular file, and have no end.
    file.take(limit as u64 + 1).read_to_end(&mut data).map_err(failed)?;
    if data.len() > limit {
        return Err(format!("{path} is too large; {limit} bytes are the most"));
    }
    Ok(data)
}

fn note_overrides(file: &Path) {
    for other in OVERRIDE_FILES.iter().filter(|other| Path::new(other).exists()) {
        output::note(format!(
            "warning: {other} is not read, only {}: merging files is not supported yet",
            file.display()
        ));
    }
}

/// What a `.env` file sets; nothing when there is none. A folder of that name is none either, as
/// in Compose: Python's virtual environments are often called so.
fn variables(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            dotenv::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
            Ok(BTreeMap::new())
        }
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

pub(super) async fn run(
    client: &mut Client,
    args: &Deploy,
    spec: StackSpec,
) -> anyhow::Result<ExitCode> {
    let name = spec.name.clone();
    let request = DeployStackRequest { spec: Some(spec) };
    let deployed = client.control.deploy_stack(request).await?.into_inner();
    for warning in &deployed.warnings {
        output::note(format!("warning: {warning}"));
    }
    for (verb, services) in [
        ("Creating", &deployed.created),
        ("Updating", &deployed.updated),
        ("Removing", &deployed.removed),
    ] {
        for service in services {
            output::line(format!("{verb} service {service}"))?;
        }
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let services: Vec<Service> =
        deployed.services.into_iter().filter(|service| !service.removing).collect();
    let ids: BTreeSet<String> = services.iter().map(|service| service.id.clone()).collect();
    let progress = Progress::of(ids).begun(services);
    let request = WatchRequest { stack: name, ..WatchRequest::default() };
    let timeout = (!args.timeout.is_zero()).then_some(args.timeout);
    let patience = Patience { timeout, monitor: args.monitor };
    follow(client, request, progress, Goal::Up, patience).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use shoal_compose::{LoadOptions, SourceFile};
    use shoal_proto::v1::StackSpec;

    use super::{read_payloads, variables};

    /// What becomes of a config whose file is `path`.
    fn config(folder: &std::path::Path, path: &str) -> Result<StackSpec, String> {
        let service = "services: {web: {image: nginx, configs: [data]}}";
        let text = format!("{service}\nconfigs:\n  data: {{file: {path}}}\n");
        let options = LoadOptions {
            project_name: Some("shop"),
            default_name: "",
            working_dir: &folder.to_string_lossy(),
            environment: &BTreeMap::new(),
        };
        let source = SourceFile { path: "app.yml".to_owned(), text };
        let mut loaded = shoal_compose::load(&source, &options).unwrap();
        read_payloads(&loaded.files, &mut loaded.spec).map_err(|error| error.to_string())?;
        Ok(loaded.spec)
    }

    #[test]
    fn a_file_that_is_no_data_is_refused_with_its_place() {
        let folder = std::env::temp_dir().join(format!("shoal-payload-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("some"), "a\n").unwrap();
        fs::write(folder.join("most"), vec![0_u8; 1_024_000]).unwrap();
        fs::write(folder.join("more"), vec![0_u8; 1_024_001]).unwrap();
        let some = config(&folder, "./some").unwrap();
        let most = config(&folder, "most").unwrap();
        let wrong = ["./none", ".", "more"].map(|path| config(&folder, path).unwrap_err());
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(some.payloads[0].data, b"a\n");
        assert_eq!(most.payloads[0].data.len(), 1_024_000);
        for (error, rule) in wrong.iter().zip(["can't read", "is a folder", "is too large"]) {
            assert!(error.contains("app.yml:3:16: configs.data.file: "), "{error}");
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn an_env_file_may_be_missing_but_not_unreadable() {
        let folder = std::env::temp_dir().join(format!("shoal-deploy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(".env");
        assert!(variables(&file).unwrap().is_empty());
        assert!(variables(&folder).unwrap().is_empty());
        fs::write(&file, "A=1\n").unwrap();
        assert_eq!(variables(&file).unwrap().get("A").map(String::as_str), Some("1"));
        fs::write(&file, b"A=\xff\n").unwrap();
        let error = format!("{:#}", variables(&file).unwrap_err());
        fs::remove_dir_all(&folder).unwrap();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}
