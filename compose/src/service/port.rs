//! `ports:`, `[[IP:]PUBLISHED:]TARGET[/PROTOCOL]` with ranges, and the long form.

use std::net::IpAddr;

use shoal_proto::v1::{PortProtocol, PortSpec, PublishMode};

use crate::diagnostic::Log;
use crate::section::{self, Section};
use crate::yaml::Value;

pub(super) fn read(service: &mut Section<'_>, log: &mut Log<'_>) -> Vec<PortSpec> {
    let path = service.at("ports");
    let mut ports = Vec::new();
    for item in service.items("ports", log) {
        if let Value::Map(_) = item.value {
            let Some(mut long) = Section::of(&path, item, log) else { continue };
            ports.extend(read_long(&mut long, log));
            long.finish(
                &["name", "target", "published", "host_ip", "protocol", "mode", "app_protocol"],
                log,
            );
            continue;
        }
        let Some(text) = section::text(&path, item, log) else { continue };
        match short(&text) {
            Ok(read) => ports.extend(read),
            Err(rule) => log.error(item.place, format!("{path}: {text:?}: {rule}")),
        }
    }
    ports
}

/// Takes every key, so that what is left is what nobody knows.
fn read_long(section: &mut Section<'_>, log: &mut Log<'_>) -> Option<PortSpec> {
    if !section.has("target") {
        let path = section.at("target");
        let rule = "is missing; want the container's port, from 1 to 65535";
        log.error(section.place(), format!("{path}: {rule}"));
    }
    let target = section.parsed("target", log, number);
    let published = section.parsed("published", log, |text| match text {
        "" => Ok(0..=0),
        text => range(text),
    });
    let host_ip = section.parsed("host_ip", log, |text| match text {
        "" => Ok(String::new()),
        text => address(text),
    });
    let name = section.text("name", log);
    let protocol = section.parsed("protocol", log, protocol);
    let mode = section.parsed("mode", log, |text| match text {
        "ingress" => Ok(PublishMode::Ingress),
        "host" => Ok(PublishMode::Host),
        other => Err(format!("{other:?} is no mode; want ingress or host")),
    });
    let (from, to) = published.unwrap_or(0..=0).into_inner();
    let is_range = from != to;
    let mut port = PortSpec {
        target_port: target?,
        published_port: if is_range { 0 } else { from },
        published_from: if is_range { from } else { 0 },
        published_to: if is_range { to } else { 0 },
        host_ip: host_ip.unwrap_or_default(),
        name: name.unwrap_or_default(),
        ..PortSpec::default()
    };
    port.set_protocol(protocol.unwrap_or(PortProtocol::Tcp));
    port.set_mode(mode.unwrap_or(PublishMode::Ingress));
    Some(port)
}

/// Whether a text may stand in `expose:`: `PORT[-PORT][/PROTOCOL]`.
pub(super) fn exposed(text: &str) -> Result<(), String> {
    let ports = match text.split_once('/') {
        Some((ports, name)) => {
            protocol(name)?;
            ports
        }
        None => text,
    };
    range(ports).map(|_| ())
}

/// In its shortest form, so that the same address is the same text.
fn address(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("{text:?} is not an address")),
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(port @ 1..=65535) => Ok(port),
        _ => Err(format!("{text:?} is not a port from 1 to 65535")),
    }
}

fn protocol(text: &str) -> Result<PortProtocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(PortProtocol::Tcp),
        "udp" => Ok(PortProtocol::Udp),
        "sctp" => Ok(PortProtocol::Sctp),
        _ => Err(format!("{text:?} is no protocol; want tcp, udp or sctp")),
    }
}

fn range(text: &str) -> Result<std::ops::RangeInclusive<u32>, String> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(format!("the range {text} goes down"));
    }
    Ok(first..=last)
}

fn short(text: &str) -> Result<Vec<PortSpec>, String> {
    let (addresses, protocol) = match text.split_once('/') {
        Some((addresses, name)) => (addresses, protocol(name)?),
        None => (text, PortProtocol::Tcp),
    };
    let (rest, target) = match addresses.rsplit_once(':') {
        Some((rest, target)) => (Some(rest), target),
        None => (None, addresses),
    };
    let (host_ip, published) = match rest {
        None => ("", None),
        Some(rest) => match rest.rsplit_once(':') {
            Some((ip, published)) => (ip, Some(published)),
            None => ("", Some(rest)),
        },
    };
    let inner = host_ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    let host_ip = match inner.unwrap_or(host_ip) {
        "" => String::new(),
        ip => address(ip)?,
    };
    let targets = range(target)?;
    let (published, (published_from, published_to)): (Vec<u32>, _) = match published {
        None | Some("") => (targets.clone().map(|_| 0).collect(), (0, 0)),
        Some(published) => match range(published)? {
            wide if targets.clone().count() == 1 && wide.clone().count() > 1 => {
                (vec![0], wide.into_inner())
            }
            alike => (alike.collect(), (0, 0)),
        },
    };
    if published.len() != targets.clone().count() {
        return Err("both ranges must have the same length".to_owned());
    }
    let ports = targets.zip(published).map(|(target_port, published_port)| PortSpec {
        published_from,
        published_to,
        protocol: protocol.into(),
        target_port,
        published_port,
        host_ip: host_ip.clone(),
        ..PortSpec::default()
    });
    Ok(ports.collect())
}

#[cfg(test)]
mod tests {
    use super::{exposed, short};

    #[test]
    fn short_forms_mean_what_they_do_in_compose() {
        for (text, expected) in [
            ("80", vec![(0, 80, "", 0)]),
            ("8080:80", vec![(8080, 80, "", 0)]),
            ("127.0.0.1:53:53/udp", vec![(53, 53, "127.0.0.1", 1)]),
            ("127.0.0.1::80", vec![(0, 80, "127.0.0.1", 0)]),
            ("[::1]:81:80", vec![(81, 80, "::1", 0)]),
            ("[0:0::1]:81:80", vec![(81, 80, "::1", 0)]),
            ("90-91:80-81", vec![(90, 80, "", 0), (91, 81, "", 0)]),
        ] {
            let ports = short(text).unwrap();
            let read: Vec<_> = ports
                .iter()
                .map(|p| (p.published_port, p.target_port, p.host_ip.as_str(), p.protocol))
                .collect();
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn of_a_range_for_one_port_one_is_picked() {
        let ports = short("8000-8010:80").unwrap();
        let port = &ports[0];
        assert_eq!((ports.len(), port.published_port, port.target_port), (1, 0, 80));
        assert_eq!((port.published_from, port.published_to), (8000, 8010));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "0", "70000", "a:b", "80/x", "1-2:3-5", "9-8", "nowhere:1:2", "[::1:1:2"] {
            assert!(short(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_ports_and_ranges_of_ports_are_exposed() {
        for text in ["80", "9000-9002", "53/udp"] {
            assert_eq!(exposed(text), Ok(()), "{text}");
        }
        for text in ["", "0", "80-x", "80-", "9-8", "80/x", "80:80", "70000"] {
            assert!(exposed(text).is_err(), "{text}");
        }
    }
}
