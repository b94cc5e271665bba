//! `networks:` of a service.

use shoal_proto::v1::NetworkAttachmentSpec;

use crate::diagnostic::{Log, Place};
use crate::section::{self, Section};
use crate::stack::Project;
use crate::yaml::Value;

pub(super) fn read(
    project: &Project<'_>,
    name: &str,
    service: &mut Section<'_>,
    log: &mut Log<'_>,
) -> Vec<NetworkAttachmentSpec> {
    let path = service.at("networks");
    let container_name = service.text("container_name", log);
    let attach = |network: &str, mut aliases: Vec<String>, address: String| {
        aliases.extend(container_name.clone());
        aliases.insert(0, name.to_owned());
        NetworkAttachmentSpec { network_id: network.to_owned(), aliases, address }
    };
    let Some(node) = service.take("networks") else {
        return vec![attach("default", Vec::new(), String::new())];
    };
    let known = |place: Place, network: &str, log: &mut Log<'_>| {
        let known = project.networks.contains(network);
        if !known {
            let rule = "declare it under networks: at the top level";
            log.error(place, format!("{path}: there is no network {network:?}; {rule}"));
        }
        known
    };
    let Value::Map(_) = &node.value else {
        let names = section::list(&path, node, log).into_iter();
        let read = names.filter(|(place, network)| known(*place, network, log)).collect::<Vec<_>>();
        return read.into_iter().map(|(_, n)| attach(&n, Vec::new(), String::new())).collect();
    };
    let Some(entries) = Section::of(&path, node, log).map(Section::entries) else {
        return Vec::new();
    };
    let read = entries.into_iter().filter_map(|(key, node)| {
        let mut section = Section::of(&format!("{path}.{}", key.name), node, log)?;
        let aliases = section.list("aliases", log).into_iter().map(|(_, alias)| alias).collect();
        let address = section.parsed("ipv4_address", log, |text| {
            text.parse::<std::net::Ipv4Addr>()
                .map(|address| address.to_string())
                .map_err(|_| format!("{text:?} is not an IPv4 address"))
        });
        section.finish(
            &[
                "aliases",
                "ipv4_address",
                "ipv6_address",
                "link_local_ips",
                "mac_address",
                "priority",
                "gw_priority",
                "driver_opts",
                "interface_name",
            ],
            log,
        );
        known(key.place, &key.name, log)
            .then(|| attach(&key.name, aliases, address.unwrap_or_default()))
    });
    read.collect()
}
