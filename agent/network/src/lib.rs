//! A node's network: interfaces, addresses and routes of containers, the firewall's maps (VIPs,
//! published ports, isolation), the proxy for loopback, and DNS.
//!
//! Routed, not bridged: each interface of a container is a veth whose host side answers ARP for
//! the subnet; the kernel routes every packet between containers. What should be is one value,
//! [`Desired`]; rules and zones are computed from it as data and put in force whole.

mod desired;
mod dns;
mod engine;
mod error;
mod flows;
mod guard;
mod link;
mod name;
mod nft;
mod overlay;
mod ports;
mod proxy;
mod record;
mod ruleset;
mod sticky;
mod sysctl;

pub use desired::{
    Attachment, Container, Desired, Endpoint, Network, NetworkId, Overlay, PortMode, Protocol,
    PublishedPort, Service,
};
pub use engine::{ApplyReport, AttachRequest, Engine, EngineConfig};
pub use error::NetworkError;
pub use name::hardware_address;
