//! Puts containers on networks and takes them off, also while they run.

use std::sync::Arc;

use shoal_proto::v1::{ContainerConfig, ContainerNetwork, ContainerRecord};

use super::place::{Attached, check, is_own, networks, of_cluster};
use super::{Single, SingleError, Singles, network};
use crate::container;

impl Singles {
    /// Puts it on a further network, at once when it runs.
    pub(crate) async fn connect(
        &self,
        single: &Arc<Single>,
        wanted: ContainerNetwork,
    ) -> Result<(), SingleError> {
        let _busy = single.busy.lock().await;
        let mut config = single.record().config.unwrap_or_default();
        let mode = config.network_mode.clone();
        if mode == "host" || mode.starts_with("container:") {
            return Err(SingleError::Conflict(format!(
                "container {} has --network {mode}, and can't be on others",
                single.name()
            )));
        }
        let mut all = networks(&config);
        if all.iter().any(|one| is_same(one, &wanted)) {
            return Err(SingleError::Conflict(format!(
                "container {} is on network {} already",
                single.name(),
                wanted.network
            )));
        }
        all.push(wanted);
        config.network_mode = String::new();
        config.networks = all;
        self.rewire(single, config).await
    }

    /// Takes it off a network, at once when it runs.
    pub(crate) async fn disconnect(
        &self,
        single: &Arc<Single>,
        name: &str,
    ) -> Result<(), SingleError> {
        let _busy = single.busy.lock().await;
        let record = single.record();
        let mut config = record.config.clone().unwrap_or_default();
        let mut all = networks(&config);
        let given = ContainerNetwork { network: name.to_owned(), ..ContainerNetwork::default() };
        let by_id = of_cluster(&config).into_iter().zip(&record.networks).find(|(one, held)| {
            held.network_id == name
                || self.name_of(&held.network_id).as_deref() == Some(name)
                || one.network == name
        });
        let by_id = by_id.map(|(one, _)| one.network);
        let before = all.len();
        all.retain(|one| !is_same(one, &given) && by_id.as_ref() != Some(&one.network));
        if all.len() == before {
            return Err(SingleError::Conflict(format!(
                "container {} is not on network {name}",
                single.name()
            )));
        }
        config.network_mode = if all.is_empty() { "none" } else { "" }.to_owned();
        config.networks = all;
        self.rewire(single, config).await
    }

    fn name_of(&self, network: &str) -> Option<String> {
        self.node().told.borrow().networks.get(network).map(|network| network.name.clone())
    }

    /// Changes its networks; on a failure they are as before.
    async fn rewire(
        &self,
        single: &Arc<Single>,
        config: ContainerConfig,
    ) -> Result<(), SingleError> {
        check(&config)?;
        let before = single.record();
        let mut after = before.clone();
        after.config = Some(config.clone());
        after.networks = self.place(&after).await?;
        if networks(&config).iter().all(|one| !is_own(one)) {
            after.address.clear();
        }
        self.change(single, |record| *record = after);
        let rewired = self.rewire_now(single, &before).await;
        if rewired.is_err() {
            self.change(single, |record| *record = before.clone());
            // The first error tells more. What they are not told now they hear later.
            let _ = self.place(&before).await;
            self.apply_network().await;
        }
        rewired
    }

    async fn rewire_now(
        &self,
        single: &Arc<Single>,
        before: &ContainerRecord,
    ) -> Result<(), SingleError> {
        if !before.attached {
            return Ok(());
        }
        let failed = |error: &dyn std::fmt::Display| SingleError::Failed(error.to_string());
        let places = self.places(single).await?;
        self.apply_network().await;
        let requests = self.interfaces(&places).await?;
        let netns = format!("/proc/{}/ns/net", single.state().pid);
        let attached = self.node().network.attach(&single.id, netns.as_ref(), &requests).await;
        attached.map_err(|error| failed(&error))?;
        let config = single.record().config.unwrap_or_default();
        let shown = self.shown_places(before).into_iter().filter_map(|(_, place)| place);
        let of = |places: Vec<Attached>| container::Place {
            hostname: network::hostname(&single.id, &config),
            addresses: places.iter().map(|place| place.address).collect(),
            nameservers: places.iter().map(|place| place.network.gateway).collect(),
            ..container::Place::default()
        };
        let (before, now) = (of(shown.collect()), of(places));
        container::renew_files(self.node(), &single.id, &config, &before, &now)
            .map_err(|error| failed(&error))
    }
}

fn is_same(a: &ContainerNetwork, b: &ContainerNetwork) -> bool {
    a.network == b.network || (is_own(a) && is_own(b))
}
