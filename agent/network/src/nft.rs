//! Puts rules in force: one transaction a call, all or nothing. Whole tables go through the program
//! `nft`, single elements of a set straight to the kernel.

mod elements;
mod generation;

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::NetworkError;

pub(crate) use elements::{
    ACKNOWLEDGE, Connection, ERROR, IPV4, NESTED, REQUEST, Set, acknowledged, attribute_into,
    attributes, connect, message,
};
pub(crate) use generation::generation;

/// Whether the program is there and can talk to the kernel.
pub(crate) async fn check() -> Result<(), NetworkError> {
    run(&["list", "tables"], "").await.map(drop)
}

/// Puts a script in force.
pub(crate) async fn apply(script: &str) -> Result<(), NetworkError> {
    run(&["-f", "-"], script).await.map(drop)
}

/// What is in a table, without counters; none when there is no such table.
pub(crate) async fn list(table: &str) -> Option<String> {
    run(&["-s", "list", "table", "ip", table], "").await.ok()
}

/// Takes a table away; fine when it is not there.
pub(crate) async fn delete_table(table: &str) -> Result<(), NetworkError> {
    apply(&format!("table ip {table} {{}}\ndelete table ip {table}\n")).await
}

async fn run(args: &[&str], input: &str) -> Result<String, NetworkError> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NetworkError::NoNft)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read all says why on its standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(NetworkError::NoNft)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(NetworkError::Nft(error.lines().next().unwrap_or("no reason given").to_owned()))
}
