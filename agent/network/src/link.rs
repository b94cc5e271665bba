//! Interfaces, addresses and routes, over netlink.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteScope};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::error::NetworkError;

/// One interface that a container is to have.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    /// Name inside: `eth0`.
    pub(crate) inner: String,
    /// Name on the host.
    pub(crate) outer: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_length: u8,
    /// Where everything else goes; on one interface at the most.
    pub(crate) default_via: Option<Ipv4Addr>,
    /// The largest packets; none: the kernel's default.
    pub(crate) mtu: Option<u32>,
    /// Its hardware address.
    pub(crate) mac: [u8; 6],
}

/// Netlink to this process's own network namespace.
pub(crate) fn connect() -> Result<Handle, NetworkError> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(NetworkError::io(Path::new("netlink")))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The index of a device that is there.
pub(crate) fn index(device: &str) -> Result<u32, NetworkError> {
    index_of(device)
}

/// Brings a device up.
pub(crate) async fn set_up(handle: &Handle, index: u32, device: &str) -> Result<(), NetworkError> {
    let up = LinkUnspec::new_with_index(index).up().build();
    let what = format!("bring {device} up");
    handle.link().set(up).execute().await.map_err(NetworkError::netlink(what))
}

/// The largest packets of the device that has an address; as Ethernet has it where none has.
pub(crate) async fn mtu_of(handle: &Handle, address: Ipv4Addr) -> Result<u32, NetworkError> {
    const ETHERNET: u32 = 1500;
    // Loopback has larger ones than anything behind it.
    const JUMBO: u32 = 9000;
    let Some(device) = device_of(address)? else { return Ok(ETHERNET) };
    let what = NetworkError::netlink(format!("look at device {device}"));
    let mut found = handle.link().get().match_name(device).execute();
    let message = found.try_next().await.map_err(what)?;
    let mtu = message.into_iter().flat_map(|message| message.attributes).find_map(|attribute| {
        match attribute {
            LinkAttribute::Mtu(mtu) => Some(mtu),
            _ => None,
        }
    });
    Ok(mtu.unwrap_or(ETHERNET).min(JUMBO))
}

/// The device that has an address.
pub(crate) fn device_of(address: Ipv4Addr) -> Result<Option<String>, NetworkError> {
    let all = getifaddrs().map_err(|error| NetworkError::Io {
        path: Path::new("the host's addresses").to_owned(),
        source: error.into(),
    })?;
    let mut own = all.filter(|one| {
        let known = one.address.as_ref().and_then(|known| known.as_sockaddr_in());
        known.is_some_and(|known| known.ip() == address)
    });
    Ok(own.next().map(|one| one.interface_name))
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// What was to be made is there.
pub(crate) fn exists_already(error: &rtnetlink::Error) -> bool {
    errno(error) == Some(nix::errno::Errno::EEXIST as i32)
}

/// What was to go is not there.
pub(crate) fn is_missing(error: &rtnetlink::Error) -> bool {
    use nix::errno::Errno;
    errno(error)
        .is_some_and(|number| number == Errno::ESRCH as i32 || number == Errno::ENOENT as i32)
}

fn index_of(device: &str) -> Result<u32, NetworkError> {
    if_nametoindex(device).map_err(|error| NetworkError::Io {
        path: Path::new("/sys/class/net").join(device),
        source: error.into(),
    })
}

/// Makes the device for the gateway addresses, unless it is there: a bridge that nothing is plugged
/// into, which every kernel with containers has (a dummy device not).
pub(crate) async fn ensure_anchor(handle: &Handle, device: &str) -> Result<u32, NetworkError> {
    if let Ok(index) = index_of(device) {
        return Ok(index);
    }
    let what = format!("make device {device}");
    let message = LinkBridge::new(device).up().build();
    handle.link().add(message).execute().await.map_err(NetworkError::netlink(what))?;
    index_of(device)
}

/// The addresses that a device has.
pub(crate) async fn addresses(handle: &Handle, index: u32) -> Result<Vec<Ipv4Net>, NetworkError> {
    use rtnetlink::packet_route::address::AddressAttribute;
    let mut found = Vec::new();
    let mut list = handle.address().get().set_link_index_filter(index).execute();
    while let Some(message) =
        list.try_next().await.map_err(NetworkError::netlink("list addresses"))?
    {
        for attribute in &message.attributes {
            if let AddressAttribute::Local(std::net::IpAddr::V4(address)) = attribute {
                found.extend(Ipv4Net::new(*address, message.header.prefix_len));
            }
        }
    }
    Ok(found)
}

/// Gives a device an address.
pub(crate) async fn add_address(
    handle: &Handle,
    index: u32,
    address: Ipv4Net,
) -> Result<(), NetworkError> {
    let what = format!("give address {address}");
    let add = handle.address().add(index, address.addr().into(), address.prefix_len());
    add.replace().execute().await.map_err(NetworkError::netlink(what))
}

/// Takes an address from a device.
pub(crate) async fn remove_address(
    handle: &Handle,
    index: u32,
    address: Ipv4Net,
) -> Result<(), NetworkError> {
    let what = || NetworkError::netlink(format!("take address {address}"));
    let mut list = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .set_address_filter(address.addr().into())
        .execute();
    while let Some(message) = list.try_next().await.map_err(what())? {
        handle.address().del(message).execute().await.map_err(what())?;
    }
    Ok(())
}

/// Makes a pair of interfaces, one end in the container, with its route on the host.
pub(crate) async fn add_veth(
    handle: &Handle,
    netns: &OwnedFd,
    interface: &Interface,
) -> Result<(), NetworkError> {
    let mut inner = LinkMessageBuilder::<LinkUnspec>::new()
        .name(interface.inner.clone())
        .address(interface.mac.to_vec())
        .setns_by_fd(netns.as_raw_fd());
    let mut pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(interface.outer.clone());
    if let Some(mtu) = interface.mtu {
        (inner, pair) = (inner.mtu(mtu), pair.mtu(mtu));
    }
    let pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(inner.build()))).up().build();
    let what = format!("make interface {}", interface.outer);
    handle.link().add(pair).execute().await.map_err(NetworkError::netlink(what))?;
    let index = index_of(&interface.outer)?;
    crate::sysctl::set_up_veth(&interface.outer)?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(interface.address, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    let what = format!("route to {}", interface.address);
    handle.route().add(route).replace().execute().await.map_err(NetworkError::netlink(what))
}

