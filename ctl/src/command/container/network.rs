//! The networks of a container, as `docker run --network` takes them.

use anyhow::bail;
use shoal_proto::v1::ContainerNetwork;

/// What one `--network` says.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::command) enum Chosen {
    /// No network of its own.
    Mode(String),
    /// A network.
    On(ContainerNetwork),
}

/// What is said of the only network.
#[derive(Debug, Default)]
pub(in crate::command) struct Single {
    pub(in crate::command) aliases: Vec<String>,
    pub(in crate::command) address: Option<String>,
    pub(in crate::command) mac_address: Option<String>,
}

pub(in crate::command) fn parse(text: &str) -> Result<Chosen, String> {
    if matches!(text, "host" | "none") || text.starts_with("container:") {
        return Ok(Chosen::Mode(text.to_owned()));
    }
    let mut network = ContainerNetwork::default();
    if !text.contains('=') {
        text.clone_into(&mut network.network);
    } else {
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or(format!("{part:?} has no value"))?;
            match key {
                "name" => value.clone_into(&mut network.network),
                "ip" => value.clone_into(&mut network.address),
                "mac-address" => value.clone_into(&mut network.mac_address),
                "alias" => network.aliases.push(value.to_owned()),
                _ => {
                    return Err(format!(
                        "{key:?} is unknown; there are name, ip, mac-address and alias"
                    ));
                }
            }
        }
    }
    if network.network.is_empty() {
        return Err("the network has no name".to_owned());
    }
    Ok(Chosen::On(network))
}

/// Mode and networks, with what other options say of the only one.
pub(in crate::command) fn choose(
    chosen: Vec<Chosen>,
    single: Single,
) -> anyhow::Result<(String, Vec<ContainerNetwork>)> {
    let Single { aliases, address, mac_address } = single;
    let says_more = !aliases.is_empty() || address.is_some() || mac_address.is_some();
    let mut mode = String::new();
    let mut networks = Vec::new();
    for one in chosen {
        match one {
            Chosen::Mode(text) if mode.is_empty() || mode == text => mode = text,
            Chosen::Mode(text) => bail!("--network {mode} and --network {text} exclude each other"),
            Chosen::On(network) => networks.push(network),
        }
    }
    if !mode.is_empty() {
        if let Some(other) = networks.first() {
            bail!("--network {mode} and --network {} exclude each other", other.network);
        }
        if says_more {
            bail!("--ip, --mac-address and --network-alias say nothing with --network {mode}");
        }
        return Ok((mode, networks));
    }
    if !says_more {
        return Ok((mode, networks));
    }
    if networks.is_empty() {
        networks
            .push(ContainerNetwork { network: "bridge".to_owned(), ..ContainerNetwork::default() });
    }
    let [network] = &mut networks[..] else {
        bail!(
            "of several networks each has its own: --network name=NAME,ip=ADDRESS,mac-address=MAC,alias=ALIAS"
        );
    };
    network.aliases.extend(aliases);
    network.address = address.unwrap_or(std::mem::take(&mut network.address));
    network.mac_address = mac_address.unwrap_or(std::mem::take(&mut network.mac_address));
    Ok((mode, networks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(texts: &[&str], single: Single) -> Result<(String, Vec<String>), String> {
        let parsed: Result<Vec<Chosen>, String> = texts.iter().map(|text| parse(text)).collect();
        let (mode, networks) = choose(parsed?, single).map_err(|error| error.to_string())?;
        let shown = networks.iter().map(|one| {
            let aliases = one.aliases.join("+");
            format!("{} {} {} {aliases}", one.network, one.address, one.mac_address)
        });
        Ok((mode, shown.map(|text| text.trim_end().to_owned()).collect()))
    }

    #[test]
    fn networks_as_docker_writes_them() {
        let none = Single::default;
        let on = |names: &[&str]| (String::new(), names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(chosen(&[], none()), Ok(on(&[])));
        assert_eq!(chosen(&["a", "b"], none()), Ok(on(&["a", "b"])));
        assert_eq!(chosen(&["host"], none()), Ok(("host".to_owned(), vec![])));
        assert_eq!(
            chosen(&["name=a,ip=10.0.0.2,alias=x,alias=y"], none()),
            Ok(on(&["a 10.0.0.2  x+y"]))
        );
        let more = || Single {
            aliases: vec!["x".to_owned()],
            address: Some("10.0.0.2".to_owned()),
            mac_address: Some("02:42:00:00:00:01".to_owned()),
        };
        assert_eq!(chosen(&["a"], more()), Ok(on(&["a 10.0.0.2 02:42:00:00:00:01 x"])));
        assert_eq!(chosen(&[], more()), Ok(on(&["bridge 10.0.0.2 02:42:00:00:00:01 x"])));
        for (texts, single) in [
            (&["host", "none"][..], none()),
            (&["host", "a"], none()),
            (&["host"], more()),
            (&["a", "b"], more()),
            (&["name=a,colour=red"], none()),
            (&["ip=1.2.3.4"], none()),
        ] {
            assert!(chosen(texts, single).is_err(), "{texts:?}");
        }
    }
}
