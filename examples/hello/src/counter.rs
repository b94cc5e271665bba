//! Counts its requests, in a file that outlives it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::http::{Response, serve as serve_http};

const PORT: u16 = 9000;
const FILE: &str = "/data/count";

static COUNT: Mutex<Option<u64>> = Mutex::new(None);

pub(crate) fn serve() -> io::Result<()> {
    serve_http(PORT, handle)
}

fn handle(path: &str, _client: SocketAddr) -> Response {
    let text = |status, body| Response { status, kind: "text/plain", body };
    match path {
        "/hit" => match hit() {
            Ok(count) => text("200 OK", format!("{count}\n")),
            Err(error) => text("500 Internal Server Error", format!("{FILE}: {error}\n")),
        },
        "/health" => text("200 OK", "ok\n".to_owned()),
        _ => text("404 Not Found", "not here\n".to_owned()),
    }
}

fn hit() -> io::Result<u64> {
    let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = || fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse().ok());
    let next = count.or_else(kept).unwrap_or(0) + 1;
    let partial = format!("{FILE}.partial");
    fs::write(&partial, next.to_string())?;
    fs::rename(partial, FILE)?;
    *count = Some(next);
    Ok(next)
}
