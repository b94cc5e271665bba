//! The three files that Docker users expect to be the container's own: /etc/hostname, /etc/hosts
//! and /etc/resolv.conf.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use shoal_proto::v1::ContainerSpec;

/// Writes them; returns where each is, with the path it is to have in the container.
pub(super) fn write(
    dir: &Path,
    hostname: &str,
    spec: &ContainerSpec,
    addresses: &[Ipv4Addr],
    nameservers: &[Ipv4Addr],
) -> io::Result<Vec<(PathBuf, &'static str)>> {
    fs::create_dir_all(dir)?;
    let files = [
        ("hostname", "/etc/hostname", format!("{hostname}\n")),
        ("hosts", "/etc/hosts", hosts(hostname, spec, addresses)),
        ("resolv.conf", "/etc/resolv.conf", resolv_conf(nameservers)),
    ];
    files
        .into_iter()
        .map(|(name, target, text)| {
            let path = dir.join(name);
            fs::write(&path, text)?;
            Ok((path, target))
        })
        .collect()
}

fn hosts(hostname: &str, spec: &ContainerSpec, addresses: &[Ipv4Addr]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for extra in &spec.extra_hosts {
        if let Some((name, address)) = extra.split_once('=') {
            text.push_str(&format!("{address}\t{name}\n"));
        }
    }
    if let Some(own) = addresses.first() {
        text.push_str(&format!("{own}\t{hostname}\n"));
    }
    text
}

/// The node answers on each network's gateway. Without a network there is nobody to ask.
fn resolv_conf(nameservers: &[Ipv4Addr]) -> String {
    let mut text = String::new();
    if let Some(server) = nameservers.first() {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text.push_str("options ndots:0\n");
    text
}
