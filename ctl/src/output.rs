//! The only place that prints.

#![allow(clippy::print_stderr)]

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

/// How listings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON array, with the field names of the API.
    Json,
}

/// One line on standard output.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// One line on standard error: what is not the result.
pub(crate) fn note(text: impl Display) {
    eprintln!("{text}");
}

pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Begins the next picture of the same thing: on a terminal in the place of the one before,
/// elsewhere below it.
pub(crate) fn page(is_first: bool) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match (out.is_terminal(), is_first) {
        // ECMA-48: erase the page, and go to its beginning.
        (true, _) => Ok(write!(out, "\x1b[2J\x1b[H")?),
        (false, true) => Ok(()),
        (false, false) => line(""),
    }
}

/// Columns as wide as their widest cell, three spaces apart, as Docker prints them.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    line(render(head, rows).trim_end())
}

fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| {
        all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The beginning of an id that is enough for people.
pub(crate) fn short(id: &str, whole: bool) -> String {
    if whole { id.to_owned() } else { id.chars().take(12).collect() }
}

/// So many characters of a text at the most.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

pub(crate) fn on_terminal() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The server's own words when it was the server that refused.
pub(crate) fn complain(error: &anyhow::Error) {
    match error.downcast_ref::<tonic::Status>() {
        Some(status) if !status.message().is_empty() => eprintln!("error: {}", status.message()),
        Some(status) => eprintln!("error: {}", status.code()),
        None => eprintln!("error: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [vec!["a".to_owned(), "long cell".to_owned()], vec!["bcd".to_owned(), String::new()]];
        assert_eq!(render(&["ID", "NAME"], &rows), "ID    NAME\na     long cell\nbcd\n");
    }

    #[test]
    fn a_text_that_is_cut_shows_it() {
        assert_eq!((cut("abc", 3), cut("abcd", 3)), ("abc".to_owned(), "ab…".to_owned()));
    }
}
