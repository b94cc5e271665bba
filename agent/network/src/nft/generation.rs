//! The number of the last change to any of the host's rules (NFT_MSG_GETGEN of
//! linux/netfilter/nf_tables.h): who changed something is not told, but that nobody did is.

use std::io;

use netlink_sys::Socket;

use super::elements::{NFTABLES, REQUEST, connect, message};

const GET: u16 = NFTABLES << 8 | 16;
const ANSWER: usize = 1 << 10;
/// After the netlink header and netfilter's own: the first attribute's length and kind.
const VALUE: std::ops::Range<usize> = 24..28;

/// The number as it is now.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn generation() -> io::Result<u32> {
    let socket: Socket = connect()?;
    let mut query = Vec::new();
    message(&mut query, GET, REQUEST, 0, 0, &[]);
    socket.send(&query, 0)?;
    let mut answer = Vec::with_capacity(ANSWER);
    socket.recv(&mut answer, 0)?;
    let value = answer.get(VALUE).and_then(|value| value.try_into().ok());
    value.map(u32::from_be_bytes).ok_or_else(|| io::Error::other("the answer is too short"))
}
