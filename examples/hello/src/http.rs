//! As much HTTP/1.1 as the example needs: one request a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(5);
/// A request line longer than this is refused.
const MAX_LINE: u64 = 8192;

/// What is sent back.
pub(crate) struct Response {
    pub(crate) status: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

/// Requests that are being answered.
static BUSY: AtomicUsize = AtomicUsize::new(0);
/// Nobody asks any more when nobody has for this long: whoever told this program to stop has told
/// those who balance to it before.
const QUIET: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Waits until all requests have been answered.
pub(crate) fn finish() {
    let begin = Instant::now();
    let mut quiet_since = begin;
    while quiet_since.elapsed() < QUIET && begin.elapsed() < LONGEST {
        if BUSY.load(Ordering::SeqCst) > 0 {
            quiet_since = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Answers each request with what `handle` makes of its path and its client.
pub(crate) fn serve(port: u16, handle: fn(&str, SocketAddr) -> Response) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    println!("listening on port {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        BUSY.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            if let Err(error) = answer(stream, handle) {
                println!("a request failed: {error}");
            }
            BUSY.fetch_sub(1, Ordering::SeqCst);
        });
    }
    Ok(())
}

fn answer(stream: TcpStream, handle: fn(&str, SocketAddr) -> Response) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let client = stream.peer_addr()?;
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.by_ref().take(MAX_LINE).read_line(&mut request)?;
    let mut header = String::new();
    while reader.by_ref().take(MAX_LINE).read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = match request.split_whitespace().collect::<Vec<_>>()[..] {
        ["GET", path, ..] => path,
        _ => "",
    };
    let Response { status, kind, body } = match path {
        "" => Response { status: "400 Bad Request", kind: "text/plain", body: "want GET\n".into() },
        path => handle(path, client),
    };
    println!("{} {:?} {status}", client.ip(), path);
    write!(
        reader.get_mut(),
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Fetches `http://HOST:PORT/PATH`; anything but 200 is an error.
pub(crate) fn get(url: &str) -> io::Result<String> {
    let other = |what: &str| io::Error::other(format!("{url}: {what}"));
    let rest = url.strip_prefix("http://").ok_or_else(|| other("want http://HOST:PORT/PATH"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).map_err(|error| other(&error.to_string()))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.take(1 << 20).read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(|| other("no HTTP"))?;
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(other(head.lines().next().unwrap_or_default())),
    }
}
