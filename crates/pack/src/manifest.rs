//! `sampan.toml`: what detection cannot know about a source, said by its author. Every field may be left out.
//!
//! ```toml
//! name = "courses"
//! bin = "server"
//! port = 3000
//! replicas = 2
//!
//! [size]
//! cpus = 0.5
//! memory = "256MiB"
//!
//! [env]
//! RUST_LOG = "info"
//!
//! [health]
//! path = "/healthz"
//! ```
//!
//! Several services that belong together are brought up together, in the order of what they depend on; each table has
//! the same keys again:
//!
//! ```toml
//! [services.api]
//! path = "api"
//! volumes = ["data:/data"]
//!
//! [services.web]
//! path = "web"
//! depends_on = ["api"]
//! ```
//!
//! The JSON Schema for editors is [`schema`], published as `schema/sampan.schema.json`. A field that is not known is
//! an error and not ignored: a misspelt `replicas` must not be found out in production.

mod mistake;
mod services;
mod values;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan_model::{ByteSize, Cpus, Label, Mount};
use schemars::JsonSchema;
use serde::Deserialize;

use values::{byte_size, duration, environment, url_path, volumes};

pub use mistake::Mistake;
pub(crate) use values::check_variable;
pub use values::parse_duration;

/// The file's name, beside `Cargo.toml` or `go.mod`.
pub const FILE_NAME: &str = "sampan.toml";
/// The largest file that is read.
pub const MOST_BYTES: u64 = 256 << 10;

/// How an app is built and run by Sampan. Every field may be left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "sampan.toml")]
pub struct Manifest {
    /// The service's name: lower-case letters, digits and '-'. Left out: the directory's name.
    #[schemars(with = "Option<String>", regex(pattern = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pub name: Option<Label>,
    /// The program to run, where the source holds several: a Cargo binary, a directory under `cmd/`, or a file.
    pub bin: Option<String>,
    /// The package of a Cargo workspace that the program is in.
    pub package: Option<String>,
    /// The port that the app answers HTTP on. Left out: the one that it is found listening on.
    pub port: Option<NonZeroU16>,
    /// How many replicas run at once. Left out: 1.
    pub replicas: Option<NonZeroU32>,
    /// Arguments that the program is given.
    pub args: Vec<String>,
    /// Environment variables that the app is given.
    #[serde(deserialize_with = "environment")]
    pub env: BTreeMap<String, String>,
    /// The size of each replica's server: ceilings, not reservations.
    pub size: Size,
    /// How a replica is known to be ready.
    pub health: Health,
    /// How the source is compiled.
    pub build: Build,
    /// Volumes, each as "NAME:/PATH" or "NAME:/PATH:ro": what is written there stays when the service is replaced.
    #[serde(deserialize_with = "volumes")]
    #[schemars(with = "Vec<String>", inner(regex(pattern = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?:/[^:]*(:r[ow])?$")))]
    pub volumes: Vec<Mount>,
    /// In a `[services.NAME]`: the service's directory, from the one of this file. Left out: the same directory.
    pub path: Option<PathBuf>,
    /// In a `[services.NAME]`: the services that are to be ready before this one is brought up.
    #[schemars(with = "Vec<String>")]
    pub depends_on: Vec<Label>,
    /// Several services that are brought up together, by their names; then nothing else is said outside of them.
    #[schemars(with = "BTreeMap<String, Manifest>")]
    pub services: BTreeMap<Label, Manifest>,
}

/// The size of each replica's server: ceilings, not reservations.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Size {
    /// Processors, such as 0.5 or 2. Left out: 1.
    #[schemars(with = "Option<f64>", range(min = 0.01))]
    pub cpus: Option<Cpus>,
    /// Memory, such as "512MiB" or "8GiB". Left out: 512MiB.
    #[serde(deserialize_with = "byte_size")]
    #[schemars(with = "Option<String>")]
    pub memory: Option<ByteSize>,
}

/// How a replica is known to be ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// A path that must answer with 2xx or 3xx, such as "/healthz". Left out: any answer to `GET /` will do.
    #[serde(deserialize_with = "url_path")]
    #[schemars(regex(pattern = "^/"))]
    pub path: Option<String>,
    /// How long a new replica may take until it is ready, such as "90s" or "2m". Left out: 60s.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "Option<String>", regex(pattern = "^[0-9]+(ms|s|m)$"))]
    pub start_timeout: Option<Duration>,
}

/// How the source is compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Build {
    /// Cargo features to turn on.
    pub features: Vec<String>,
    /// The Cargo profile. Left out: release.
    pub profile: Option<String>,
}

/// Why a `sampan.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than [`MOST_BYTES`].
    #[error("{} is larger than {MOST_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It says something that it cannot mean.
    #[error("{0}")]
    Invalid(Box<Mistake>),
}

