//! Imports: an image of one layer, made of a root file system's tar archive.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use oci_spec::image::{
    Arch, Config, Descriptor, HistoryBuilder, ImageConfiguration, ImageManifest,
    ImageManifestBuilder, MediaType, Os, RootFs,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::Image;
use crate::intake::{IntakeError, receive};
use crate::layer::{Expected, Feed, Unpacked};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{ImageStore, Inner, Lease, Record};

const PIECE: usize = 256 << 10;
const PIECES: usize = 8;

/// What to make of an archive. Empty lists and nothings are left out of the image.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The name and tag that the image gets.
    pub reference: Reference,
    /// Arguments of the entrypoint, or the command if there is none.
    pub cmd: Vec<String>,
    /// What to run.
    pub entrypoint: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// `8080/tcp`; tcp if it says nothing.
    pub expose: Vec<String>,
    /// Where to run it.
    pub working_dir: Option<String>,
    /// `USER[:GROUP]`, names or numbers.
    pub user: Option<String>,
    /// Anything.
    pub labels: BTreeMap<String, String>,
    /// What it runs on.
    pub platform: Platform,
}

impl ImportOptions {
    /// An image for this host with nothing set.
    #[must_use]
    pub fn new(reference: Reference) -> Self {
        Self {
            reference,
            cmd: Vec::new(),
            entrypoint: Vec::new(),
            env: Vec::new(),
            expose: Vec::new(),
            working_dir: None,
            user: None,
            labels: BTreeMap::new(),
            platform: Platform::host(),
        }
    }

    fn check(&self) -> Result<(), ImageError> {
        if self.reference.digest().is_some() {
            return Err(ImageError::ImportDigest(self.reference.clone()));
        }
        match self.env.iter().find(|entry| entry.find('=').is_none_or(|at| at == 0)) {
            Some(entry) => Err(ImageError::Environment(entry.clone())),
            None => Ok(()),
        }
    }

    fn config(&self) -> Result<Config, ImageError> {
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let ports = self.expose.iter().map(|text| port(text)).collect::<Result<Vec<_>, _>>()?;
        let mut config = Config::default();
        config.set_cmd(some(&self.cmd));
        config.set_entrypoint(some(&self.entrypoint));
        config.set_env(some(&self.env));
        config.set_exposed_ports(some(&ports));
        config.set_working_dir(text(&self.working_dir));
        config.set_user(text(&self.user));
        if !self.labels.is_empty() {
            let labels: HashMap<_, _> = self.labels.clone().into_iter().collect();
            config.set_labels(Some(labels));
        }
        Ok(config)
    }
}

impl ImageStore {
    /// Makes an image of a tar archive of a root file system, plain or compressed with gzip or
    /// zstd. The name is taken from whatever image had it. Dropped, it leaves nothing behind.
    ///
    /// # Errors
    ///
    /// When an option is wrong, the archive can't be read or is damaged, or the disk is full.
    pub async fn import(
        &self,
        reader: impl AsyncRead + Unpin + Send,
        options: ImportOptions,
    ) -> Result<Image, ImageError> {
        options.check()?;
        let config = options.config()?;
        let name = options.reference.familiar();
        let (feed, source) = mpsc::channel(PIECES);
        let unpacking = tokio::task::spawn_blocking({
            let store = Arc::clone(&self.inner);
            move || import_layer(&store, source)
        });
        let read = send(reader, &feed).await;
        drop(feed);
        let unpacked = unpacking
            .await
            .unwrap_or(Err(IntakeError::Other(ImageError::Interrupted(name.clone()))));
        read.map_err(|error| ImageError::ImportRead { image: name.clone(), source: error.into() })?;
        let (unpacked, lease) = unpacked.map_err(|failure| match failure {
            IntakeError::Content(source) => ImageError::Import { image: name.clone(), source },
            IntakeError::Other(error) => error,
        })?;
        self.blocking(&name, move |store| {
            let id = commit(store, &options, config, &unpacked)?;
            drop(lease);
            tracing::info!(image = options.reference.familiar(), id = %id, "image imported");
            let image = store.image(&id)?;
            image.ok_or_else(|| ImageError::NotHere(options.reference.familiar()))
        })
        .await
    }
}

