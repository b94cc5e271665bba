//! `ctl exec`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use shoal_proto::v1::exec_stream_request::Part;
use shoal_proto::v1::{ExecHeader, ExecStreamRequest};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::options::environment;
use super::run::Keys;
use super::session::{self, Input, Session};
use super::terminal;
use crate::client::Client;

/// Messages under way.
const BACKLOG: usize = 4;

/// Run a command in a running container.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: the command's own; 126 when it can't be executed, 127 when it is not there.\n\nExamples:\n  ctl exec -it web sh\n  ctl exec -u 1000 -e LEVEL=debug web /bin/tool"
)]
pub(crate) struct Exec {
    /// Don't wait for it
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// A terminal
    #[arg(short, long)]
    tty: bool,
    /// User, and group, by name or number: USER[:GROUP]
    #[arg(short, long, default_value = "", hide_default_value = true)]
    user: String,
    /// Working directory
    #[arg(short, long, value_name = "DIR", default_value = "", hide_default_value = true)]
    workdir: String,
    /// Set a variable: NAME=VALUE, or NAME for its value here
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// All capabilities, and no seccomp
    #[arg(long)]
    privileged: bool,
    /// Keys that detach from a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,
    /// The container
    container: String,
    /// Command and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) async fn run(client: &mut Client, args: Exec) -> anyhow::Result<ExitCode> {
    if !args.detach {
        session::check_terminal(args.interactive, args.tty)?;
    }
    let header = ExecHeader {
        container: args.container,
        command: args.command,
        env: environment(&args.env, &args.env_file)?,
        working_dir: args.workdir,
        user: args.user,
        tty: args.tty,
        stdin: args.interactive,
        privileged: args.privileged,
        detach: args.detach,
        size: terminal::size().filter(|_| args.tty),
    };
    let (input, parts) = mpsc::channel::<Input>(BACKLOG);
    let first = ExecStreamRequest { part: Some(Part::Header(header)) };
    let rest = ReceiverStream::new(parts).map(|input| ExecStreamRequest {
        part: Some(match input {
            Input::Data(bytes) => Part::Input(bytes),
            Input::Close => Part::CloseInput(true),
            Input::Resize(size) => Part::Resize(size),
        }),
    });
    let requests = tokio_stream::once(first).chain(rest);
    let mut output = client.containers.exec_container(requests).await?.into_inner();
    if args.detach {
        while let Some(event) = output.message().await? {
            use shoal_proto::v1::attach_response::Part;
            if let Some(Part::StartFailure(failure)) = event.part {
                crate::output::note(format!("error: {}", failure.message));
                return Ok(ExitCode::from(u8::try_from(failure.exit_code).unwrap_or(1)));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let session = Session {
        // Docker passes no signals on to an exec.
        signals_to: None,
        stdin: args.interactive,
        tty: args.tty,
        detach_keys: args.detach_keys.bytes(),
    };
    Ok(session.hold(client, output, input).await?.code())
}
