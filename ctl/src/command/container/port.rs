//! Published ports, as `docker run -p` takes them: `[[ADDRESS:]PORT:]PORT[/PROTOCOL]`, where ports
//! may be ranges.

use std::net::IpAddr;

use shoal_proto::v1::{PortProtocol, PortSpec, PublishMode};

/// The ports that one `-p` publishes.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::command) struct Published(pub(in crate::command) Vec<PortSpec>);

pub(in crate::command) fn parse(text: &str) -> Result<Published, String> {
    let wrong = |why: &str| format!("{why}; want [[ADDRESS:]PORT:]PORT[/tcp|udp|sctp]");
    let (rest, protocol) = match text.rsplit_once('/') {
        None => (text, PortProtocol::Tcp),
        Some((rest, "tcp")) => (rest, PortProtocol::Tcp),
        Some((rest, "udp")) => (rest, PortProtocol::Udp),
        Some((rest, "sctp")) => (rest, PortProtocol::Sctp),
        Some((_, other)) => return Err(wrong(&format!("protocol {other:?} is unknown"))),
    };
    let (before, target) = match rest.rsplit_once(':') {
        Some((before, target)) => (Some(before), target),
        None => (None, rest),
    };
    let (host_ip, host) = match before {
        None => (String::new(), ""),
        Some(before) => match before.rsplit_once(':') {
            Some((ip, port)) => (address(ip).ok_or(wrong("that is no address"))?, port),
            None => (String::new(), before),
        },
    };
    let (first, last) = range(target).ok_or_else(|| wrong(&format!("{target:?} is no port")))?;
    let host = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| wrong(&format!("{host:?} is no port")))?),
    };
    let mut picked = None;
    if let Some((from, to)) = host
        && to - from != last - first
    {
        if first != last {
            return Err(wrong("the two ranges are not of one length"));
        }
        picked = host;
    }
    let (published_from, published_to) = picked.unwrap_or_default();
    let published = |target| match (host, picked) {
        (Some((from, _)), None) => from + (target - first),
        _ => 0,
    };
    let specs = (first..=last).map(|target| PortSpec {
        protocol: protocol.into(),
        target_port: target.into(),
        published_port: published(target).into(),
        mode: PublishMode::Host.into(),
        host_ip: host_ip.clone(),
        name: String::new(),
        published_from: published_from.into(),
        published_to: published_to.into(),
    });
    Ok(Published(specs.collect()))
}

fn address(text: &str) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_string())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (0 < first && first <= last).then_some((first, last))
}

/// `0.0.0.0:8080->80/tcp, 53/udp`; ports that follow one another are one range.
pub(super) fn show(ports: &[PortSpec]) -> String {
    let runs = ports.chunk_by(follows);
    runs.filter_map(|run| Some(show_run(run.first()?, run.last()?))).collect::<Vec<_>>().join(", ")
}

fn follows(one: &PortSpec, next: &PortSpec) -> bool {
    let published = match one.published_port {
        0 => 0,
        port => port + 1,
    };
    (next.target_port, next.published_port) == (one.target_port + 1, published)
        && (&next.host_ip, next.protocol) == (&one.host_ip, one.protocol)
}

fn show_run(first: &PortSpec, last: &PortSpec) -> String {
    let span =
        |from: u32, to: u32| if from == to { from.to_string() } else { format!("{from}-{to}") };
    let target = format!("{}/{}", span(first.target_port, last.target_port), first.protocol());
    if first.published_port == 0 {
        return target;
    }
    format!("{}:{}->{target}", host(first), span(first.published_port, last.published_port))
}

pub(super) fn host(port: &PortSpec) -> &str {
    if port.host_ip.is_empty() { "0.0.0.0" } else { &port.host_ip }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        show(&parse(text).unwrap().0)
    }

    #[test]
    fn ports_as_docker_writes_them() {
        assert_eq!(shown("8080:80"), "0.0.0.0:8080->80/tcp");
        assert_eq!(shown("127.0.0.1:53:53/udp"), "127.0.0.1:53->53/udp");
        assert_eq!(shown("[::1]:80:80"), "::1:80->80/tcp");
        assert_eq!(shown("80"), "80/tcp");
        assert_eq!(shown("127.0.0.1::80"), "80/tcp");
        assert_eq!(shown("7000-7001:80-81"), "0.0.0.0:7000-7001->80-81/tcp");
        assert_eq!(shown("80-82"), "80-82/tcp");
    }

    #[test]
    fn of_a_range_for_one_port_the_first_free_is_taken() {
        let of = |text: &str| {
            let port = &parse(text).unwrap().0[0];
            (port.published_port, port.published_from, port.published_to, port.target_port)
        };
        assert_eq!(of("8000-8010:80"), (0, 8000, 8010, 80));
        assert_eq!(of("8000-8000:80"), (8000, 0, 0, 80));
        assert_eq!(of("7000-7001:80-81"), (7000, 0, 0, 80));
    }

    #[test]
    fn only_ports_that_follow_one_another_are_one_range() {
        let ports: Vec<PortSpec> = ["80:80", "81:81", "90:82", "91:83/udp", "127.0.0.1:92:84/udp"]
            .iter()
            .flat_map(|text| parse(text).unwrap().0)
            .collect();
        assert_eq!(
            show(&ports),
            "0.0.0.0:80-81->80-81/tcp, 0.0.0.0:90->82/tcp, 0.0.0.0:91->83/udp, 127.0.0.1:92->84/udp"
        );
        assert_eq!(show(&[]), "");
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in ["", "0", "80-70", "a:80", "80:80:80:80", "80/icmp", "1-2:1-3", "70000"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
