//! `ctl`: the command line of Shoal. One file a command; what they share is the connection, the
//! printer and the wait for services to come up.

mod client;
mod command;
mod follow;
mod output;
mod progress;
mod resume;
mod when;

use std::process::ExitCode;

use clap::Parser;

use command::Cli;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where that can't be printed, the exit code still tells.
            let _ = error.print();
            return ExitCode::from(wrong_usage(error.exit_code()));
        }
    };
    match command::run(cli).await {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// 125 for `run`, as Docker has it: 2 could be the command's own.
fn wrong_usage(code: i32) -> u8 {
    let runs = std::env::args().skip(1).find(|arg| !arg.starts_with('-') && !arg.contains(':'));
    match code {
        2 if runs.as_deref() == Some("run") => 125,
        code => u8::try_from(code).unwrap_or(2),
    }
}
