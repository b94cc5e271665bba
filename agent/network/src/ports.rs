//! Who holds a port of the host's, for a message that helps.

use std::fs;
use std::net::IpAddr;

use crate::desired::Protocol;

/// Name and pid of the program that listens on the port: `nginx (pid 4711)`.
pub(crate) fn owner(protocol: Protocol, port: u16) -> Option<String> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/self/net/tcp", "/proc/self/net/tcp6"],
        Protocol::Udp => ["/proc/self/net/udp", "/proc/self/net/udp6"],
        Protocol::Sctp => return None,
    };
    let inode = tables.iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| listening_inode(line, protocol, port))
    })?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == &*wanted)
        });
        if holds {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim()));
        }
    }
    None
}

/// `sl local_address rem_address st … inode`; addresses are hexadecimal, state 0A listens.
fn listening_inode(line: &str, protocol: Protocol, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let matches = u16::from_str_radix(local_port, 16) == Ok(port);
    let listening = protocol != Protocol::Tcp || *fields.get(3)? == "0A";
    (matches && listening).then(|| fields.get(9).map(|&inode| inode.to_owned())).flatten()
}

/// Where a port is open: a protocol, an address and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortKey {
    pub(crate) protocol: Protocol,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
}
