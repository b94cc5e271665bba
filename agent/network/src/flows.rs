//! UDP flows of endpoints that have gone. The kernel remembers where a flow's packets go for as long as
//! they come (nf_conntrack_udp_timeout_stream); when that is a container which takes no more, the flow
//! is forgotten, and its next packet finds another. The messages are those of
//! linux/netfilter/nfnetlink_conntrack.h.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

use netlink_sys::Socket;

use crate::nft::{
    ACKNOWLEDGE, ERROR, IPV4, NESTED, REQUEST, acknowledged, attribute_into, attributes, connect,
    message,
};

const CONNTRACK: u16 = 1;
const GET: u16 = CONNTRACK << 8 | 1;
const DELETE: u16 = CONNTRACK << 8 | 2;
/// `NLM_F_DUMP` of linux/netlink.h.
const DUMP: u16 = 0x300;
const DONE: u16 = 3;
/// netlink's header and netfilter's own.
const HEADER: usize = 20;
/// What the kernel puts into one datagram of a dump at the most.
const PART: usize = 64 << 10;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IPV4_SOURCE: u16 = 1;
const PROTOCOL_NUMBER: u16 = 1;
const UDP: u8 = 17;
/// `IPS_DST_NAT`: it was led there by a service's address or a published port.
const LED_THERE: u32 = 1 << 5;

/// Forgets the UDP flows that lead to those addresses; returns how many there were.
///
/// # Errors
/// The kernel does not tell of its flows.
pub(crate) fn forget(gone: &BTreeSet<Ipv4Addr>) -> io::Result<usize> {
    let socket = connect()?;
    socket.set_non_blocking(false)?;
    let mut query = Vec::new();
    message(&mut query, GET, REQUEST | DUMP, IPV4, 0, &[]);
    socket.send(&query, 0)?;
    let mut found = Vec::new();
    let mut part = Vec::with_capacity(PART);
    loop {
        part.clear();
        socket.recv(&mut part, 0)?;
        if take_part(&part, gone, &mut found)? {
            break;
        }
    }
    found.iter().try_for_each(|flow| delete(&socket, flow))?;
    Ok(found.len())
}

/// Gathers what a datagram has of them, each as the attribute that names it; true after the last.
fn take_part(
    mut part: &[u8],
    gone: &BTreeSet<Ipv4Addr>,
    found: &mut Vec<Vec<u8>>,
) -> io::Result<bool> {
    while let [a, b, c, d, low, high, ..] = *part {
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(one) = part.get(..length).filter(|_| length >= 16) else { break };
        match u16::from_ne_bytes([low, high]) {
            DONE => return Ok(true),
            ERROR => return acknowledged(one).map(|_| true),
            _ => found.extend(one.get(HEADER..).and_then(|flow| led_to(flow, gone))),
        }
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The attribute that names the flow, if it is one of those.
fn led_to(flow: &[u8], gone: &BTreeSet<Ipv4Addr>) -> Option<Vec<u8>> {
    let find = |body, kind| attributes(body).find(|(found, _)| *found == kind).map(|(_, v)| v);
    let status = u32::from_be_bytes(find(flow, STATUS)?.try_into().ok()?);
    let reply = find(flow, TUPLE_REPLY)?;
    let protocol = find(find(reply, TUPLE_PROTOCOL)?, PROTOCOL_NUMBER)?;
    let source: [u8; 4] = find(find(reply, TUPLE_IP)?, IPV4_SOURCE)?.try_into().ok()?;
    let is_one =
        protocol == [UDP] && status & LED_THERE != 0 && gone.contains(&Ipv4Addr::from(source));
    is_one.then(|| find(flow, TUPLE_ORIGINAL).map(<[u8]>::to_vec)).flatten()
}

fn delete(socket: &Socket, original: &[u8]) -> io::Result<()> {
    let mut body = Vec::new();
    attribute_into(&mut body, TUPLE_ORIGINAL | NESTED, original);
    let mut order = Vec::new();
    message(&mut order, DELETE, REQUEST | ACKNOWLEDGE, IPV4, 0, &body);
    socket.send(&order, 0)?;
    let mut answer = Vec::with_capacity(PART);
    socket.recv(&mut answer, 0)?;
    match acknowledged(&answer) {
        // It has ended meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nest(kind: u16, parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        parts.iter().for_each(|(kind, value)| attribute_into(&mut body, *kind, value));
        let mut all = Vec::new();
        attribute_into(&mut all, kind | 0x8000, &body);
        all
    }

    /// A flow whose replies come from there.
    fn flow(source: [u8; 4], protocol: u8, status: u32) -> Vec<u8> {
        let tuple = |kind, source: [u8; 4]| {
            let ip = nest(TUPLE_IP, &[(IPV4_SOURCE, &source)]);
            let number = nest(TUPLE_PROTOCOL, &[(PROTOCOL_NUMBER, &[protocol])]);
            let mut all = Vec::new();
            attribute_into(&mut all, kind | 0x8000, &[ip, number].concat());
            all
        };
        let mut body = [tuple(TUPLE_ORIGINAL, [9, 9, 9, 9]), tuple(TUPLE_REPLY, source)].concat();
        attribute_into(&mut body, STATUS, &status.to_be_bytes());
        let mut all = Vec::new();
        message(&mut all, CONNTRACK << 8, 0, IPV4, 0, &body);
        all
    }

    #[test]
    fn only_udp_flows_that_were_led_to_what_is_gone_are_found() {
        let gone = BTreeSet::from([Ipv4Addr::new(10, 0, 0, 5)]);
        let part = [
            flow([10, 0, 0, 5], UDP, LED_THERE),
            flow([10, 0, 0, 5], 6, LED_THERE),
            flow([10, 0, 0, 5], UDP, 0),
            flow([10, 0, 0, 6], UDP, LED_THERE),
        ]
        .concat();
        let mut found = Vec::new();
        assert!(!take_part(&part, &gone, &mut found).unwrap());
        assert_eq!(found.len(), 1);
        let mut end = Vec::new();
        message(&mut end, DONE, 0, 0, 0, &[]);
        assert!(take_part(&end, &gone, &mut found).unwrap());
        for broken in [&part[..30], &[1, 2, 3], &[0; 40]] {
            assert!(!take_part(broken, &gone, &mut Vec::new()).unwrap());
        }
    }
}
