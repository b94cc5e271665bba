//! The way to containers on other nodes: one VXLAN device (RFC 7348) that does not learn. Each other
//! node has an entry for its outer address and one for its inner one, each container elsewhere a
//! route to its node: state grows with nodes and containers, and not with their pairs.
//!
//! A node's inner address is its outer one, and its hardware address follows from it, so that nothing
//! has to be agreed on. Packets of a connection from outside go back by the node that it came by: its
//! first packet is marked with the node that sent it, and marked replies are routed by that node's own
//! table ([`Marks`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{Handle, LinkVxlan, NeighbourAddRequest, RouteMessageBuilder};

use crate::desired::Overlay as Wanted;
use crate::error::NetworkError;
use crate::{link, name, sysctl};

/// Shoal's number among the VXLAN networks of a host.
const VNI: u32 = 2377;
/// The nodes' port, for UDP. The one that RFC 7348 names may be somebody else's on this host.
pub(crate) const PORT: u16 = 2377;
/// What the outer headers take of a packet: Ethernet, IPv4, UDP, VXLAN.
pub(crate) const OVERHEAD: u32 = 50;
/// Marks of connections have this and the node's number.
pub(crate) const MARK: u32 = 0x5a10_0000;
pub(crate) const MARK_MASK: u32 = 0xfff0_0000;
/// Before the host's own rules for what has a mark, whatever they are.
const RULE_PRIORITY: u32 = 5200;

/// What is in force.
pub(crate) struct Overlay {
    file: PathBuf,
    marks: Marks,
    /// None until this engine has looked.
    own: Option<Ipv4Addr>,
    peers: BTreeSet<Ipv4Addr>,
    routes: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// What there should be, for [`Overlay::restore`].
    wanted: Option<Wanted>,
    /// The kernel has refused a part of it.
    incomplete: bool,
    /// Marks of nodes that have gone.
    dropped: Vec<u32>,
}

/// Each other node's number; kept in a file, as connections carry it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks(BTreeMap<Ipv4Addr, u32>);

impl Marks {
    fn read(text: &str) -> Self {
        let entries = text.lines().filter_map(|line| {
            let (address, number) = line.split_once(' ')?;
            Some((address.parse().ok()?, number.parse().ok()?))
        });
        Self(entries.collect())
    }

    fn text(&self) -> String {
        self.0.iter().map(|(address, number)| format!("{address} {number}\n")).collect()
    }

    /// Numbers for these; none is given again while it is somebody's.
    pub(crate) fn follow(&mut self, peers: &BTreeSet<Ipv4Addr>) {
        self.0.retain(|address, _| peers.contains(address));
        let mut next = 1;
        for peer in peers {
            if self.0.contains_key(peer) {
                continue;
            }
            let taken: BTreeSet<u32> = self.0.values().copied().collect();
            while taken.contains(&next) {
                next += 1;
            }
            self.0.insert(*peer, next);
        }
    }

    /// The mark of each node's connections.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, u32)> {
        self.0.iter().map(|(address, number)| (*address, MARK | number))
    }
}

impl Overlay {
    pub(crate) fn new(state_dir: &Path) -> Self {
        let file = state_dir.join("peers");
        let marks = Marks::read(&fs::read_to_string(&file).unwrap_or_default());
        Self {
            file,
            marks,
            own: None,
            peers: BTreeSet::new(),
            routes: BTreeMap::new(),
            wanted: None,
            incomplete: false,
            dropped: Vec::new(),
        }
    }

    /// Numbers for the nodes that there are, for the rules.
    pub(crate) fn number(&mut self, wanted: Option<&Wanted>) -> Result<&Marks, NetworkError> {
        let before = self.marks.clone();
        self.marks.follow(&wanted.map(|wanted| wanted.peers.clone()).unwrap_or_default());
        if self.marks != before {
            let is_gone = |mark: &u32| self.marks.iter().all(|(_, own)| own != *mark);
            self.dropped.extend(before.iter().map(|(_, mark)| mark).filter(is_gone));
            fs::write(&self.file, self.marks.text()).map_err(NetworkError::io(&self.file))?;
        }
        Ok(&self.marks)
    }

    /// Brings it about. What an engine before this one has left is taken over.
    pub(crate) async fn apply(
        &mut self,
        netlink: &Handle,
        device: &str,
        wanted: Option<&Wanted>,
    ) -> Result<(), NetworkError> {
        self.wanted = wanted.cloned();
        let done = self.follow(netlink, device, wanted).await;
        self.incomplete = done.is_err();
        done
    }

