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
//! The JSON Schema for editors is [`schema`], published as `schema/sampan.schema.json`. A field that is not known is
//! an error and not ignored: a misspelt `replicas` must not be found out in production.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan_model::{ByteSize, Cpus, Label};
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

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

/// A mistake in a file, shown as compilers show theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line's text.
    pub text: String,
    /// How many characters of it are wrong, at least 1.
    pub width: usize,
    /// What is wrong with them.
    pub message: String,
    /// The field that was probably meant.
    pub suggestion: Option<String>,
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
        toml::from_str(text)
            .map_err(|error| invalid(Mistake::new(path, text, error.span().unwrap_or(0..0), error.message())))
    }
}

/// The JSON Schema of `sampan.toml`, pretty-printed.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Manifest);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}

impl Mistake {
    fn new(path: &Path, text: &str, span: std::ops::Range<usize>, message: &str) -> Self {
        // spans are of bytes and may point past the end; a column is in characters
        let floor = |at: usize| (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let (start, end) = (floor(span.start), floor(span.end));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        Self {
            path: path.into(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end().into(),
            width: text[start..end.clamp(start, line_end)].chars().count().max(1),
            message: message.trim_end().replace('\n', ": "),
            suggestion: suggest(message),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, text, width, message, .. } = self;
        writeln!(f, "{}:{line}:{column}: {message}", self.path.display())?;
        let margin = line.to_string().len();
        // a tab stays a tab, so that the caret stands below its character whatever a tab's width is
        let before: String = text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{:margin$} |\n{line} | {text}", "")?;
        write!(f, "{:margin$} | {before}{}", "", "^".repeat(*width))?;
        match &self.suggestion {
            Some(field) => write!(f, " did you mean `{field}`?"),
            None => Ok(()),
        }
    }
}

/// The known name nearest to an unknown one, out of serde's words: "unknown field `x`, expected one of `a`, `b`".
fn suggest(message: &str) -> Option<String> {
    let names: Vec<&str> = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2).collect();
    let (unknown, known) = names.split_first()?;
    let (distance, best) = known.iter().map(|name| (edit_distance(unknown, name), name)).min()?;
    (distance <= 1 + unknown.chars().count() / 3).then(|| (*best).into())
}

/// How many letters to insert, remove or replace (Levenshtein) until `a` is `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn environment<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let env = BTreeMap::<String, String>::deserialize(from)?;
    for (name, value) in &env {
        check_variable(name, value).map_err(D::Error::custom)?;
    }
    Ok(env)
}

/// Whether the kernel and everybody's `getenv` would take this variable.
pub(crate) fn check_variable(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("{name:?} cannot be a variable's name: it is empty, or holds '=' or a zero byte"));
    }
    if value.contains('\0') {
        return Err(format!("the value of {name} holds a zero byte, which no environment can"));
    }
    Ok(())
}

fn byte_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ByteSize>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
}

fn url_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let path = String::deserialize(from)?;
    let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
    if path.starts_with('/') && printable {
        Ok(Some(path))
    } else {
        Err(D::Error::custom(format_args!("{path:?} is not a path: start it with '/', without spaces")))
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    parse_duration(&text).map(Some).ok_or_else(|| {
        D::Error::custom(format_args!("{text:?} is not a duration: use a number and ms, s or m, such as 90s"))
    })
}

/// `500ms`, `90s`, `2m`; at most a day.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..unit_at].parse().ok()?;
    let unit_ms = match &text[unit_at..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).filter(|ms| (1..=86_400_000).contains(ms)).map(Duration::from_millis)
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
             `args`, `env`, `size`, `health`, `build`\n  |\n2 | prot = 8080\n  | ^^^^ did you mean `port`?"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_a_mistake_with_a_place() {
        let error = Manifest::parse(Path::new("sampan.toml"), b"name = \"\xff\"").expect_err("no UTF-8");
        assert!(error.to_string().starts_with("sampan.toml:1:9: these bytes are not UTF-8"), "{error}");
    }

    #[test]
    fn durations() {
        for (text, ms) in [("500ms", 500), ("60s", 60_000), ("2m", 120_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)));
        }
        for bad in ["", "s", "1", "0s", "1h", "-1s", "2000m", "99999999999999999999s", "1 s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
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
