use std::collections::BTreeMap;

use super::*;
use crate::desired::{Attachment, Container, Desired, Endpoint, Network, Service};
use hickory_proto::op::Query;
use ipnet::Ipv4Net;

/// A container on the front network alone.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
/// One on the front and the back network.
const EDGE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);
/// One of another stack.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 13);

fn network(id: &str, number: u8) -> Network {
    Network {
        id: id.to_owned(),
        name: format!("shop_{id}"),
        subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, number, 0, 0), 24),
        gateway: Ipv4Addr::new(10, number, 0, 1),
        internal: false,
    }
}

fn endpoint(task: &str, slot: u64, network: &str, address: [u8; 4]) -> Endpoint {
    let addresses = BTreeMap::from([(network.to_owned(), Ipv4Addr::from(address))]);
    Endpoint { task: task.to_owned(), slot, local: false, addresses, way_out: None }
}

fn container(id: &str, names: &[&str], places: &[(&str, [u8; 4])]) -> Container {
    let attachments = places.iter().map(|&(network, address)| Attachment {
        network: network.into(),
        address: address.into(),
        aliases: Vec::new(),
    });
    Container {
        id: id.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        attachments: attachments.collect(),
    }
}

fn service(stack: &str, short_name: &str, endpoints: Vec<Endpoint>) -> Service {
    Service {
        id: format!("{stack}-{short_name}"),
        name: format!("{stack}_{short_name}"),
        short_name: short_name.to_owned(),
        endpoints,
        ..Service::default()
    }
}

