//! A node's network as one handle: brings about what is desired, attaches containers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use rtnetlink::Handle;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

use crate::desired::{Desired, Network, PublishedPort};
use crate::dns::{self, Dns};
use crate::error::NetworkError;
use crate::guard::{self, Seal};
use crate::link::{self, Interface};
use crate::name::Names;
use crate::overlay::{OVERHEAD, Overlay};
use crate::proxy::Proxy;
use crate::record::{self, Recorded};
use crate::ruleset::Rules;
use crate::{flows, name, nft, ruleset, sysctl};

/// What an engine works with.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Tells the agents of one machine apart; empty for the usual one.
    pub instance: String,
    /// A folder of the engine's own, gone after a reboot.
    pub state_dir: PathBuf,
    /// Where the host's resolvers stand.
    pub resolv_conf: PathBuf,
}

/// An interface for a container.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// On this network.
    pub network: Network,
    /// With this address.
    pub address: Ipv4Addr,
    /// The largest packets; none: the kernel's default.
    pub mtu: Option<u32>,
    /// Its hardware address; none: made of the address.
    pub mac: Option<[u8; 6]>,
}

/// What of a desired state could not be brought about while the rest was.
#[derive(Debug, Default)]
pub struct ApplyReport {
    /// Ports that something else holds.
    pub ports: Vec<NetworkError>,
    /// Why containers on other nodes can't be reached.
    pub overlay: Option<NetworkError>,
}

/// A handle; clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    config: EngineConfig,
    names: Names,
    netlink: Handle,
    /// Rules, addresses and zones change one state at a time.
    applied: Mutex<Applied>,
    proxy: Mutex<Proxy>,
    /// Containers whose interfaces are being taken away.
    detaching: Mutex<BTreeMap<String, JoinHandle<()>>>,
    overlay_mtu: OnceCell<u32>,
}

struct Applied {
    /// None until this engine has put its first state in force: a table may be there from before.
    rules: Option<Rules>,
    /// There is no table.
    bare: bool,
    elements: nft::Connection,
    dns: Dns,
    overlay: Overlay,
    seal: Seal,
    /// Where services' addresses and published ports lead to.
    endpoints: BTreeSet<Ipv4Addr>,
}

/// How a container's interfaces change.
struct Plan {
    gone: Vec<Recorded>,
    kept: Vec<Recorded>,
    new: Vec<Recorded>,
    /// All that there are to be.
    interfaces: Vec<Interface>,
}

impl Engine {
    /// Takes over what an engine before this one has left. Nothing changes until [`Self::apply`].
    ///
    /// # Errors
    /// The host has no nftables, or the state folder can't be used.
    pub async fn open(config: EngineConfig) -> Result<Self, NetworkError> {
        nft::check().await?;
        let dir = config.state_dir.join("containers");
        fs::create_dir_all(&dir).map_err(NetworkError::io(&dir))?;
        let netlink = link::connect()?;
        let names = Names::new(&config.instance);
        let dns = Dns::new(config.resolv_conf.clone());
        let shared = Shared {
            names,
            netlink,
            applied: Mutex::new(Applied {
                rules: None,
                bare: false,
                elements: nft::Connection::default(),
                dns,
                overlay: Overlay::new(&config.state_dir),
                seal: Seal::default(),
                endpoints: BTreeSet::new(),
            }),
            proxy: Mutex::new(Proxy::new()),
            detaching: Mutex::default(),
            overlay_mtu: OnceCell::new(),
            config,
        };
        let engine = Self { shared: Arc::new(shared) };
        tokio::spawn(guard::run(engine.clone()));
        Ok(engine)
    }

    /// Makes the rules anew when somebody else has changed or taken them away.
    pub(crate) async fn guard(&self) {
        let mut applied = self.shared.applied.lock().await;
        let Shared { netlink, names, .. } = &*self.shared;
        let was_told = applied.overlay.is_incomplete();
        match applied.overlay.restore(netlink, &names.overlay()).await {
            Ok(false) => {}
            Ok(true) if was_told => {
                tracing::info!("containers on other nodes can be reached again")
            }
            Ok(true) => tracing::warn!("somebody had taken the VXLAN device away; it is made anew"),
            Err(_) if was_told => {}
            Err(error) => tracing::error!(%error, "the VXLAN device is gone"),
        }
        let Some(rules) = applied.rules.clone().filter(|_| !applied.bare) else { return };
        let table = self.shared.names.table();
        if !guard::is_broken(&mut applied.seal, &table).await {
            return;
        }
        match nft::apply(&rules.script()).await {
            Ok(()) => tracing::warn!(table, "somebody had changed the rules; they are made anew"),
            Err(error) => tracing::error!(table, %error, "the rules were changed and stay so"),
        }
        applied.seal.renew();
        // Now, so that others who change their own rules all the time don't hide how it looks.
        if guard::is_broken(&mut applied.seal, &table).await {
            tracing::debug!(table, "the rules change all the time");
        }
    }

