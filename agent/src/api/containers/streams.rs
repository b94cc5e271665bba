//! Logs, attach and exec.

use std::time::Duration;

use shoal_proto::time::{system_time, timestamp};
use shoal_proto::v1::attach_request::Part as AttachPart;
use shoal_proto::v1::attach_response::Part;
use shoal_proto::v1::exec_stream_request::Part as ExecPart;
use shoal_proto::v1::{
    AttachRequest, AttachResponse, ContainerLogsRequest, ExecStreamRequest, LogEntry, LogStream,
    StartFailure, TerminalSize,
};
use shoal_runtime::{
    ConsoleEvent, ConsoleInput, ConsoleReader, ConsoleWriter, ExecMode, ExecRequest, LogQuery,
    LogReader, RuntimeError,
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::{ContainersApi, Events, Target, runtime_error};
use crate::single::Singles;

/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(50);

fn response(part: Part) -> Result<AttachResponse, Status> {
    Ok(AttachResponse { part: Some(part) })
}

pub(super) fn logs(
    singles: &Singles,
    target: Target,
    request: ContainerLogsRequest,
) -> Result<Events<LogEntry>, Status> {
    if let Target::Single(single) = &target {
        let driver = single.record().config.unwrap_or_default().log.unwrap_or_default();
        if driver.name == "none" {
            return Err(Status::failed_precondition(
                "the container keeps no log (--log-driver none)",
            ));
        }
    }
    let node = singles.node().clone();
    let query = LogQuery {
        tail: usize::try_from(request.tail).ok(),
        since: request.since.as_ref().map(system_time),
        until: request.until.as_ref().map(system_time),
    };
    let id = target.id().to_owned();
    let path = node.log_path(&id);
    let mut reader =
        LogReader::open(&path, query).map_err(|error| Status::unknown(error.to_string()))?;
    let runs = {
        let node = node.clone();
        let id = id.clone();
        move || match &target {
            Target::Single(single) => single.is_up(),
            Target::Task(_) => node.runtime.state(&id).is_ok(),
        }
    };
    Ok(Box::pin(async_stream::stream! {
        loop {
            // Asked first: what is written before the end is read after it.
            let over = !request.follow || !runs();
            loop {
                match reader.next_ready() {
                    Ok(Some(entry)) => yield Ok(LogEntry {
                        task_id: id.clone(),
                        time: Some(timestamp(entry.time)),
                        stream: match entry.stderr {
                            true => LogStream::Stderr,
                            false => LogStream::Stdout,
                        }
                        .into(),
                        line: entry.line,
                        node_id: node.id.to_string(),
                        ..LogEntry::default()
                    }),
                    Ok(None) => break,
                    Err(error) => {
                        yield Err(Status::unknown(error.to_string()));
                        return;
                    }
                }
            }
            if over {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }))
}

/// Both directions, until either end is over.
fn carry(
    reader: ConsoleReader,
    writer: ConsoleWriter,
    input: impl Stream<Item = ConsoleInput> + Send + 'static,
    settled: impl Future<Output = ()> + Send + 'static,
) -> Events<AttachResponse> {
    Box::pin(async_stream::stream! {
        yield Ok(AttachResponse { part: None });
        let sends = tokio::spawn(send(writer, Box::pin(input)));
        let mut reader = reader;
        loop {
            match reader.next().await {
                Ok(Some(ConsoleEvent::Stdout(bytes))) => yield response(Part::Stdout(bytes)),
                Ok(Some(ConsoleEvent::Stderr(bytes))) => yield response(Part::Stderr(bytes)),
                Ok(Some(ConsoleEvent::Exited(exit))) => {
                    settled.await;
                    yield response(Part::Exited(exit.code));
                    break;
                }
                Ok(None) | Err(_) => {
                    yield Err(Status::unavailable(
                        "the connection to the container ended: it was killed with its shim, or \
                         you read too slowly",
                    ));
                    break;
                }
            }
        }
        sends.abort();
    })
}

async fn send(
    mut writer: ConsoleWriter,
    mut input: std::pin::Pin<Box<impl Stream<Item = ConsoleInput>>>,
) {
    while let Some(input) = input.next().await {
        if writer.send(&input).await.is_err() {
            return;
        }
    }
    // The client is gone: so is what it brought. Kept open until the output ends.
    std::future::pending::<()>().await;
}

fn size(size: TerminalSize) -> ConsoleInput {
    let number = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    ConsoleInput::Resize { columns: number(size.columns), rows: number(size.rows) }
}

pub(super) async fn attach(
    api: &ContainersApi,
    mut parts: Streaming<AttachRequest>,
) -> Result<Events<AttachResponse>, Status> {
    let first = parts.next().await.transpose()?.and_then(|first| first.part);
    let Some(AttachPart::Header(header)) = first else {
        return Err(Status::invalid_argument("an attach begins with its header"));
    };
    let target = api.target(&header.container)?;
    let console = match (&target, header.start) {
        (Target::Single(single), true) => match api.singles.start(single, Some(header.stdin)).await
        {
            Ok(console) => console,
            Err(failure) => {
                let (exit_code, message) = (failure.code, failure.message);
                let failure = Part::StartFailure(StartFailure { exit_code, message });
                return Ok(Box::pin(tokio_stream::iter([response(failure)])));
            }
        },
        (Target::Single(single), false) => {
            api.singles.running(single)?;
            None
        }
        (Target::Task(_), _) => None,
    };
    let (reader, writer) = match console {
        Some(console) => console,
        None => {
            let attached = api.node().runtime.attach(target.id(), header.stdin).await;
            attached.map_err(|error| runtime_error(&error))?
        }
    };
    let input = parts.filter_map(|part| match part.ok()?.part? {
        AttachPart::Input(bytes) => Some(ConsoleInput::Data(bytes)),
        AttachPart::CloseInput(_) => Some(ConsoleInput::Close),
        AttachPart::Resize(new) => Some(size(new)),
        AttachPart::Header(_) => None,
    });
    let singles = api.singles.clone();
    let settled = async move {
        if let Target::Single(single) = target {
            singles.until_settled(&single).await;
        }
    };
    Ok(carry(reader, writer, input, settled))
}

pub(super) async fn exec(
    api: &ContainersApi,
    mut parts: Streaming<ExecStreamRequest>,
) -> Result<Events<AttachResponse>, Status> {
    let first = parts.next().await.transpose()?.and_then(|first| first.part);
    let Some(ExecPart::Header(header)) = first else {
        return Err(Status::invalid_argument("an exec begins with its header"));
    };
    let target = api.target(&header.container)?;
    if header.command.is_empty() {
        return Err(Status::invalid_argument("no command to execute"));
    }
    if api.node().runtime.is_paused(target.id()) {
        return Err(Status::failed_precondition("the container is paused; unpause it first"));
    }
    let mut env = header.env;
    if header.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.insert(0, "TERM=xterm".to_owned());
    }
    let initial = header.size.unwrap_or_default();
    let number = |number: u32| u16::try_from(number).unwrap_or(0);
    let request = ExecRequest {
        args: header.command,
        env,
        cwd: header.working_dir,
        user: header.user,
        terminal: header.tty,
        size: (number(initial.columns), number(initial.rows)),
        stdin: header.stdin,
        privileged: header.privileged,
        mode: if header.detach { ExecMode::Detach } else { ExecMode::Attach },
        ..ExecRequest::default()
    };
    let (reader, writer) = match api.node().runtime.exec_attached(target.id(), request).await {
        Ok((_, reader, writer)) => (reader, writer),
        Err(RuntimeError::Exec { code, message }) => {
            let failure = Part::StartFailure(StartFailure { exit_code: code, message });
            return Ok(Box::pin(tokio_stream::iter([response(failure)])));
        }
        Err(error) => return Err(runtime_error(&error)),
    };
    if header.detach {
        return Ok(Box::pin(tokio_stream::iter([Ok(AttachResponse { part: None })])));
    }
    let input = parts.filter_map(|part| match part.ok()?.part? {
        ExecPart::Input(bytes) => Some(ConsoleInput::Data(bytes)),
        ExecPart::CloseInput(_) => Some(ConsoleInput::Close),
        ExecPart::Resize(new) => Some(size(new)),
        ExecPart::Header(_) => None,
    });
    Ok(carry(reader, writer, input, std::future::ready(())))
}
