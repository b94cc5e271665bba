//! From a query to its response, as far as the node's own names go. Pure.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::zone::Zones;

/// What to do about a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Send this.
    Response(Vec<u8>),
    /// Not a name of this node's: ask the host's resolvers.
    Forward,
    /// No query; an answer could start a loop.
    Ignore,
}

/// Answers are not to be kept: an endpoint that goes is gone from the next answer on.
const TTL: u32 = 0;
/// What fits into a datagram without EDNS (RFC 1035, section 2.3.4).
const PLAIN_LIMIT: u16 = 512;
/// What is offered with EDNS: no fragments on any usual path.
const EDNS_LIMIT: u16 = 1232;

pub(super) fn answer(zones: &Zones, client: IpAddr, packet: &[u8], datagram: bool) -> Answer {
    let Ok(query) = Message::from_vec(packet) else {
        return malformed(packet);
    };
    if query.metadata.message_type != MessageType::Query {
        return Answer::Ignore;
    }
    if query.metadata.op_code != OpCode::Query {
        return finish(response(&query, ResponseCode::NotImp), &query, datagram);
    }
    let [question] = &query.queries[..] else {
        return finish(response(&query, ResponseCode::FormErr), &query, datagram);
    };
    let name = question.name();
    let text = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let mut reply = response(&query, ResponseCode::NoError);
    if question.query_type() == RecordType::PTR {
        let Some(found) = pointer(&text).and_then(|address| zones.name_of(client, address)) else {
            return Answer::Forward;
        };
        if let Ok(found) = Name::from_ascii(found) {
            reply.add_answer(Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(found))));
        }
        return finish(reply, &query, datagram);
    }
    let Some(addresses) = zones.lookup(client, &text) else { return Answer::Forward };
    // A name that is known has no records of other types, and says so: no search goes on.
    if matches!(question.query_type(), RecordType::A | RecordType::ANY) {
        let mut addresses: Vec<Ipv4Addr> = addresses.into_iter().collect();
        if !addresses.is_empty() {
            let turn = usize::from(query.metadata.id) % addresses.len();
            addresses.rotate_left(turn);
        }
        for address in addresses {
            reply.add_answer(Record::from_rdata(name.clone(), TTL, RData::A(A(address))));
        }
    }
    finish(reply, &query, datagram)
}

fn response(query: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.response_code = code;
    response.metadata.authoritative = code == ResponseCode::NoError;
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(query.queries.iter().cloned());
    response
}

fn finish(mut response: Message, query: &Message, datagram: bool) -> Answer {
    let mut limit = PLAIN_LIMIT;
    if let Some(edns) = &query.edns {
        limit = edns.max_payload().clamp(PLAIN_LIMIT, EDNS_LIMIT);
        let mut own = Edns::new();
        own.set_max_payload(EDNS_LIMIT);
        response.set_edns(own);
    }
    let Ok(bytes) = response.to_vec() else { return Answer::Ignore };
    if datagram && bytes.len() > limit.into() {
        response.answers.clear();
        response.metadata.truncation = true;
        return response.to_vec().map_or(Answer::Ignore, Answer::Response);
    }
    Answer::Response(bytes)
}

/// FORMERR for a packet that has at least a query's header.
fn malformed(packet: &[u8]) -> Answer {
    match packet {
        [a, b, flags, ..] if packet.len() >= 12 && flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*a, *b]);
            let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            error.to_vec().map_or(Answer::Ignore, Answer::Response)
        }
        _ => Answer::Ignore,
    }
}

/// The response when nobody could be asked.
pub(super) fn server_failure(packet: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(packet).ok()?;
    let mut failure = response(&query, ResponseCode::ServFail);
    failure.metadata.authoritative = false;
    failure.to_vec().ok()
}

/// `4.3.2.1.in-addr.arpa` is 1.2.3.4.
fn pointer(text: &str) -> Option<Ipv4Addr> {
    let mut octets = text.strip_suffix(".in-addr.arpa")?.split('.').map(|part| part.parse().ok());
    let (d, c, b, a) = (octets.next()??, octets.next()??, octets.next()??, octets.next()??);
    octets.next().is_none().then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests;