/// The stack shop with a front and a back network, and another stack beside it that has a service
/// of the same short name.
fn desired() -> Desired {
    let web = vec![
        endpoint("t1", 1, "front", [10, 1, 0, 11]),
        endpoint("t2", 2, "front", [10, 1, 0, 12]),
    ];
    let db =
        vec![endpoint("t3", 1, "back", [10, 2, 0, 11]), endpoint("t4", 2, "back", [10, 2, 0, 12])];
    let aliases = vec!["www".to_owned(), "Shop".to_owned()];
    let other = vec![endpoint("t7", 1, "other", [10, 3, 0, 13])];
    Desired {
        elsewhere: Vec::new(),
        overlay: None,
        networks: vec![network("front", 1), network("back", 2), network("other", 3)],
        services: vec![
            Service {
                vips: BTreeMap::from([("front".to_owned(), Ipv4Addr::new(10, 1, 0, 2))]),
                aliases: BTreeMap::from([("front".to_owned(), aliases)]),
                ..service("shop", "web", web)
            },
            service("shop", "db", db),
            Service {
                aliases: BTreeMap::from([("front".to_owned(), Vec::new())]),
                ..service("shop", "idle", Vec::new())
            },
            Service {
                vips: BTreeMap::from([("other".to_owned(), Ipv4Addr::new(10, 3, 0, 2))]),
                ..service("blog", "web", other)
            },
        ],
        containers: vec![
            container(
                "t1",
                &["shop_web.1", "shop_web.1.t1", "first"],
                &[("front", [10, 1, 0, 11])],
            ),
            container("t3", &["shop_db.1", "shop_db.1.t3"], &[("back", [10, 2, 0, 11])]),
            container("t7", &["blog_web.1"], &[("other", [10, 3, 0, 13])]),
            container(
                "t9",
                &["shop_edge.1", "edge"],
                &[("front", [10, 1, 0, 50]), ("back", [10, 2, 0, 50])],
            ),
        ],
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(0x1200, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

fn send(client: impl Into<IpAddr>, query: &Message) -> Answer {
    answer(&Zones::of(&desired()), client.into(), &query.to_vec().unwrap(), true)
}

#[track_caller]
fn read(answer: Answer) -> Message {
    match answer {
        Answer::Response(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("want a response, found {other:?}"),
    }
}

/// The addresses of a response, in its order.
fn addresses(response: &Message) -> Vec<Ipv4Addr> {
    let records = response.answers.iter();
    records
        .map(|record| match &record.data {
            RData::A(A(address)) => *address,
            other => panic!("want an address, found {other}"),
        })
        .collect()
}

/// The addresses that a client gets for a name, the lowest first; none when the query goes on to
/// the host's resolvers.
#[track_caller]
fn resolve(client: Ipv4Addr, name: &str) -> Option<Vec<Ipv4Addr>> {
    let answer = send(client, &query(name, RecordType::A));
    if answer == Answer::Forward {
        return None;
    }
    let response = read(answer);
    assert_eq!(response.metadata.response_code, ResponseCode::NoError, "{name}");
    let mut found = addresses(&response);
    found.sort_unstable();
    Some(found)
}

#[track_caller]
fn assert_resolves(client: Ipv4Addr, name: &str, expected: &[[u8; 4]]) {
    let expected: Vec<Ipv4Addr> = expected.iter().map(|&address| address.into()).collect();
    assert_eq!(resolve(client, name), Some(expected), "{name}");
}

#[test]
fn a_service_is_its_vip() {
    for name in ["web", "shop_web"] {
        assert_resolves(EDGE, name, &[[10, 1, 0, 2]]);
    }
}

#[test]
fn a_service_without_a_vip_is_all_its_endpoints() {
    for name in ["db", "shop_db"] {
        assert_resolves(EDGE, name, &[[10, 2, 0, 11], [10, 2, 0, 12]]);
    }
}

#[test]
fn tasks_are_found_past_the_vip() {
    for name in ["tasks.web", "tasks.shop_web"] {
        assert_resolves(EDGE, name, &[[10, 1, 0, 11], [10, 1, 0, 12]]);
    }
    assert_resolves(EDGE, "web.2", &[[10, 1, 0, 12]]);
    assert_resolves(EDGE, "shop_web.1", &[[10, 1, 0, 11]]);
}

#[test]
fn an_alias_is_what_the_service_is() {
    for name in ["www", "shop"] {
        assert_resolves(EDGE, name, &[[10, 1, 0, 2]]);
    }
}

#[test]
fn a_container_has_its_names_and_its_id_on_each_of_its_networks() {
    for name in ["first", "shop_web.1.t1", "t1"] {
        assert_resolves(EDGE, name, &[[10, 1, 0, 11]]);
    }
    assert_resolves(EDGE, "edge", &[[10, 1, 0, 50], [10, 2, 0, 50]]);
    assert_resolves(WEB, "edge", &[[10, 1, 0, 50]]);
}

#[test]
fn case_does_not_matter_and_comes_back_as_it_was_asked() {
    let response = read(send(EDGE, &query("ShOp_WeB.", RecordType::A)));
    assert_eq!(addresses(&response), [Ipv4Addr::new(10, 1, 0, 2)]);
    assert_eq!(response.queries[0].name().to_ascii(), "ShOp_WeB.");
    assert_eq!(response.answers[0].name.to_ascii(), "ShOp_WeB.");
}

/// There is no domain of Shoal's own to deny names in: what no network has may be the host's.
#[test]
fn unknown_names_are_asked_of_the_host() {
    let names =
        ["nothing", "web.3", "tasks.nothing", "tasks", "web.example.com", "example.com", "."];
    for name in names {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::TXT] {
            assert_eq!(send(EDGE, &query(name, kind)), Answer::Forward, "{name} {kind}");
        }
    }
}

/// NXDOMAIN, or asking the host, would make a client that asks for AAAA first give the name up.
#[test]
fn a_known_name_has_no_other_records_and_says_so() {
    for name in ["web", "tasks.db", "edge", "www"] {
        for kind in [RecordType::AAAA, RecordType::TXT, RecordType::MX, RecordType::SRV] {
            let response = read(send(EDGE, &query(name, kind)));
            let head = &response.metadata;
            assert_eq!(head.response_code, ResponseCode::NoError, "{name} {kind}");
            assert!(head.authoritative, "{name} {kind}");
            assert!(response.answers.is_empty(), "{name} {kind}");
        }
    }
}

#[test]
fn a_service_without_tasks_is_a_known_name() {
    for name in ["idle", "shop_idle", "tasks.idle"] {
        assert_resolves(EDGE, name, &[]);
    }
}

#[test]
fn names_of_networks_that_a_client_is_not_on_are_unknown_to_it() {
    for name in ["db", "shop_db", "tasks.db", "db.1", "shop_db.1.t3", "t3", "blog_web"] {
        assert_eq!(resolve(WEB, name), None, "{name}");
    }
    for name in ["shop_web", "www", "db", "edge", "t1"] {
        assert_eq!(resolve(OTHER, name), None, "{name}");
    }
    assert_resolves(OTHER, "web", &[[10, 3, 0, 2]]);
    assert_resolves(WEB, "web", &[[10, 1, 0, 2]]);
}

#[test]
fn an_address_that_is_no_containers_sees_no_names() {
    for client in ["10.1.0.1", "10.1.0.12", "192.0.2.1", "127.0.0.1"] {
        assert_eq!(resolve(client.parse().unwrap(), "web"), None, "{client}");
    }
    let query = query("web", RecordType::A);
    assert_eq!(send(std::net::Ipv6Addr::LOCALHOST, &query), Answer::Forward);
    let mapped = read(send(EDGE.to_ipv6_mapped(), &query));
    assert_eq!(addresses(&mapped), [Ipv4Addr::new(10, 1, 0, 2)]);
}

#[test]
fn addresses_have_names() {
    for (address, name) in [
        ("2.0.1.10", "shop_web."),
        ("11.0.1.10", "shop_web.1."),
        ("12.0.2.10", "shop_db.2."),
        ("50.0.2.10", "shop_edge.1."),
    ] {
        let asked = query(&format!("{address}.in-addr.arpa."), RecordType::PTR);
        let response = read(send(EDGE, &asked));
        assert_eq!(response.metadata.response_code, ResponseCode::NoError);
        let found: Vec<String> =
            response.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(found, [name], "{address}");
    }
}

#[test]
fn other_addresses_are_asked_of_the_host() {
    for name in [
        "99.0.1.10.in-addr.arpa",
        "1.0.0.127.in-addr.arpa",
        "8.8.8.8.in-addr.arpa",
        "256.0.1.10.in-addr.arpa",
        "0.1.10.in-addr.arpa",
        "1.11.0.1.10.in-addr.arpa",
        "in-addr.arpa",
        "11.0.1.10.ip6.arpa",
    ] {
        assert_eq!(send(EDGE, &query(name, RecordType::PTR)), Answer::Forward, "{name}");
    }
    let hidden = query("11.0.2.10.in-addr.arpa", RecordType::PTR);
    assert_eq!(send(WEB, &hidden), Answer::Forward, "of a network that the client is not on");
}

#[test]
fn a_response_belongs_to_its_query() {
    let asked = query("web", RecordType::A);
    let response = read(send(EDGE, &asked));
    let head = &response.metadata;
    assert_eq!(head.id, asked.metadata.id);
    assert_eq!(head.message_type, MessageType::Response);
    assert!(head.recursion_desired && head.recursion_available && head.authoritative);
    assert!(!head.truncation);
    assert_eq!(response.queries.len(), 1);
    assert_eq!(response.queries[0].query_type(), RecordType::A);
    assert!(response.answers.iter().all(|record| record.ttl == 0), "not to be kept");
    assert!(response.edns.is_none(), "only who speaks EDNS gets it");
}

#[test]
fn endpoints_take_turns_in_being_first() {
    let mut firsts = Vec::new();
    for id in 0..4 {
        let mut asked = query("tasks.web", RecordType::A);
        asked.metadata.id = id;
        let found = addresses(&read(send(EDGE, &asked)));
        assert_eq!(found.len(), 2);
        firsts.push(found[0]);
    }
    assert_eq!(firsts[0], firsts[2]);
    assert_eq!(firsts[1], firsts[3]);
    assert_ne!(firsts[0], firsts[1]);
}

/// A client on a network with a service of that many endpoints asks for all of them.
fn ask_for_many(count: u8, payload: Option<u16>, datagram: bool) -> (Message, usize) {
    let client = Ipv4Addr::new(10, 9, 0, 250);
    let endpoints =
        (1..=count).map(|host| endpoint("t", host.into(), "big", [10, 9, 0, host])).collect();
    let desired = Desired {
        networks: vec![network("big", 9)],
        services: vec![service("shop", "many", endpoints)],
        containers: vec![container("c", &[], &[("big", client.octets())])],
        overlay: None,
        elsewhere: Vec::new(),
    };
    let mut asked = query("many", RecordType::A);
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        asked.set_edns(edns);
    }
    let packet = asked.to_vec().unwrap();
    match answer(&Zones::of(&desired), client.into(), &packet, datagram) {
        Answer::Response(bytes) => (Message::from_vec(&bytes).unwrap(), bytes.len()),
        other => panic!("want a response, found {other:?}"),
    }
}

#[test]
fn what_does_not_fit_into_a_datagram_is_asked_again_over_tcp() {
    for (count, payload, fits) in [
        (10, None, true),
        (40, None, false),
        (40, Some(100), false),
        (40, Some(1232), true),
        (200, Some(1232), false),
        (200, Some(65535), false),
    ] {
        let (response, length) = ask_for_many(count, payload, true);
        let expected = if fits { usize::from(count) } else { 0 };
        assert_eq!(response.metadata.truncation, !fits, "{count} {payload:?}");
        assert_eq!(response.answers.len(), expected, "{count} {payload:?}");
        assert_eq!(response.metadata.response_code, ResponseCode::NoError);
        let limit: usize = if payload.is_some_and(|payload| payload >= 1232) { 1232 } else { 512 };
        assert!(length <= limit, "{count} {payload:?}: {length}");
        assert_eq!(response.edns.is_some(), payload.is_some());
    }
    let (response, _) = ask_for_many(200, None, false);
    assert_eq!((response.answers.len(), response.metadata.truncation), (200, false));
}

#[test]
fn responses_are_not_answered() {
    let mut packet = query("web", RecordType::A).to_vec().unwrap();
    packet[2] |= 0x80;
    let zones = Zones::of(&desired());
    assert_eq!(answer(&zones, EDGE.into(), &packet, true), Answer::Ignore);
    // Nor are broken ones: two servers would send each other errors for ever.
    packet.pop();
    assert_eq!(answer(&zones, EDGE.into(), &packet, true), Answer::Ignore);
}

#[test]
fn other_operations_are_refused_by_name() {
    for code in [OpCode::Status, OpCode::Notify] {
        let mut asked = query("web", RecordType::A);
        asked.metadata.op_code = code;
        let response = read(send(EDGE, &asked));
        assert_eq!(response.metadata.response_code, ResponseCode::NotImp);
        assert_eq!(response.metadata.id, asked.metadata.id);
    }
}

#[test]
fn a_query_has_one_question() {
    let mut none = query("web", RecordType::A);
    none.queries.clear();
    let mut two = query("web", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("db").unwrap(), RecordType::A));
    for asked in [none, two] {
        let response = read(send(EDGE, &asked));
        assert_eq!(response.metadata.response_code, ResponseCode::FormErr);
        assert!(response.answers.is_empty());
    }
}

/// A query as resolvers send them, with EDNS.
fn packet() -> Vec<u8> {
    let mut asked = query("tasks.web", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    asked.set_edns(edns);
    asked.to_vec().unwrap()
}

#[test]
fn a_cut_packet_is_a_format_error_as_soon_as_it_has_a_header() {
    let zones = Zones::of(&desired());
    let whole = packet();
    for length in 0..whole.len() {
        let answer = answer(&zones, EDGE.into(), &whole[..length], true);
        if length < 12 {
            assert_eq!(answer, Answer::Ignore, "{length}");
            continue;
        }
        let response = read(answer);
        assert_eq!(response.metadata.response_code, ResponseCode::FormErr, "{length}");
        assert_eq!(response.metadata.id, 0x1200, "{length}");
    }
}

/// Whatever comes in: nothing, a packet to hand on, or a response to this very packet.
#[track_caller]
fn assert_harmless(zones: &Zones, packet: &[u8]) {
    for datagram in [true, false] {
        if let Answer::Response(bytes) = answer(zones, EDGE.into(), packet, datagram) {
            assert_eq!(bytes.get(..2), packet.get(..2), "the id: {packet:02x?}");
            assert_ne!(bytes[2] & 0x80, 0, "a response: {packet:02x?}");
            assert_eq!(packet[2] & 0x80, 0, "to a query: {packet:02x?}");
            assert!(!datagram || bytes.len() <= packet.len().max(1232), "{packet:02x?}");
        }
    }
    let failure = server_failure(packet);
    assert!(failure.is_none_or(|bytes| bytes.get(..2) == packet.get(..2)), "{packet:02x?}");
}

#[test]
fn every_byte_may_have_any_value() {
    let zones = Zones::of(&desired());
    let whole = packet();
    for at in 0..whole.len() {
        for value in 0..=u8::MAX {
            let mut changed = whole.clone();
            changed[at] = value;
            assert_harmless(&zones, &changed);
        }
    }
}

/// Xorshift: the same packets in each run.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

#[test]
fn garbage_is_harmless() {
    let zones = Zones::of(&desired());
    let whole = packet();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for round in 0..20_000 {
        let mut packet = whole.clone();
        if round % 4 == 0 {
            let length = random(&mut state) % 80;
            packet = (0..length).map(|_| random(&mut state) as u8).collect();
        }
        for _ in 0..random(&mut state) % 6 {
            let at = random(&mut state) % (packet.len() + 1);
            match random(&mut state) % 3 {
                0 => packet.truncate(at),
                1 => packet.insert(at, random(&mut state) as u8),
                _ => packet.extend_from_within(at..),
            }
        }
        assert_harmless(&zones, &packet);
    }
}

#[test]
fn the_failure_of_all_resolvers_is_said() {
    let asked = query("example.com.", RecordType::A);
    let failure = server_failure(&asked.to_vec().unwrap()).unwrap();
    let failure = Message::from_vec(&failure).unwrap();
    assert_eq!(failure.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(failure.metadata.id, asked.metadata.id);
    assert!(!failure.metadata.authoritative);
    assert_eq!(failure.queries, asked.queries);
    assert_eq!(server_failure(b"no packet"), None);
}
