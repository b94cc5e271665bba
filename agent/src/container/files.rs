//! The three files that Docker users expect to be the container's own: /etc/hostname, /etc/hosts
//! and /etc/resolv.conf.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What the files say.
pub(crate) struct Names<'a> {
    pub(crate) hostname: &'a str,
    pub(crate) domainname: &'a str,
    /// `NAME=ADDRESS`
    pub(crate) extra_hosts: &'a [String],
    pub(crate) addresses: &'a [Ipv4Addr],
    pub(crate) nameservers: &'a [Ipv4Addr],
    /// Asked instead of the nameservers.
    pub(crate) dns: &'a [String],
    pub(crate) search: &'a [String],
    pub(crate) options: &'a [String],
    /// Uses the host's network, and so its names.
    pub(crate) of_the_host: bool,
}

/// Writes them; returns where each is, with the path it is to have in the container.
pub(crate) fn write(dir: &Path, names: &Names<'_>) -> io::Result<Vec<(PathBuf, &'static str)>> {
    fs::create_dir_all(dir)?;
    let files = [
        ("hostname", "/etc/hostname", format!("{}\n", names.hostname)),
        ("hosts", "/etc/hosts", hosts(names)),
        ("resolv.conf", "/etc/resolv.conf", resolv_conf(names)),
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

/// Brings those that are as `before` has them to what `now` has; others are somebody's own. They stay
/// the same files: they are mounted.
pub(crate) fn renew(dir: &Path, before: &Names<'_>, now: &Names<'_>) -> io::Result<()> {
    for (name, before, now) in [
        ("hosts", hosts(before), hosts(now)),
        ("resolv.conf", resolv_conf(before), resolv_conf(now)),
    ] {
        let path = dir.join(name);
        if fs::read_to_string(&path)? == before {
            fs::write(&path, now)?;
        }
    }
    Ok(())
}

fn hosts(names: &Names<'_>) -> String {
    let mut text = match names.of_the_host {
        true => fs::read_to_string("/etc/hosts").unwrap_or_default(),
        false => "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned(),
    };
    for extra in names.extra_hosts {
        if let Some((name, address)) = extra.split_once('=') {
            // The node, as seen from the container.
            let gateway = names.nameservers.first().map(ToString::to_string);
            let address = match (address, gateway) {
                ("host-gateway", Some(gateway)) => gateway,
                (address, _) => address.to_owned(),
            };
            text.push_str(&format!("{address}\t{name}\n"));
        }
    }
    if let Some(own) = names.addresses.first() {
        let hostname = names.hostname;
        match names.domainname {
            "" => text.push_str(&format!("{own}\t{hostname}\n")),
            domain => text.push_str(&format!("{own}\t{hostname}.{domain} {hostname}\n")),
        }
    }
    text
}

/// The node answers on each network's gateway. Without a network there is nobody to ask.
fn resolv_conf(names: &Names<'_>) -> String {
    let mut text = String::new();
    if !names.dns.is_empty() {
        names.dns.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
    } else if names.of_the_host {
        text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    } else if let Some(server) = names.nameservers.first() {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !names.search.is_empty() {
        text.push_str(&format!("search {}\n", names.search.join(" ")));
    }
    if !names.options.is_empty() {
        text.push_str(&format!("options {}\n", names.options.join(" ")));
    } else if !names.of_the_host {
        text.push_str("options ndots:0\n");
    }
    text
}
