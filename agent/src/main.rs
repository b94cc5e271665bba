//! `agent`: the daemon on each node. It runs containers, and on managers the control plane.

mod api;
mod config;
mod container;
mod daemon;
mod generic;
mod host;
mod identity;
mod lock;
mod membership;
mod node;
mod seat;
mod serve;
mod session;
mod single;
mod task;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use config::Arguments;

fn main() -> ExitCode {
    // A shim is a copy of this program: nothing may come before this.
    shoal_runtime::run_if_shim();
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr)] // the one line that a person who started it by hand must see
fn complain(error: &anyhow::Error) {
    eprintln!("agent: {error:#}");
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = arguments.resolve()?;
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| anyhow::anyhow!("--log {:?} is no log filter: {error}", config.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(daemon::run(config));
    // Blocking work that is under way (a long download's unpacking) does not hold up the end.
    runtime.shutdown_background();
    result
}
