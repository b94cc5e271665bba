//! Makes a container: everything that can be refused is refused here, before anything starts.

use std::str::FromStr;
use std::sync::Arc;

use shoal_image::{Image, Platform, Reference};
use shoal_proto::TaskId;
use shoal_proto::v1::{
    ContainerConfig, ContainerRecord, ContainerRestart, ContainerStateInfo, CreateContainerRequest,
};

use super::{Single, SingleError, Singles, lock, name, network, now, place};
use crate::container;
use crate::identity::random_bits;

impl Singles {
    pub(crate) async fn create(
        &self,
        request: CreateContainerRequest,
    ) -> Result<Arc<Single>, SingleError> {
        let mut config = request.config.unwrap_or_default();
        let spec = config.spec.clone().unwrap_or_default();
        let image = self.image(&spec.image, &request.pull).await?;
        check(&config)?;
        container::check(self.node(), &config, &image.config).map_err(SingleError::Invalid)?;
        self.namespaces(&config)?;
        place::check(&config)?;
        network::check_ports(&config)?;
        let bits = random_bits().map_err(|error| SingleError::Failed(error.to_string()))?;
        // The form of tasks' ids: both name containers.
        let id = TaskId::from_bits(bits).to_string();
        let naming = self.shared.naming.lock().await;
        if config.name.is_empty() {
            config.name = name::make_up(bits, |name| self.is_taken(name));
        } else {
            name::check(&config.name).map_err(SingleError::Invalid)?;
            if let Ok(other) = self.find(&config.name)
                && other.name() == config.name
            {
                return Err(SingleError::Conflict(format!(
                    "the name {:?} is that of container {}; remove or rename that first",
                    config.name,
                    short(&other.id)
                )));
            }
        }
        let _being_made = BeingMade::new(self, &id);
        let image_config = image.config.to_string().unwrap_or_default();
        let image_config = match &image.health_check {
            None => image_config,
            // Docker's addition, which the OCI's types leave out.
            Some(check) => with_health_check(&image_config, check),
        };
        let mut record = ContainerRecord {
            id: id.clone(),
            config: Some(config),
            created_at: now(),
            state: Some(ContainerStateInfo::default()),
            image_id: image.id.to_string(),
            image_config,
            ..ContainerRecord::default()
        };
        record.networks = self.place(&record).await?;
        let failed = |error: shoal_image::ImageError| SingleError::Failed(error.to_string());
        self.node().images.prepare_snapshot(&id, &image).await.map_err(failed)?;
        if let Err(error) = self.shared.store.save(&record) {
            // The first error tells more than one from cleaning up.
            let _ = self.node().images.remove_snapshot(&id).await;
            return Err(SingleError::Failed(format!("can't keep the container on disk: {error}")));
        }
        let single = Single::new(record);
        lock(&self.shared.list).insert(id.clone(), single.clone());
        drop(naming);
        Ok(single)
    }

    pub(super) fn is_taken(&self, name: &str) -> bool {
        self.all().iter().any(|one| one.name() == name)
    }

    async fn image(&self, name: &str, pull: &str) -> Result<Image, SingleError> {
        let invalid = |error: &dyn std::fmt::Display| SingleError::Invalid(error.to_string());
        let images = &self.node().images;
        let here = images.resolve(name).await.map_err(|error| invalid(&error))?;
        let reference = || Reference::from_str(name).map_err(|error| invalid(&error));
        match (pull, here) {
            ("" | "missing" | "never", Some(image)) => Ok(image),
            ("never", None) => Err(SingleError::Failed(format!("no such image: {name}"))),
            ("" | "missing", None) | ("always", _) => images
                .pull(&reference()?, &Platform::host(), |_| {})
                .await
                .map_err(|error| SingleError::Failed(error.to_string())),
            (other, _) => Err(SingleError::Invalid(format!(
                "pull policy {other:?} is unknown; there are missing, always and never"
            ))),
        }
    }

    pub(crate) async fn rename(&self, single: &Single, name: &str) -> Result<(), SingleError> {
        let _naming = self.shared.naming.lock().await;
        name::check(name).map_err(SingleError::Invalid)?;
        if self.is_taken(name) {
            return Err(SingleError::Conflict(format!("the name {name:?} is taken")));
        }
        self.change(single, |record| {
            record.config.get_or_insert_default().name = name.to_owned();
        });
        self.apply_network().await;
        self.shared.placing.notify_one();
        Ok(())
    }
}

/// Until it is dropped the managers may know of the container before its record is there; after it
/// they forget one that has none.
struct BeingMade<'a> {
    singles: &'a Singles,
    id: &'a str,
}

impl<'a> BeingMade<'a> {
    fn new(singles: &'a Singles, id: &'a str) -> Self {
        lock(&singles.shared.being_made).insert(id.to_owned());
        Self { singles, id }
    }
}

impl Drop for BeingMade<'_> {
    fn drop(&mut self) {
        lock(&self.singles.shared.being_made).remove(self.id);
        self.singles.shared.placing.notify_one();
    }
}

fn check(config: &ContainerConfig) -> Result<(), SingleError> {
    let restart = config.restart.unwrap_or_default();
    if config.auto_remove && restart.condition() != ContainerRestart::No {
        return Err(SingleError::Invalid(
            "a container that is removed when it ends (--rm) can't be restarted (--restart)"
                .to_owned(),
        ));
    }
    Ok(())
}

fn with_health_check(config: &str, check: &shoal_image::HealthCheck) -> String {
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(config) else {
        return config.to_owned();
    };
    let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(0);
    value["config"]["Healthcheck"] = serde_json::json!({
        "Test": check.test,
        "Interval": nanos(check.interval),
        "Timeout": nanos(check.timeout),
        "StartPeriod": nanos(check.start_period),
        "StartInterval": nanos(check.start_interval),
        "Retries": check.retries,
    });
    value.to_string()
}

/// The beginning of an id that is enough for people.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}
