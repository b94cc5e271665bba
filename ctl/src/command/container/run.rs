//! `ctl run` and `ctl attach`.

use std::process::ExitCode;

use clap::Args;
use shoal_proto::v1::attach_request::Part;
use shoal_proto::v1::{AttachHeader, AttachRequest, ContainerRequest};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::create;
use super::options::Options;
use super::session::{self, Ended, Input, Session};
use super::terminal;
use crate::client::Client;
use crate::output;

/// Docker's exit code for what the agent refuses.
const REFUSED: u8 = 125;
/// Messages under way.
const BACKLOG: usize = 4;

/// Make a container of an image and run it.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Exit code: the command's own; 125 when the container can't be made, 126 when the command can't be\nexecuted, 127 when it is not there.\n\nExamples:\n  ctl run --rm -it app:1.0 sh\n  ctl run -d --name web -p 8080:80 --restart unless-stopped web:1.0"
)]
pub(crate) struct Run {
    /// Print the container's id, and leave it running
    #[arg(short, long)]
    detach: bool,
    /// Keys that detach from a container with a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,
    /// Don't pass this process's signals on
    #[arg(long, value_name = "YES", default_value = "true", num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Clone)]
pub(super) struct Keys(Vec<u8>);

impl Keys {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        session::keys(text).map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Attach to a running container's standard streams.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The container
    container: String,
    /// Keys that detach from a container with a terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,
    /// Bring no standard input
    #[arg(long)]
    no_stdin: bool,
    /// Don't pass this process's signals on
    #[arg(long, value_name = "YES", default_value = "true", num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
}

pub(super) async fn run(client: &mut Client, args: Run) -> anyhow::Result<ExitCode> {
    match try_run(client, args).await {
        Ok(code) => Ok(code),
        Err(error) if output::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            output::complain(&error);
            Ok(ExitCode::from(REFUSED))
        }
    }
}

async fn try_run(client: &mut Client, args: Run) -> anyhow::Result<ExitCode> {
    let Run { detach, detach_keys, sig_proxy, options } = args;
    let (stdin, tty, remove) = (options.interactive, options.tty, options.rm);
    if !detach {
        session::check_terminal(stdin, tty)?;
    }
    let change = |config: &mut shoal_proto::v1::ContainerConfig| {
        config.stdin_once = stdin && !detach;
        if let Some(size) = terminal::size().filter(|_| tty) {
            config.console_columns = size.columns;
            config.console_rows = size.rows;
        }
    };
    let (created, _) = create::create(client, options, change).await?;
    let id = created.id;
    if detach {
        let request = ContainerRequest { container: id.clone() };
        return match client.containers.start_container(request).await {
            Ok(_) => {
                output::line(id)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(status) => {
                let code = exit_code_of(client, &id).await;
                output::complain(&status.into());
                if remove {
                    discard(client, &id).await;
                }
                Ok(ExitCode::from(code))
            }
        };
    }
    let session = Session {
        signals_to: sig_proxy.then_some(id.as_str()),
        stdin,
        tty,
        detach_keys: detach_keys.bytes(),
    };
    let ended = attach_to(client, &id, &session, true).await?;
    if matches!(ended, Ended::Failed(_)) && remove {
        discard(client, &id).await;
    }
    Ok(ended.code())
}

/// One that could not be started is not removed by its end, which it never has.
async fn discard(client: &mut Client, id: &str) {
    let request = shoal_proto::v1::RemoveContainerRequest {
        container: id.to_owned(),
        force: true,
        volumes: true,
    };
    // It may have gone by itself.
    let _ = client.containers.remove_container(request).await;
}

/// Why it did not start, as Docker numbers it.
async fn exit_code_of(client: &mut Client, id: &str) -> u8 {
    let request = ContainerRequest { container: id.to_owned() };
    let Ok(found) = client.containers.inspect_container(request).await else { return REFUSED };
    let state = found.into_inner().summary.and_then(|summary| summary.state).unwrap_or_default();
    u8::try_from(state.exit_code).ok().filter(|code| *code != 0).unwrap_or(REFUSED)
}

pub(super) async fn attach_to(
    client: &mut Client,
    id: &str,
    session: &Session<'_>,
    start: bool,
) -> anyhow::Result<Ended> {
    let (input, parts) = mpsc::channel::<Input>(BACKLOG);
    let header = AttachHeader { container: id.to_owned(), stdin: session.stdin, start };
    let first = AttachRequest { part: Some(Part::Header(header)) };
    let rest = ReceiverStream::new(parts).map(|input| AttachRequest {
        part: Some(match input {
            Input::Data(bytes) => Part::Input(bytes),
            Input::Close => Part::CloseInput(true),
            Input::Resize(size) => Part::Resize(size),
        }),
    });
    let requests = tokio_stream::once(first).chain(rest);
    let output = client.containers.attach_container(requests).await?.into_inner();
    session.hold(client, output, input).await
}

pub(super) async fn attach(client: &mut Client, args: Attach) -> anyhow::Result<ExitCode> {
    let request = ContainerRequest { container: args.container.clone() };
    let found = client.containers.inspect_container(request).await?.into_inner();
    let config = found.config.unwrap_or_default();
    let tty = config.spec.is_some_and(|spec| spec.tty);
    let stdin = config.open_stdin && !args.no_stdin;
    session::check_terminal(stdin, tty)?;
    let session = Session {
        signals_to: args.sig_proxy.then_some(args.container.as_str()),
        stdin,
        tty,
        detach_keys: args.detach_keys.bytes(),
    };
    Ok(attach_to(client, &args.container, &session, false).await?.code())
}
