//! Passes what the raft library logs on to `tracing`.

use std::fmt::{self, Write as _};

use slog::{Drain, KV, Key, Level, Logger, OwnedKVList, Record, Serializer};

/// The library's elections and state changes are for those who debug raft: its info is our debug.
pub(super) fn logger() -> Logger {
    Logger::root(ToTracing, slog::o!())
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!("{}", line(record, values)),
            Level::Warning => tracing::warn!("{}", line(record, values)),
            Level::Info if tracing::enabled!(tracing::Level::DEBUG) => {
                tracing::debug!("{}", line(record, values));
            }
            Level::Debug | Level::Trace if tracing::enabled!(tracing::Level::TRACE) => {
                tracing::trace!("{}", line(record, values));
            }
            Level::Info | Level::Debug | Level::Trace => {}
        }
        Ok(())
    }
}

fn line(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut line = Line(record.msg().to_string());
    // Writing to a string can't fail; a value that can't be shown is left out.
    let _ = record.kv().serialize(record, &mut line);
    let _ = values.serialize(record, &mut line);
    line.0
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}
