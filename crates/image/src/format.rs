//! The JSON of manifests and configs, and our view of it.
//!
//! The wire types are our own and not those of `oci-spec`: what is written must be the same bytes each time (its maps
//! are hash maps), and what is read must survive the `null`s that Go programs write for empty lists.
//!
//! ```json
//! {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
//!  "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:…","size":412},
//!  "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:…","size":9216}]}
//!
//! {"architecture":"amd64","os":"linux","config":{"User":"app","ExposedPorts":{"8080/tcp":{}},"Env":["PATH=/bin"],
//!  "Entrypoint":["/app/hello"],"WorkingDir":"/app","Labels":{"a":"b"}},
//!  "rootfs":{"type":"layers","diff_ids":["sha256:…"]},"history":[{"created_by":"sampan"}]}
//! ```
//!
//! Source: image-spec 1.1 `manifest.md`, `config.md`; Docker's "Image Manifest V2, Schema 2" has the same shape under
//! other media types.

use std::collections::BTreeMap;

use sampan_model::Digest;
use serde::{Deserialize, Serialize};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// How a layer's blob is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerMediaType {
    /// A plain tar: its digest is its diff id.
    Tar,
    /// A tar in gzip.
    TarGzip,
    /// A tar in zstd.
    TarZstd,
}

impl LayerMediaType {
    /// The type that a descriptor names, if it is one that can be unpacked here.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            LAYER | DOCKER_LAYER => Some(Self::Tar),
            LAYER_GZIP | DOCKER_LAYER_GZIP => Some(Self::TarGzip),
            LAYER_ZSTD => Some(Self::TarZstd),
            _ => None,
        }
    }

    /// Its name in a descriptor.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => LAYER,
            Self::TarGzip => LAYER_GZIP,
            Self::TarZstd => LAYER_ZSTD,
        }
    }
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layer {
    /// Its blob.
    pub digest: Digest,
    /// The digest of its tar, uncompressed: what it is unpacked under.
    pub diff_id: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// How the blob is packed.
    pub media_type: LayerMediaType,
}

/// What an image says about how it is run. Empty where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The start of the command line, which `run IMAGE ARGS` does not replace.
    pub entrypoint: Vec<String>,
    /// The rest of the command line, which it does.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Where the command starts; empty: `/`.
    pub working_dir: String,
    /// Whom it runs as, to be resolved by [`user::resolve`](crate::user::resolve); empty: root.
    pub user: String,
    /// `8080/tcp`, `53/udp`, or a bare number for TCP; sorted.
    pub exposed_ports: Vec<String>,
    /// Anything.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop, such as `SIGTERM` or `15`.
    pub stop_signal: Option<String>,
    /// Go's word for the architecture: `amd64`, `arm64`…
    pub architecture: String,
    /// Go's word for the operating system.
    pub os: String,
}

impl Default for ImageConfig {
    /// An image for this machine that says nothing.
    fn default() -> Self {
        Self {
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            working_dir: String::new(),
            user: String::new(),
            exposed_ports: Vec::new(),
            labels: BTreeMap::new(),
            stop_signal: None,
            architecture: host_architecture().to_owned(),
            os: "linux".to_owned(),
        }
    }
}

/// Go's word for the architecture this program was built for, which is the one whose images it runs.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        same => same,
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestJson {
    pub schema_version: u32,
    pub media_type: Option<String>,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
}

/// A list of manifests; `manifests` is what tells one from a manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexJson {
    pub schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<IndexEntry>,
}

/// A manifest, or an index, in an index.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexEntry {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformJson>,
}

/// What a manifest is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlatformJson {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConfigJson {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: RunJson,
    pub rootfs: RootFsJson,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RunJson {
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Empty {}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootFsJson {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

/// A step by which an image was made, as its config tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// When, in RFC 3339; nothing of ours says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// What somebody noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

impl From<ConfigJson> for ImageConfig {
    fn from(json: ConfigJson) -> Self {
        let run = json.config;
        Self {
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            env: run.env,
            working_dir: run.working_dir,
            user: run.user,
            exposed_ports: run.exposed_ports.into_keys().collect(),
            labels: run.labels,
            stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
            architecture: json.architecture,
            os: json.os,
        }
    }
}

impl ConfigJson {
    /// The config of an image of these layers, lowest first.
    pub(crate) fn new(config: &ImageConfig, layers: &[Layer]) -> Self {
        let config = config.clone();
        Self {
            architecture: config.architecture,
            os: config.os,
            created: None,
            config: RunJson {
                user: config.user,
                exposed_ports: config.exposed_ports.into_iter().map(|port| (port, Empty {})).collect(),
                env: config.env,
                entrypoint: config.entrypoint,
                cmd: config.cmd,
                working_dir: config.working_dir,
                labels: config.labels,
                stop_signal: config.stop_signal,
            },
            rootfs: RootFsJson {
                kind: "layers".to_owned(),
                diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            },
            // some registries and scanners expect as many entries as there are layers
            history: layers
                .iter()
                .map(|_| History { created_by: Some("sampan".to_owned()), ..History::default() })
                .collect(),
        }
    }
}
