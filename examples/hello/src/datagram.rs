//! UDP, to look at a network with: who answers, and whether a flow stays with it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(500);

/// Answers each datagram with the host's name. Never ends.
pub(crate) fn serve(port: &str) -> io::Result<()> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let name = fs::read_to_string("/etc/hostname")?;
    let mut buffer = [0; 1500];
    loop {
        let (_, client) = socket.recv_from(&mut buffer)?;
        // A client that went away does not wait for it.
        let _ = socket.send_to(name.as_bytes(), client);
    }
}

/// Sends one datagram from that port and prints the answer.
pub(crate) fn ask(address: &str, from: &str) -> io::Result<()> {
    let from: u16 = from.parse().map_err(io::Error::other)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, from))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(address)?;
    socket.send(b"?")?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer)?;
    println!("{}", String::from_utf8_lossy(&buffer[..length]).trim());
    Ok(())
}
