//! Published ports of services: the short form of `docker run`, or a long one.

use shoal_proto::v1::{PortProtocol, PortSpec, PublishMode};

use crate::command::container::port::{self, Published};

/// # Errors
/// Neither form.
pub(super) fn parse(text: &str) -> Result<Published, String> {
    if text.contains('=') {
        return long(text).map(|port| Published(vec![port]));
    }
    let mut published = port::parse(text)?;
    // On every node, unlike a single container's.
    published.0.iter_mut().for_each(|port| port.set_mode(PublishMode::Ingress));
    Ok(published)
}

fn long(text: &str) -> Result<PortSpec, String> {
    let mut spec = PortSpec::default();
    for part in text.split(',') {
        let Some((key, value)) = part.split_once('=') else {
            return Err(format!("{part:?} is not KEY=VALUE"));
        };
        let number = || match value.parse::<u32>() {
            Ok(port @ 1..=65535) => Ok(port),
            _ => Err(format!("{key}: {value:?} is not a port from 1 to 65535")),
        };
        match key {
            "target" => spec.target_port = number()?,
            "published" => spec.published_port = number()?,
            "mode" => spec.set_mode(match value {
                "ingress" => PublishMode::Ingress,
                "host" => PublishMode::Host,
                other => return Err(format!("mode {other:?} is neither ingress nor host")),
            }),
            "protocol" => spec.set_protocol(protocol(value)?),
            "host_ip" => match value.parse::<std::net::IpAddr>() {
                Ok(address) => spec.host_ip = address.to_string(),
                Err(_) => return Err(format!("host_ip: {value:?} is not an address")),
            },
            "name" => value.clone_into(&mut spec.name),
            other => {
                return Err(format!(
                    "{other:?} is unknown; there are target, published, mode, protocol, host_ip and \
                     name"
                ));
            }
        }
    }
    match spec.target_port {
        0 => Err("the container's port is missing: target=PORT".to_owned()),
        _ => Ok(spec),
    }
}

fn protocol(text: &str) -> Result<PortProtocol, String> {
    match text {
        "tcp" => Ok(PortProtocol::Tcp),
        "udp" => Ok(PortProtocol::Udp),
        "sctp" => Ok(PortProtocol::Sctp),
        other => Err(format!("protocol {other:?} is unknown; there are tcp, udp and sctp")),
    }
}

/// The same port of the container.
pub(super) fn same_target(one: &PortSpec, other: &PortSpec) -> bool {
    (one.target_port, one.protocol) == (other.target_port, other.protocol)
}

/// A port of the container, as it is named to be published no more: `80`, `53/udp`, or what
/// published it.
#[derive(Debug, Clone)]
pub(in crate::command::service) struct Target(Vec<PortSpec>);

impl Target {
    /// # Errors
    /// No port.
    pub(in crate::command::service) fn parse(text: &str) -> Result<Self, String> {
        parse(text).map(|published| Self(published.0))
    }

    pub(in crate::command::service) fn is_of(&self, port: &PortSpec) -> bool {
        self.0.iter().any(|named| same_target(named, port))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> =
            self.0.iter().map(|port| format!("{}/{}", port.target_port, port.protocol())).collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let short = &parse("8080:80").unwrap().0[0];
        assert_eq!((short.published_port, short.target_port), (8080, 80));
        assert_eq!(short.mode(), PublishMode::Ingress);
        let long = &parse("target=53,published=5353,protocol=udp,mode=host").unwrap().0[0];
        assert_eq!((long.published_port, long.target_port), (5353, 53));
        assert_eq!((long.protocol(), long.mode()), (PortProtocol::Udp, PublishMode::Host));
        for wrong in
            ["published=80", "target=0", "target=80,mode=x", "target=80,x=1", "target=80,x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_target_is_of_one_protocol() {
        let port = |text: &str| parse(text).unwrap().0[0].clone();
        assert!(Target::parse("80").unwrap().is_of(&port("8080:80")));
        assert!(Target::parse("8080:80").unwrap().is_of(&port("9090:80")));
        assert!(!Target::parse("53/udp").unwrap().is_of(&port("53:53")));
    }
}