    /// What the rules are made with.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        "nftables"
    }

    /// Brings the state about. Rules change in one transaction; applying the same state again
    /// costs nothing.
    ///
    /// # Errors
    /// The kernel refuses. The state before stays in force then, as far as it can.
    pub async fn apply(&self, desired: &Desired) -> Result<ApplyReport, NetworkError> {
        let mut applied = self.shared.applied.lock().await;
        let others = desired.overlay.as_ref();
        let marks = applied.overlay.number(others)?.clone();
        let rules = ruleset::rules(&self.shared.names, desired, &marks, dns::PORT);
        if desired.networks.is_empty() && (applied.bare || applied.rules.is_none()) {
            if !applied.bare {
                nft::delete_table(&self.shared.names.table()).await?;
                applied.bare = true;
            }
        } else if applied.rules.as_ref() != Some(&rules) {
            self.put_in_force(&mut applied, &rules, desired).await?;
            applied.rules = Some(rules);
            applied.bare = false;
            applied.seal.renew();
        }
        let Shared { netlink, names, .. } = &*self.shared;
        // This node's own containers go on without the others.
        let overlay = applied.overlay.apply(netlink, &names.overlay(), others).await.err();
        applied.dns.apply(desired);
        let services = desired.services.iter().flat_map(|service| &service.endpoints);
        let now: BTreeSet<Ipv4Addr> =
            services.flat_map(|endpoint| endpoint.addresses.values().copied()).collect();
        let gone: BTreeSet<Ipv4Addr> = applied.endpoints.difference(&now).copied().collect();
        applied.endpoints = now;
        if !gone.is_empty() {
            // They end by themselves some time later, should it fail.
            tokio::task::spawn_blocking(move || match flows::forget(&gone) {
                Ok(count) => tracing::debug!(count, "UDP flows go elsewhere"),
                Err(error) => {
                    tracing::warn!(%error, "UDP flows stay with endpoints that have gone")
                }
            });
        }
        drop(applied);
        let ports = self.shared.proxy.lock().await.apply(desired).await;
        Ok(ApplyReport { ports, overlay })
    }

    /// Containers and endpoints come and go by themselves; everything else replaces the table.
    async fn put_in_force(
        &self,
        applied: &mut Applied,
        rules: &Rules,
        desired: &Desired,
    ) -> Result<(), NetworkError> {
        if let Some(before) = applied.rules.clone()
            && let Some(change) = rules.change_from(&before)
        {
            match self.change(applied, &before, rules, &change).await {
                Ok(()) => return Ok(()),
                // Somebody has changed the table: it is made anew.
                Err(error) => tracing::info!(%error, "the table is not as it was left"),
            }
        }
        self.ensure_gateways(desired).await?;
        nft::apply(&rules.script()).await
    }

    async fn change(
        &self,
        applied: &mut Applied,
        before: &Rules,
        rules: &Rules,
        change: &str,
    ) -> Result<(), NetworkError> {
        let table = &self.shared.names.table();
        let keys = |from: &Rules, without: &Rules| -> Vec<Vec<u8>> {
            from.own.difference(&without.own).map(|own| ruleset::own_key(*own)).collect()
        };
        let set = nft::Set { table, name: ruleset::OWN };
        let (out, into) = (keys(before, rules), keys(rules, before));
        if !out.is_empty() || !into.is_empty() {
            let changed = applied.elements.change(set, &out, &into);
            changed.map_err(|error| NetworkError::Nft(error.to_string()))?;
        }
        match change {
            "" => Ok(()),
            change => nft::apply(change).await,
        }
    }

    /// The gateway addresses, each with its subnet's route, on the engine's own device.
    async fn ensure_gateways(&self, desired: &Desired) -> Result<(), NetworkError> {
        let Shared { netlink, names, config, .. } = &*self.shared;
        sysctl::enable_forwarding(&config.state_dir)?;
        let index = link::ensure_anchor(netlink, &names.anchor()).await?;
        let wanted: Vec<Ipv4Net> = desired
            .networks
            .iter()
            .map(|network| Ipv4Net::new_assert(network.gateway, network.subnet.prefix_len()))
            .collect();
        let present = link::addresses(netlink, index).await?;
        for address in wanted.iter().filter(|address| !present.contains(address)) {
            link::add_address(netlink, index, *address).await?;
        }
        for address in present.into_iter().filter(|address| !wanted.contains(address)) {
            link::remove_address(netlink, index, address).await?;
        }
        Ok(())
    }

    /// The largest packets that reach containers on other nodes, of a node that they find there.
    ///
    /// # Errors
    /// The devices can't be listed.
    pub async fn overlay_mtu(&self, own: Ipv4Addr) -> Result<u32, NetworkError> {
        let look = async {
            let outer = link::mtu_of(&self.shared.netlink, own).await?;
            Ok(outer.saturating_sub(OVERHEAD))
        };
        // It is asked for with each container.
        self.shared.overlay_mtu.get_or_try_init(|| look).await.copied()
    }

    /// Opens ports ahead of a task's start, so that a conflict is found before it runs.
    ///
    /// # Errors
    /// A port is something else's; none is claimed then.
    pub async fn claim_ports(
        &self,
        owner: &str,
        ports: &[PublishedPort],
    ) -> Result<(), NetworkError> {
        self.shared.proxy.lock().await.claim(owner, ports).await
    }

    /// The same for further ports of one that has claimed some: those stay on an error.
    ///
    /// # Errors
    /// A port is something else's.
    pub async fn claim_more(
        &self,
        owner: &str,
        ports: &[PublishedPort],
    ) -> Result<(), NetworkError> {
        self.shared.proxy.lock().await.claim_more(owner, ports).await
    }

    /// Gives claimed ports up; those that a desired state has stay open.
    pub async fn release_ports(&self, owner: &str) {
        self.shared.proxy.lock().await.release(owner);
    }

    /// Gives a container these interfaces and no others: `eth0` and so on in the order of the
    /// requests, and the default route by the first network that has a way out. What it has already
    /// stays as it is.
    ///
    /// # Errors
    /// The kernel refuses; the container has none of the new interfaces then.
    pub async fn attach(
        &self,
        container: &str,
        netns: &Path,
        requests: &[AttachRequest],
    ) -> Result<(), NetworkError> {
        self.settle(container).await;
        let namespace: OwnedFd = fs::File::open(netns).map_err(NetworkError::io(netns))?.into();
        let path = self.record(container);
        let before = match fs::read_to_string(&path) {
            Ok(text) => record::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(NetworkError::Io { path, source }),
        };
        let plan = self.plan(container, &before, requests);
        let all = [plan.gone.as_slice(), plan.kept.as_slice(), plan.new.as_slice()].concat();
        // Before they are there: an agent that starts anew finds what this one has made.
        fs::write(&path, record::text(&all)).map_err(NetworkError::io(&path))?;
        let attached = self.attach_all(namespace, &plan).await;
        match &attached {
            Ok(()) => {
                let stays = [plan.kept.as_slice(), plan.new.as_slice()].concat();
                fs::write(&path, record::text(&stays)).map_err(NetworkError::io(&path))?;
            }
            Err(_) if before.is_empty() => {
                if let Err(error) = self.detach(container).await {
                    tracing::warn!(container.id = container, %error, "left over from a failed attach");
                }
                self.settle(container).await;
            }
            Err(_) => {
                for made in &plan.new {
                    link::delete(&self.shared.netlink, &made.outer).await?;
                }
                let stays = [plan.gone.as_slice(), plan.kept.as_slice()].concat();
                fs::write(&path, record::text(&stays)).map_err(NetworkError::io(&path))?;
            }
        }
        attached
    }

    fn plan(&self, container: &str, before: &[Recorded], requests: &[AttachRequest]) -> Plan {
        let wanted = |one: &Recorded| requests.iter().any(|r| r.network.id == one.network);
        let (kept, gone): (Vec<Recorded>, Vec<Recorded>) = before.iter().cloned().partition(wanted);
        let way_out = requests.iter().position(|request| !request.network.internal);
        let mut plan = Plan { gone, kept, new: Vec::new(), interfaces: Vec::new() };
        for (number, request) in requests.iter().enumerate() {
            let network = &request.network;
            let known = plan.kept.iter().find(|one| one.network == network.id).cloned();
            let own = known.unwrap_or_else(|| {
                let made = Recorded {
                    outer: self.shared.names.veth(container, &network.id),
                    inner: record::free_name(plan.kept.iter().chain(&plan.new)),
                    network: network.id.clone(),
                };
                plan.new.push(made.clone());
                made
            });
            plan.interfaces.push(Interface {
                inner: own.inner,
                outer: own.outer,
                address: request.address,
                prefix_length: network.subnet.prefix_len(),
                default_via: (way_out == Some(number)).then_some(network.gateway),
                mtu: request.mtu,
                mac: request.mac.unwrap_or_else(|| name::hardware_address(request.address)),
            });
        }
        plan
    }

    async fn attach_all(&self, namespace: OwnedFd, plan: &Plan) -> Result<(), NetworkError> {
        let is_new =
            |interface: &&Interface| plan.new.iter().any(|made| made.outer == interface.outer);
        for interface in plan.interfaces.iter().filter(is_new) {
            link::add_veth(&self.shared.netlink, &namespace, interface).await?;
        }
        for gone in &plan.gone {
            link::delete(&self.shared.netlink, &gone.outer).await?;
        }
        link::set_up_inside(namespace, plan.interfaces.clone()).await
    }

    fn record(&self, container: &str) -> PathBuf {
        self.shared.config.state_dir.join("containers").join(container)
    }

    /// Takes a container's interfaces away; fine when it has none. The kernel takes tens of
    /// milliseconds to let go of a device, which happens after the return.
    ///
    /// # Errors
    /// The record of them can't be read.
    pub async fn detach(&self, container: &str) -> Result<(), NetworkError> {
        let path = self.record(container);
        let record = match fs::read_to_string(&path) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(NetworkError::Io { path, source }),
        };
        let mut detaching = self.shared.detaching.lock().await;
        detaching.retain(|_, work| !work.is_finished());
        if detaching.contains_key(container) {
            return Ok(());
        }
        let netlink = self.shared.netlink.clone();
        let id = container.to_owned();
        let work = tokio::spawn(async move {
            for device in record::parse(&record) {
                if let Err(error) = link::delete(&netlink, &device.outer).await {
                    tracing::warn!(container.id = id, %error, "an interface stays");
                    return;
                }
            }
            // Only now: an agent that starts anew finds what this one did not get to.
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(container.id = id, %error, "a record of interfaces stays");
            }
        });
        detaching.insert(container.to_owned(), work);
        Ok(())
    }

    /// Waits until interfaces of an earlier run, whose names are the same, are gone.
    async fn settle(&self, container: &str) {
        let work = self.shared.detaching.lock().await.remove(container);
        if let Some(work) = work {
            // What went wrong in it is logged there.
            let _ = work.await;
        }
    }

    /// The containers that were attached and not detached, by whichever engine.
    ///
    /// # Errors
    /// The state folder can't be read.
    pub fn containers(&self) -> Result<Vec<String>, NetworkError> {
        let dir = self.shared.config.state_dir.join("containers");
        let read = fs::read_dir(&dir).map_err(NetworkError::io(&dir))?;
        Ok(read.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// What the host has routes to by devices that are not this engine's: no network of the
    /// cluster may have these addresses.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn host_routes(&self) -> Result<Vec<Ipv4Net>, NetworkError> {
        // Of its own: a connection tells one list at a time.
        let netlink = link::connect()?;
        let devices: BTreeMap<u32, String> = link::devices(&netlink).await?.into_iter().collect();
        let foreign =
            |device: &u32| devices.get(device).is_none_or(|name| !self.shared.names.is_own(name));
        let routes = link::routes(&netlink).await?.into_iter();
        Ok(routes.filter(|(_, device)| foreign(device)).map(|(net, _)| net).collect())
    }

    /// Makes the host as it was before the first engine: for a node without containers.
    ///
    /// # Errors
    /// The first thing that can't be undone; the rest is undone all the same.
    pub async fn remove_all(&self) -> Result<(), NetworkError> {
        let pending = std::mem::take(&mut *self.shared.detaching.lock().await);
        for work in pending.into_values() {
            // What went wrong in it is logged there.
            let _ = work.await;
        }
        let mut applied = self.shared.applied.lock().await;
        self.shared.proxy.lock().await.apply(&Desired::default()).await;
        applied.dns.apply(&Desired::default());
        applied.rules = None;
        applied.bare = false;
        let Shared { netlink, names, .. } = &*self.shared;
        let overlay = applied.overlay.remove(netlink, &names.overlay()).await;
        let table = nft::delete_table(&self.shared.names.table()).await;
        let mut devices = Ok(());
        for (_, device) in link::devices(&self.shared.netlink).await? {
            if self.shared.names.is_own(&device) {
                devices = devices.and(link::delete(&self.shared.netlink, &device).await);
            }
        }
        let forwarding = sysctl::restore_forwarding(&self.shared.config.state_dir);
        table.and(overlay).and(devices).and(forwarding)
    }
}
