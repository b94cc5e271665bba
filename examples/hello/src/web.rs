//! The page: which replica answered, to whom, and how often all of them have.

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use crate::http::{self, Response};

const PORT: u16 = 8080;
const COUNTER: &str = "http://counter:9000/hit";

pub(crate) fn serve() -> io::Result<()> {
    http::serve(PORT, handle)
}

fn handle(path: &str, client: SocketAddr) -> Response {
    match path {
        "/health" => Response { status: "200 OK", kind: "text/plain", body: "ok\n".to_owned() },
        "/whoami" => {
            let body = format!(
                "{{\"replica\":\"{}\",\"address\":\"{}\",\"client\":\"{}\",\"count\":{}}}\n",
                replica(),
                address(),
                client.ip(),
                count().unwrap_or_else(|_| "null".to_owned())
            );
            Response { status: "200 OK", kind: "application/json", body }
        }
        "/" => Response { status: "200 OK", kind: "text/html; charset=utf-8", body: page(client) },
        _ => {
            Response { status: "404 Not Found", kind: "text/plain", body: "not here\n".to_owned() }
        }
    }
}

fn replica() -> String {
    fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned()
}

/// The container's own address: the one that packets leave from. Nothing is sent.
fn address() -> String {
    let own = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    own.map(|address| address.ip().to_string()).unwrap_or_default()
}

fn count() -> io::Result<String> {
    http::get(COUNTER).map(|count| count.trim().to_owned())
}

fn page(client: SocketAddr) -> String {
    let count = match count() {
        Ok(count) => format!("request number <b>{count}</b>"),
        Err(error) => format!("the counter can't be reached: {error}"),
    };
    format!(
        "<!doctype html><meta charset=utf-8><title>hello from Shoal</title>\
         <style>body{{font:1.1em system-ui;max-width:32em;margin:4em auto}}</style>\
         <h1>Hello from Shoal</h1><p>Replica <b>{}</b> at {} answers {}.<p>This is {count}.\n",
        replica(),
        address(),
        client.ip()
    )
}
