//! `ctl config`.

use std::process::ExitCode;

use clap::Subcommand;
use shoal_proto::v1::PayloadKind;

use super::payload;
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a config of a file of 1,000 KiB at the most, and print its id
    #[command(
        after_help = "Examples:\n  ctl config create app.conf app.conf\n  ctl config create --template-driver golang app.conf app.conf.tmpl\n  ctl service create --name web --config source=app.conf,target=/etc/app.conf web:1.0"
    )]
    Create(payload::Create),
    /// Give a config new data, which is a new version: services that use it are updated to it; or
    /// other labels
    #[command(
        after_help = "Examples:\n  ctl config update app.conf new.conf\n  ctl config update --label-rm old app.conf"
    )]
    Update(payload::Update),
    /// List the configs
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  ctl config ls\n  ctl config ls -f name=shop_"
    )]
    Ls(payload::Ls),
    /// Show all that is known of configs, as JSON or, with their data as text, for people
    Inspect(payload::Inspect),
    /// Remove configs that no service uses
    #[command(visible_alias = "remove")]
    Rm(payload::Remove),
}

const KIND: PayloadKind = PayloadKind::Config;

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => payload::create(client, KIND, args).await,
        Command::Update(args) => payload::update(client, KIND, args).await,
        Command::Ls(args) => payload::ls(client, KIND, args).await,
        Command::Inspect(args) => payload::inspect(client, KIND, args).await,
        Command::Rm(args) => payload::remove(client, KIND, args).await,
    }
}
