use std::time::{Duration, UNIX_EPOCH};

use super::reader::{LogQuery, LogReader};
use super::time;
use super::writer::{Stream, Writer};

#[test]
fn times_read_back_as_written() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (951_782_400, "2000-02-29T00:00:00.000000000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
    ] {
        let at = UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(time::format(at), text);
        assert_eq!(time::parse(text), Some(at));
    }
    assert_eq!(time::parse("yesterday"), None);
}

fn lines(reader: &mut LogReader) -> Vec<String> {
    std::iter::from_fn(|| reader.next_ready().unwrap())
        .map(|entry| String::from_utf8_lossy(&entry.line).into_owned())
        .collect()
}

#[test]
fn a_log_reads_back_through_rotation_and_split_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path, 400, 4).unwrap();
    let mut reader = LogReader::open(&path, LogQuery::default()).unwrap();
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    for number in 0..20 {
        let text = format!("line {number} \"quoted\" \\ \u{1} ü");
        let (first, second) = text.as_bytes().split_at(7);
        writer.write(Stream::Stdout, first);
        writer.write(Stream::Stdout, second);
        writer.write(Stream::Stdout, b"\n");
        expected.push(text);
        seen.extend(lines(&mut reader));
    }
    assert_eq!(seen, expected);
    let mut tail =
        LogReader::open(&path, LogQuery { tail: Some(3), ..LogQuery::default() }).unwrap();
    assert_eq!(lines(&mut tail), expected[17..]);
    assert!(!dir.path().join("log.4").exists());
}

#[test]
fn the_end_of_a_log_without_a_newline_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path, 1 << 20, 2).unwrap();
    writer.write(Stream::Stderr, b"no end\xff");
    let mut reader = LogReader::open(&path, LogQuery::default()).unwrap();
    assert!(lines(&mut reader).is_empty());
    writer.flush_partial(Stream::Stderr);
    assert_eq!(lines(&mut reader), ["no end\u{fffd}"]);
}

#[test]
fn long_lines_are_split_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path, 1 << 20, 2).unwrap();
    let long = "x".repeat(40_000);
    writer.write(Stream::Stdout, long.as_bytes());
    writer.write(Stream::Stdout, b"\n");
    let mut reader = LogReader::open(&path, LogQuery::default()).unwrap();
    assert_eq!(lines(&mut reader).concat(), long);
}
