//! Images made on the spot.

use std::io::Write;

use serde_json::json;
use shoal_image::Digest;

/// How a layer is compressed.
#[derive(Clone, Copy)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

/// A layer: its tar archive, and that in its compressed form.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Vec<u8>,
    kind: &'static str,
}

/// An image: what a registry has to hold of it.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Layer>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A tar archive of files; those whose name ends in a slash are folders.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        let folder = path.ends_with('/');
        header.set_entry_type(if folder {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(if folder { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn layer(files: &[(&str, &str)], packed: Packed) -> Layer {
    let tar = tar(files);
    let diff_id = Digest::of(&tar);
    let (blob, kind) = match packed {
        Packed::Plain => (tar, "application/vnd.oci.image.layer.v1.tar"),
        Packed::Gzip => (gzip(&tar), "application/vnd.oci.image.layer.v1.tar+gzip"),
        Packed::Zstd => {
            (zstd::encode_all(&tar[..], 3).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd")
        }
    };
    Layer { diff_id, blob, kind }
}

/// A layer of a file that no compression makes smaller, different for each seed.
pub(crate) fn big(seed: u32, length: usize) -> Layer {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b' ' + (state >> 26) as u8)
    };
    let content: String = (0..length).map(|_| next()).collect();
    layer(&[("big", &content)], Packed::Gzip)
}

pub(crate) fn image(layers: &[Layer]) -> Built {
    image_for("amd64", layers)
}

pub(crate) fn image_for(architecture: &str, layers: &[Layer]) -> Built {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = json!({
        "os": "linux",
        "architecture": architecture,
        "created": "2024-05-06T07:08:09Z",
        "config": {"Cmd": ["/bin/serve"], "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    with_config(config.to_string().into_bytes(), layers)
}

pub(crate) fn with_config(config: Vec<u8>, layers: &[Layer]) -> Built {
    let descriptors: Vec<_> =
        layers.iter().map(|layer| descriptor(layer.kind, &layer.blob)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": descriptors,
    });
    Built { manifest: manifest.to_string().into_bytes(), config, layers: layers.to_vec() }
}

pub(crate) fn index(images: &[(&str, &Built)]) -> Vec<u8> {
    let entries: Vec<_> = images
        .iter()
        .map(|(architecture, built)| {
            let mut entry = descriptor(MANIFEST, &built.manifest);
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes()
}

fn descriptor(kind: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": kind, "digest": Digest::of(bytes).as_str(), "size": bytes.len()})
}

impl Built {
    /// Everything that is fetched as a blob.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        std::iter::once(&self.config).chain(self.layers.iter().map(|layer| &layer.blob))
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.config)
    }
}