/// Sets the container's side up: addresses, and the way out. Works in a thread of its own, which
/// enters the container's network namespace and ends with it.
pub(crate) async fn set_up_inside(
    netns: OwnedFd,
    interfaces: Vec<Interface>,
) -> Result<(), NetworkError> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    let work = move || {
        let enter = || {
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok::<_, std::io::Error>(runtime)
        };
        let result = match enter() {
            Ok(runtime) => runtime.block_on(configure(&interfaces)),
            Err(source) => {
                Err(NetworkError::Io { path: Path::new("/proc/self/ns/net").to_owned(), source })
            }
        };
        // The caller gave up: there is nobody to tell.
        let _ = done.send(result);
    };
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(work)
        .map_err(NetworkError::io(Path::new("netns thread")))?;
    outcome.await.unwrap_or_else(|_| {
        let source = std::io::Error::other("the thread ended early");
        Err(NetworkError::Io { path: Path::new("netns thread").to_owned(), source })
    })
}

async fn configure(interfaces: &[Interface]) -> Result<(), NetworkError> {
    let handle = connect()?;
    let up = LinkUnspec::new_with_index(index_of("lo")?).up().build();
    handle.link().set(up).execute().await.map_err(NetworkError::netlink("bring lo up"))?;
    for interface in interfaces {
        let index = index_of(&interface.inner)?;
        let address = Ipv4Net::new_assert(interface.address, interface.prefix_length);
        add_address(&handle, index, address).await?;
        // Not with its creation: a veth can't be up before it knows its peer.
        let up = LinkUnspec::new_with_index(index).up().build();
        let what = format!("bring {} up", interface.inner);
        handle.link().set(up).execute().await.map_err(NetworkError::netlink(what))?;
        if let Some(gateway) = interface.default_via {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .build();
            let what = format!("default route by {gateway}");
            let add = handle.route().add(route).replace().execute();
            add.await.map_err(NetworkError::netlink(what))?;
        }
    }
    Ok(())
}

/// Takes a device away; fine when it is not there.
pub(crate) async fn delete(handle: &Handle, device: &str) -> Result<(), NetworkError> {
    let Ok(index) = if_nametoindex(device) else { return Ok(()) };
    let gone = || if_nametoindex(device).is_err();
    match handle.link().del(index).execute().await {
        Err(_) if gone() => Ok(()),
        other => other.map_err(NetworkError::netlink(format!("delete device {device}"))),
    }
}

/// Names of all devices by their index.
pub(crate) async fn devices(handle: &Handle) -> Result<Vec<(u32, String)>, NetworkError> {
    let mut found = Vec::new();
    let mut list = handle.link().get().execute();
    while let Some(message) =
        list.try_next().await.map_err(NetworkError::netlink("list devices"))?
    {
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        found.extend(name.map(|name| (message.header.index, name)));
    }
    Ok(found)
}

/// Destinations that the host has routes to, each with its device; default routes left out.
pub(crate) async fn routes(handle: &Handle) -> Result<Vec<(Ipv4Net, u32)>, NetworkError> {
    let mut found = Vec::new();
    let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut list = handle.route().get(filter).execute();
    while let Some(message) = list.try_next().await.map_err(NetworkError::netlink("list routes"))? {
        if message.header.table != RouteHeader::RT_TABLE_MAIN {
            continue;
        }
        let mut destination = None;
        let mut device = 0;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                    destination = Some(*address);
                }
                RouteAttribute::Oif(index) => device = *index,
                _ => {}
            }
        }
        let length = message.header.destination_prefix_length;
        if let Some(net) = destination.and_then(|address| Ipv4Net::new(address, length).ok())
            && length > 0
        {
            found.push((net, device));
        }
    }
    Ok(found)
}
