//! `ctl`: the command line of Shoal. One file a command; what they share is the connection, the
//! printer and the wait for services to come up.

mod client;
mod command;
mod follow;
mod output;
mod progress;
mod when;

use std::process::ExitCode;

use clap::Parser;

use command::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match command::run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}