    async fn follow(
        &mut self,
        netlink: &Handle,
        device: &str,
        wanted: Option<&Wanted>,
    ) -> Result<(), NetworkError> {
        while let Some(mark) = self.dropped.last() {
            forget_way_back(netlink, *mark).await?;
            self.dropped.pop();
        }
        let Some(wanted) = wanted.filter(|wanted| !wanted.peers.is_empty()) else {
            self.own = None;
            self.peers.clear();
            self.routes.clear();
            // Also one that an engine before this one has left.
            return link::delete(netlink, device).await;
        };
        // Behind a translation of addresses it is not this host's: the kernel picks the one to send from.
        let own = wanted.own;
        let source = link::device_of(own)?.map(|_| own);
        let index = self.ensure_device(netlink, device, own, source).await?;
        for peer in wanted.peers.difference(&self.peers) {
            add_peer(netlink, index, *peer).await?;
        }
        for (peer, mark) in self.marks.iter().filter(|(peer, _)| !self.peers.contains(peer)) {
            route_back(netlink, index, peer, mark).await?;
        }
        for peer in self.peers.difference(&wanted.peers) {
            forget_peer(netlink, index, *peer).await?;
        }
        self.peers.clone_from(&wanted.peers);
        for (address, node) in &wanted.routes {
            if self.routes.get(address) != Some(node) {
                add_route(netlink, index, *address, *node, source).await?;
            }
        }
        for address in self.routes.keys().filter(|address| !wanted.routes.contains_key(*address)) {
            delete_route(netlink, index, *address).await?;
        }
        self.routes.clone_from(&wanted.routes);
        Ok(())
    }

    /// Makes the device again when somebody has taken it away, and tries again what the kernel has
    /// refused before; true when there was something to do, and it is done.
    pub(crate) async fn restore(
        &mut self,
        netlink: &Handle,
        device: &str,
    ) -> Result<bool, NetworkError> {
        let is_gone = || self.own.is_some() && link::index(device).is_err();
        if !self.incomplete && !is_gone() {
            return Ok(false);
        }
        let wanted = self.wanted.clone();
        self.apply(netlink, device, wanted.as_ref()).await.map(|()| true)
    }

    /// What the kernel refuses was told already.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    async fn ensure_device(
        &mut self,
        netlink: &Handle,
        device: &str,
        own: Ipv4Addr,
        source: Option<Ipv4Addr>,
    ) -> Result<u32, NetworkError> {
        let there = link::index(device).ok();
        if let Some(index) = there {
            if self.own == Some(own) {
                return Ok(index);
            }
            if self.own.is_none() && source.is_some() && local(netlink, index).await? == source {
                // It may have been left half made.
                bring_up(netlink, index, device).await?;
                self.own = Some(own);
                // What is not wanted any more of it is found by its routes.
                self.routes = routes(netlink, index).await?;
                return Ok(index);
            }
            link::delete(netlink, device).await?;
        }
        self.peers.clear();
        self.routes.clear();
        let what = format!("make the VXLAN device {device}; does this kernel have VXLAN?");
        let mtu = link::mtu_of(netlink, own).await?.saturating_sub(OVERHEAD);
        let mut message = LinkVxlan::new(device, VNI)
            .port(PORT)
            .learning(false)
            .address(name::hardware_address(own).to_vec())
            .mtu(mtu);
        if let Some(source) = source {
            message = message.local(source);
        }
        netlink.link().add(message.build()).execute().await.map_err(NetworkError::netlink(what))?;
        let index = link::index(device)?;
        bring_up(netlink, index, device).await?;
        self.own = Some(own);
        Ok(index)
    }

    /// Takes all of it away; nothing is wanted any more.
    pub(crate) async fn remove(
        &mut self,
        netlink: &Handle,
        device: &str,
    ) -> Result<(), NetworkError> {
        self.number(None)?;
        self.apply(netlink, device, None).await?;
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(NetworkError::Io { path: self.file.clone(), source: error })
            }
            _ => Ok(()),
        }
    }
}

async fn bring_up(netlink: &Handle, index: u32, device: &str) -> Result<(), NetworkError> {
    sysctl::set_up_overlay(device)?;
    link::set_up(netlink, index, device).await
}

/// Which address the device sends from.
async fn local(netlink: &Handle, index: u32) -> Result<Option<Ipv4Addr>, NetworkError> {
    let what = || NetworkError::netlink("look at the VXLAN device");
    let mut found = netlink.link().get().match_index(index).execute();
    let Some(message) = found.try_next().await.map_err(what())? else { return Ok(None) };
    let infos = message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let data = infos.into_iter().flatten().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    });
    Ok(data.into_iter().flatten().find_map(|one| match one {
        InfoVxlan::Local(address) => Some(address),
        _ => None,
    }))
}

/// Where the node is, outside and inside.
async fn add_peer(netlink: &Handle, index: u32, peer: Ipv4Addr) -> Result<(), NetworkError> {
    let what = || NetworkError::netlink(format!("learn of node {peer}"));
    for entry in entries(netlink, index, peer) {
        entry.replace().execute().await.map_err(what())?;
    }
    Ok(())
}

