//! Kernel parameters of the host's network that containers need.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::NetworkError;

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn write(path: &Path, value: &str) -> Result<(), NetworkError> {
    fs::write(path, value).map_err(NetworkError::io(path))
}

/// Turns routing on; what was before is kept in the state folder, for [`restore_forwarding`].
pub(crate) fn enable_forwarding(state: &Path) -> Result<(), NetworkError> {
    let path = Path::new(FORWARD);
    let before = fs::read_to_string(path).map_err(NetworkError::io(path))?;
    if before.trim() == "1" {
        return Ok(());
    }
    let kept = kept(state);
    if !kept.exists() {
        write(&kept, before.trim())?;
    }
    write(path, "1")
}

/// Sets routing back to what it was before this engine turned it on.
pub(crate) fn restore_forwarding(state: &Path) -> Result<(), NetworkError> {
    let kept = kept(state);
    match fs::read_to_string(&kept) {
        Ok(before) => write(Path::new(FORWARD), &before)
            .and_then(|()| fs::remove_file(&kept).map_err(NetworkError::io(&kept))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(NetworkError::Io { path: kept, source }),
    }
}

fn kept(state: &Path) -> PathBuf {
    state.join("ip_forward.before")
}

/// The VXLAN device: what comes by it may be from anywhere, when it came in by another node.
pub(crate) fn set_up_overlay(name: &str) -> Result<(), NetworkError> {
    let conf = Path::new("/proc/sys/net/ipv4/conf");
    let all = fs::read_to_string(conf.join("all/rp_filter")).unwrap_or_default();
    // The stricter of the two counts: where all devices check, this one checks loosely.
    let check = if all.trim() == "0" { "0" } else { "2" };
    for (key, value) in [("rp_filter", check), ("send_redirects", "0"), ("forwarding", "1")] {
        write(&conf.join(name).join(key), value)?;
    }
    let six = Path::new("/proc/sys/net/ipv6/conf").join(name).join("disable_ipv6");
    if six.exists() { write(&six, "1") } else { Ok(()) }
}

/// The host side of a veth: answers ARP for all that it has a route to, at once; takes packets
/// only from the address that is routed to it; never tells a container of a shorter way.
pub(crate) fn set_up_veth(name: &str) -> Result<(), NetworkError> {
    let conf = Path::new("/proc/sys/net/ipv4/conf").join(name);
    for (key, value) in
        [("proxy_arp", "1"), ("rp_filter", "1"), ("send_redirects", "0"), ("forwarding", "1")]
    {
        write(&conf.join(key), value)?;
    }
    write(&Path::new("/proc/sys/net/ipv4/neigh").join(name).join("proxy_delay"), "0")
}