/// Sends all of a reader. An end is sent only after its last byte.
async fn send(
    mut reader: impl AsyncRead + Unpin,
    feed: &mpsc::Sender<Feed>,
) -> std::io::Result<()> {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        let last = reader.read_buf(&mut piece).await? == 0;
        let message = if last { Feed::End } else { Feed::Data(piece.freeze()) };
        // Nobody reads any more: the other side says why.
        if feed.send(message).await.is_err() || last {
            return Ok(());
        }
    }
}

fn import_layer(
    store: &Arc<Inner>,
    source: mpsc::Receiver<Feed>,
) -> Result<(Unpacked, Lease), IntakeError> {
    let received = receive(&store.content, source, Expected::default())?;
    let (blob, diff_id) = (received.layer.blob.clone(), received.layer.diff_id.clone());
    let lease = Lease::new(store, vec![blob, diff_id]);
    Ok((received.keep(&store.content)?, lease))
}

/// Writes configuration and manifest and names the image. Returns its id.
fn commit(
    store: &Arc<Inner>,
    options: &ImportOptions,
    config: Config,
    layer: &Unpacked,
) -> Result<Digest, ImageError> {
    let now = SystemTime::now();
    let (config, platform) = (configuration(options, config, layer, now), &options.platform);
    let config = json(&config);
    let id = Digest::of(&config);
    let manifest = json(&manifest(&id, config.len() as u64, layer));
    let manifest_digest = Digest::of(&manifest);
    let _lease = Lease::new(store, vec![id.clone(), manifest_digest.clone()]);
    store.content.write_blob(&id, &config)?;
    store.content.write_blob(&manifest_digest, &manifest)?;
    store.content.sync()?;
    let record = Record {
        manifest: manifest_digest.clone(),
        blobs: [manifest_digest, layer.blob.clone()].into(),
        layers: vec![layer.diff_id.clone()],
        size: layer.content,
        created: Some(now),
        platform: platform.clone(),
    };
    store.catalog.update(|index| {
        index.insert(id.clone(), record, std::slice::from_ref(&options.reference));
        Ok(id)
    })
}

fn configuration(
    options: &ImportOptions,
    config: Config,
    layer: &Unpacked,
    now: SystemTime,
) -> ImageConfiguration {
    let created = jiff::Timestamp::try_from(now).unwrap_or_default().to_string();
    let mut rootfs = RootFs::default();
    rootfs.set_diff_ids(vec![layer.diff_id.to_string()]);
    let history = HistoryBuilder::default()
        .created(created.clone())
        .comment("imported from a tar archive")
        .build()
        .unwrap_or_default();
    let mut image = ImageConfiguration::default();
    image
        .set_created(Some(created))
        .set_os(Os::from(options.platform.os.as_str()))
        .set_architecture(Arch::from(options.platform.architecture.as_str()))
        .set_variant(options.platform.variant.clone())
        .set_config(Some(config))
        .set_rootfs(rootfs)
        .set_history(Some(vec![history]));
    image
}

fn manifest(config: &Digest, config_size: u64, layer: &Unpacked) -> ImageManifest {
    let descriptor = |kind, size, digest: &Digest| {
        let digest: oci_spec::image::Digest =
            digest.as_str().parse().expect("oci-spec knows every digest that this crate makes");
        Descriptor::new(kind, size, digest)
    };
    ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(MediaType::ImageConfig, config_size, config))
        .layers(vec![descriptor(layer.compression.media_type(), layer.blob_size, &layer.blob)])
        .build()
        .expect("all fields that a manifest needs are set")
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("OCI documents of strings and numbers are JSON")
}

/// A port as OCI configurations have it.
fn port(text: &str) -> Result<String, ImageError> {
    let wrong = || ImageError::Port(text.to_owned());
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = number.parse().map_err(|_| wrong())?;
    match (number, protocol) {
        (1.., "tcp" | "udp" | "sctp") => Ok(format!("{number}/{protocol}")),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_with_a_protocol() {
        assert_eq!(port("8080").unwrap(), "8080/tcp");
        assert_eq!(port("53/udp").unwrap(), "53/udp");
        for text in ["", "0", "x", "8080/icmp", "70000/tcp", "1-2", "80/"] {
            assert!(port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_options_are_refused_before_anything_is_read() {
        let mut options = ImportOptions::new("a".parse().unwrap());
        options.env = vec!["PATH".to_owned()];
        assert!(matches!(options.check(), Err(ImageError::Environment(_))));
        let pinned = format!("a@{}", Digest::of(b""));
        let options = ImportOptions::new(pinned.parse().unwrap());
        assert!(matches!(options.check(), Err(ImageError::ImportDigest(_))));
    }
}