fn entries(netlink: &Handle, index: u32, peer: Ipv4Addr) -> [NeighbourAddRequest; 2] {
    let mac = name::hardware_address(peer);
    let outside = netlink.neighbours().add_bridge(index, &mac).destination(peer.into());
    let inside = netlink.neighbours().add(index, peer.into()).link_layer_address(&mac);
    [outside.flags(NeighbourFlags::Own), inside.state(NeighbourState::Permanent)]
}

/// What came by a node first goes back by it.
async fn route_back(
    netlink: &Handle,
    index: u32,
    peer: Ipv4Addr,
    mark: u32,
) -> Result<(), NetworkError> {
    let what = || NetworkError::netlink(format!("route replies by node {peer}"));
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(peer)
        .output_interface(index)
        .onlink()
        .table_id(mark)
        .build();
    netlink.route().add(route).replace().execute().await.map_err(what())?;
    let rule = netlink.rule().add().v4().fw_mark(mark).table_id(mark);
    let rule = rule.priority(RULE_PRIORITY).action(RuleAction::ToTable);
    match rule.execute().await {
        Err(error) if link::exists_already(&error) => Ok(()),
        other => other.map_err(what()),
    }
}

async fn forget_peer(netlink: &Handle, index: u32, peer: Ipv4Addr) -> Result<(), NetworkError> {
    for mut entry in entries(netlink, index, peer) {
        match netlink.neighbours().del(entry.message_mut().clone()).execute().await {
            Err(error) if link::is_missing(&error) => {}
            other => other.map_err(NetworkError::netlink(format!("forget node {peer}")))?,
        }
    }
    Ok(())
}

/// Takes away what [`route_back`] has made.
async fn forget_way_back(netlink: &Handle, mark: u32) -> Result<(), NetworkError> {
    use rtnetlink::packet_route::rule::RuleAttribute;
    let what = || NetworkError::netlink("take away a routing rule");
    let mut list = netlink.rule().get(rtnetlink::IpVersion::V4).execute();
    while let Some(message) = list.try_next().await.map_err(what())? {
        if message.attributes.contains(&RuleAttribute::FwMark(mark)) {
            netlink.rule().del(message).execute().await.map_err(what())?;
        }
    }
    let route = RouteMessageBuilder::<Ipv4Addr>::new().table_id(mark).build();
    match netlink.route().del(route).execute().await {
        Err(error) if link::is_missing(&error) => Ok(()),
        other => other.map_err(NetworkError::netlink("take away a route of replies")),
    }
}

async fn add_route(
    netlink: &Handle,
    index: u32,
    address: Ipv4Addr,
    node: Ipv4Addr,
    source: Option<Ipv4Addr>,
) -> Result<(), NetworkError> {
    let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .gateway(node)
        .output_interface(index)
        .onlink();
    // For the host's own packets: their replies find the way back by this node's address.
    if let Some(source) = source {
        route = route.pref_source(source);
    }
    let what = format!("route to {address} on node {node}");
    netlink
        .route()
        .add(route.build())
        .replace()
        .execute()
        .await
        .map_err(NetworkError::netlink(what))
}

async fn delete_route(netlink: &Handle, index: u32, address: Ipv4Addr) -> Result<(), NetworkError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .output_interface(index)
        .build();
    match netlink.route().del(route).execute().await {
        // Its container came to this node, or somebody was faster.
        Err(error) if link::is_missing(&error) => Ok(()),
        other => other.map_err(NetworkError::netlink(format!("take the route to {address}"))),
    }
}

/// The routes that an engine before this one has made. Their nodes don't matter: each that is wanted
/// is made again.
async fn routes(
    netlink: &Handle,
    index: u32,
) -> Result<BTreeMap<Ipv4Addr, Ipv4Addr>, NetworkError> {
    let all = link::routes(netlink).await?;
    let own = all.into_iter().filter(|(net, device)| *device == index && net.prefix_len() == 32);
    Ok(own.map(|(net, _)| (net.addr(), Ipv4Addr::UNSPECIFIED)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_number_and_none_is_given_twice() {
        let node = |last: u8| Ipv4Addr::new(10, 0, 0, last);
        let mut marks = Marks::default();
        marks.follow(&[node(1), node(2), node(3)].into());
        let mut again = Marks::read(&marks.text());
        assert_eq!(again, marks);
        again.follow(&[node(1), node(3), node(4)].into());
        let numbers: Vec<_> = again.iter().map(|(peer, mark)| (peer, mark - MARK)).collect();
        assert_eq!(numbers, [(node(1), 1), (node(3), 3), (node(4), 2)]);
    }
}
