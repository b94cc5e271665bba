//! `ports:`, `[[IP:]PUBLISHED:]TARGET[/PROTOCOL]` with ranges, and the long form.

use shoal_proto::v1::{PortProtocol, PortSpec, PublishMode};

use crate::diagnostic::Log;
use crate::section::{self, Section};
use crate::yaml::Value;

pub(super) fn read(service: &mut Section<'_>, log: &mut Log<'_>) -> Vec<PortSpec> {
    let path = service.at("ports");
    let Some(node) = service.take("ports") else { return Vec::new() };
    let Value::List(items) = &node.value else {
        log.error(node.place, format!("{path}: want a list, found {}", node.value.describe()));
        return Vec::new();
    };
    let mut ports = Vec::new();
    for item in items {
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

fn read_long(section: &mut Section<'_>, log: &mut Log<'_>) -> Option<PortSpec> {
    let place = section.place();
    let path = section.at("target");
    let target = section.parsed("target", log, number);
    if target.is_none() {
        log.error(place, format!("{path}: want the container's port, from 1 to 65535"));
    }
    let published = section.parsed("published", log, |text| match text {
        "" => Ok(0),
        text => number(text),
    });
    let mut port = PortSpec { target_port: target?, ..PortSpec::default() };
    port.published_port = published.unwrap_or(0);
    port.host_ip = section.text("host_ip", log).unwrap_or_default();
    port.name = section.text("name", log).unwrap_or_default();
    if let Some(protocol) = section.parsed("protocol", log, protocol) {
        port.set_protocol(protocol);
    }
    let mode = section.parsed("mode", log, |text| match text {
        "ingress" => Ok(PublishMode::Ingress),
        "host" => Ok(PublishMode::Host),
        other => Err(format!("{other:?} is no mode; want ingress or host")),
    });
    port.set_mode(mode.unwrap_or(PublishMode::Ingress));
    Some(port)
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
    let host_ip = host_ip.trim_start_matches('[').trim_end_matches(']');
    if !host_ip.is_empty() && host_ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("{host_ip:?} is not an address"));
    }
    let targets = range(target)?;
    let published: Vec<u32> = match published {
        None | Some("") => targets.clone().map(|_| 0).collect(),
        Some(published) => range(published)?.collect(),
    };
    if published.len() != targets.clone().count() {
        return Err("both ranges must have the same length".to_owned());
    }
    let ports = targets.zip(published).map(|(target_port, published_port)| PortSpec {
        protocol: protocol.into(),
        target_port,
        published_port,
        host_ip: host_ip.to_owned(),
        ..PortSpec::default()
    });
    Ok(ports.collect())
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn short_forms_mean_what_they_do_in_compose() {
        for (text, expected) in [
            ("80", vec![(0, 80, "", 0)]),
            ("8080:80", vec![(8080, 80, "", 0)]),
            ("127.0.0.1:53:53/udp", vec![(53, 53, "127.0.0.1", 1)]),
            ("127.0.0.1::80", vec![(0, 80, "127.0.0.1", 0)]),
            ("[::1]:81:80", vec![(81, 80, "::1", 0)]),
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
    fn other_texts_are_refused() {
        for text in ["", "0", "70000", "a:b", "80/x", "1-2:3-5", "9-8", "nowhere:1:2"] {
            assert!(short(text).is_err(), "{text}");
        }
    }
}
