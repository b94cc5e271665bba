//! `ctl cluster`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use shoal_proto::v1::GetJoinTokenRequest;

use crate::client::Client;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what a host is started with to become a worker of this cluster
    JoinToken(JoinToken),
}

#[derive(Debug, Args)]
pub(crate) struct JoinToken {
    /// Make a new token first: the old one is worth nothing from then on; nodes that have joined
    /// with it stay
    #[arg(long)]
    rotate: bool,
    /// Print the token alone
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    let Command::JoinToken(JoinToken { rotate, quiet }) = command;
    let request = GetJoinTokenRequest { rotate };
    let answer = client.control.get_join_token(request).await?.into_inner();
    if quiet {
        output::line(answer.token)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line("To make a host a worker of this cluster, run on it, as root:")?;
    output::line("")?;
    let addresses = answer.addresses.join(",");
    output::line(format!("    agent --join {addresses} --token {}", answer.token))?;
    output::line("")?;
    Ok(ExitCode::SUCCESS)
}
