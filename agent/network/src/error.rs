//! What can go wrong on a node's network.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::desired::Protocol;

/// Why something could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Another program has the port.
    #[error("port {port}/{protocol} is already in use on this node{}{}",
        on(*.address), by(.owner.as_deref()))]
    PortTaken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The address asked for; none: all.
        address: Option<IpAddr>,
        /// Name and pid of the program that has it.
        owner: Option<String>,
    },
    /// A port can't be opened for another reason.
    #[error("port {port}/{protocol}{} can't be opened: {source}", on(*.address))]
    Port {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The address asked for; none: all.
        address: Option<IpAddr>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused an interface, address or route.
    #[error("{what}: {source}")]
    Netlink {
        /// What was tried.
        what: String,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
    /// A file of the kernel's or the engine's.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The firewall program is not there.
    #[error(
        "the program nft is needed for published ports and isolation and can't be run: {0}; install the package nftables"
    )]
    NoNft(#[source] io::Error),
    /// The firewall refused the rules.
    #[error("nftables refused the rules: {0}")]
    Nft(String),
}

fn on(address: Option<IpAddr>) -> String {
    address.map(|address| format!(" (address {address})")).unwrap_or_default()
}

fn by(owner: Option<&str>) -> String {
    owner.map(|owner| format!(" by {owner}")).unwrap_or_default()
}

impl NetworkError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn netlink(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let what = what.into();
        move |source| Self::Netlink { what, source }
    }
}
