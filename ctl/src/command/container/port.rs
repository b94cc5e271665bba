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
    if let Some((from, to)) = host
        && to - from != last - first
        && first != last
    {
        return Err(wrong("the two ranges are not of one length"));
    }
    let specs = (first..=last).map(|target| PortSpec {
        protocol: protocol.into(),
        target_port: target.into(),
        published_port: host.map_or(0, |(from, _)| from + (target - first)).into(),
        mode: PublishMode::Host.into(),
        host_ip: host_ip.clone(),
        name: String::new(),
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

/// `0.0.0.0:8080->80/tcp`
pub(super) fn show(port: &PortSpec) -> String {
    let target = format!("{}/{}", port.target_port, port.protocol());
    if port.published_port == 0 {
        return target;
    }
    format!("{}:{}->{target}", host(port), port.published_port)
}

pub(super) fn host(port: &PortSpec) -> &str {
    if port.host_ip.is_empty() { "0.0.0.0" } else { &port.host_ip }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        parse(text).unwrap().0.iter().map(show).collect()
    }

    #[test]
    fn ports_as_docker_writes_them() {
        assert_eq!(shown("8080:80"), ["0.0.0.0:8080->80/tcp"]);
        assert_eq!(shown("127.0.0.1:53:53/udp"), ["127.0.0.1:53->53/udp"]);
        assert_eq!(shown("[::1]:80:80"), ["::1:80->80/tcp"]);
        assert_eq!(shown("80"), ["80/tcp"]);
        assert_eq!(shown("127.0.0.1::80"), ["80/tcp"]);
        assert_eq!(shown("7000-7001:80-81"), ["0.0.0.0:7000->80/tcp", "0.0.0.0:7001->81/tcp"]);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in ["", "0", "80-70", "a:80", "80:80:80:80", "80/icmp", "1-2:1-3", "70000"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
