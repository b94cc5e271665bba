//! `ctl secret`.

use std::process::ExitCode;

use clap::Subcommand;
use shoal_proto::v1::PayloadKind;

use super::payload;
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a secret of a file of 500 KiB at the most, and print its id
    #[command(
        after_help = "Examples:\n  ctl secret create db_key key.txt\n  openssl rand -hex 32 | ctl secret create db_key -\n  ctl service create --name db --secret db_key db:16"
    )]
    Create(payload::Create),
    /// Give a secret new data, which is a new version: services that use it are updated to it; or
    /// other labels
    #[command(
        after_help = "Examples:\n  ctl secret update db_key new.txt\n  openssl rand -hex 32 | ctl secret update db_key -\n  ctl secret update --label-add team=db db_key"
    )]
    Update(payload::Update),
    /// List the secrets
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  ctl secret ls\n  ctl secret ls -f label=team=db"
    )]
    Ls(payload::Ls),
    /// Show all that is known of secrets but their data, as JSON or for people
    Inspect(payload::Inspect),
    /// Remove secrets that no service uses
    #[command(visible_alias = "remove")]
    Rm(payload::Remove),
}

const KIND: PayloadKind = PayloadKind::Secret;

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => payload::create(client, KIND, args).await,
        Command::Update(args) => payload::update(client, KIND, args).await,
        Command::Ls(args) => payload::ls(client, KIND, args).await,
        Command::Inspect(args) => payload::inspect(client, KIND, args).await,
        Command::Rm(args) => payload::remove(client, KIND, args).await,
    }
}