impl Manifest {
    /// Reads the `sampan.toml` in `directory`; the empty manifest where there is none.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn read(directory: &Path) -> Result<Self, ManifestError> {
        let path = directory.join(FILE_NAME);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ManifestError::Read { path, source }),
        };
        let mut bytes = Vec::new();
        match file.take(MOST_BYTES + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 > MOST_BYTES => Err(ManifestError::TooLarge { path }),
            Ok(_) => Self::parse(&path, &bytes),
            Err(source) => Err(ManifestError::Read { path, source }),
        }
    }

    /// Parses the bytes of the file at `path`, which is only named in errors.
    ///
    /// # Errors
    /// [`ManifestError::Invalid`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ManifestError> {
        let invalid = |mistake| ManifestError::Invalid(Box::new(mistake));
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.valid_up_to();
                let text = String::from_utf8_lossy(bytes);
                return Err(invalid(Mistake::new(path, &text, at..at + 1, "these bytes are not UTF-8")));
            }
        };
        let manifest: Self = toml::from_str(text)
            .map_err(|error| invalid(Mistake::new(path, text, error.span().unwrap_or(0..0), error.message())))?;
        match manifest.fault() {
            None => Ok(manifest),
            Some(fault) => Err(invalid(Mistake::at(path, text, &fault.keys(), &fault.message))),
        }
    }
}

/// The JSON Schema of `sampan.toml`, pretty-printed.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Manifest);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(Path::new("sampan.toml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_may_be_left_out_and_everything_may_be_said() {
        assert_eq!(parse(""), Ok(Manifest::default()));
        let full = parse(
            r#"
            name = "courses"
            bin = "server"
            package = "web"
            port = 3000
            replicas = 2
            args = ["--verbose"]
            [env]
            RUST_LOG = "info"
            [size]
            cpus = 2
            memory = "256MiB"
            [health]
            path = "/healthz"
            start_timeout = "90s"
            [build]
            features = ["tls"]
            profile = "dist"
            "#,
        )
        .expect("a full manifest");
        assert_eq!(full.name.as_ref().map(Label::as_str), Some("courses"));
        assert_eq!(full.size, Size { cpus: Some(Cpus::from_milli(2000)), memory: Some(ByteSize::mib(256)) });
        assert_eq!(full.health.start_timeout, Some(Duration::from_secs(90)));
        assert_eq!(full.env["RUST_LOG"], "info");
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        for (text, place, says) in [
            ("prot = 80", "1:1", "did you mean `port`?"),
            ("\n[size]\n\tmemroy = \"1GiB\"", "3:2", "did you mean `memory`?"),
            ("colour = 1", "1:1", "unknown field `colour`"),
            ("port = 0", "1:8", "nonzero"),
            ("port = 65536", "1:8", "65536"),
            ("port = \"80\"", "1:8", "string"),
            ("replicas = 0", "1:12", "nonzero"),
            ("name = \"Not Good\"", "1:8", "lower-case"),
            ("[size]\nmemory = \"much\"", "2:10", "512MiB"),
            ("[size]\ncpus = -1", "2:8", "0.5 or 2"),
            ("[health]\npath = \"x\"", "2:8", "start it with '/'"),
            ("[health]\nstart_timeout = \"soon\"", "2:17", "such as 90s"),
            ("[env]\n\"A=B\" = \"x\"", "1:1", "variable's name"),
            ("a = ", "1:5", "sampan.toml:1:5"),
            ("name = \"ä\n", "1:", "^"),
            ("[size", "1:6", "^"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(&format!("sampan.toml:{place}")), "{text:?} gave\n{error}");
            assert!(error.contains(says), "{text:?} gave\n{error}");
        }
        assert_eq!(
            parse("name = \"x\"\nprot = 8080").expect_err("prot"),
            "sampan.toml:2:1: unknown field `prot`, expected one of `name`, `bin`, `package`, `port`, `replicas`, \
             `args`, `env`, `size`, `health`, `build`, `volumes`, `path`, `depends_on`, `services`\n  |\n2 | prot = 8080\n  | ^^^^ did you mean `port`?"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_a_mistake_with_a_place() {
        let error = Manifest::parse(Path::new("sampan.toml"), b"name = \"\xff\"").expect_err("no UTF-8");
        assert!(error.to_string().starts_with("sampan.toml:1:9: these bytes are not UTF-8"), "{error}");
    }

    /// `SAMPAN_BLESS=1 cargo test -p sampan-pack` writes the published schema anew.
    #[test]
    fn the_published_schema_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/sampan.schema.json");
        if std::env::var_os("SAMPAN_BLESS").is_some() {
            std::fs::write(&path, schema()).expect("write the schema");
        }
        assert_eq!(std::fs::read_to_string(path).expect("the schema is published"), schema());
    }
}
