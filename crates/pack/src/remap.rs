//! The same Rust source gives the same program wherever it lies: paths are replaced before rustc can write them down.
//!
//! Paths get into a program through panic messages of dependencies and of code that build scripts generate
//! (`OUT_DIR`), and through debug information. `--remap-path-prefix` replaces them:
//!
//! | what lies there | in the program |
//! |---|---|
//! | the workspace | `/src` |
//! | the target directory, with build scripts' `OUT_DIR` | `/target` |
//! | `CARGO_HOME`: the registries' and git's sources | `/cargo` |
//! | `RUSTUP_HOME`: the standard library's source, where it is installed | `/rustup` |
//!
//! # Beside the user's own flags, never instead of them
//! Cargo takes flags for rustc from one place only: `RUSTFLAGS`, else all of `target.….rustflags`, else
//! `build.rustflags` (Cargo Book, "Configuration", `build.rustflags`). So ours are added to whichever place counts.
//!
//! # Beside the user's own cache
//! Since Rust 1.85 cargo files what it builds under a hash that has the flags in it; where there is a
//! `--remap-path-prefix` among them, under one that has not, so that the hash is no path's either. What
//! `cargo build --release` made and what we make lie side by side in one target directory, and neither is built again
//! because of the other.
//!
//! # What stays
//! A path that a program asks for by itself (`env!("CARGO_MANIFEST_DIR")`) or that a C compiler was given by a build
//! script is not ours to change; a dependency outside the workspace by path (`../other`) has its path in its symbols'
//! hash. Such a program is the same for the same path only.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::Value;

use crate::detect::CargoBinary;
use crate::environment::Environment;

/// The longest configuration file of cargo's that is looked at.
const LONGEST_CONFIG: u64 = 1 << 20;
/// How deep files that include others are followed.
const DEEPEST_INCLUDE: usize = 4;

/// Adds the flags to a cargo that is to build `binary` in `directory`.
pub(crate) fn apply(command: &mut Command, binary: &CargoBinary, directory: &Path, env: &Environment) {
    let flags = flags(binary, env);
    match Place::of(directory, env) {
        Place::Variable(mut words) => {
            words.extend(flags);
            // unlike RUSTFLAGS it can hold a path with a space
            command.env("CARGO_ENCODED_RUSTFLAGS", words.join(OsStr::new("\x1f")));
        }
        Place::Target => configure(command, r#"target."cfg(all())".rustflags"#, &flags),
        Place::Build => configure(command, "build.rustflags", &flags),
        Place::BuildText => {
            let spaced = |flag: &OsString| flag.as_bytes().iter().any(u8::is_ascii_whitespace);
            // cargo joins a list with a variable only, which cannot hold a space; then the paths stay as they are
            if !flags.iter().any(spaced) {
                let mut words: Vec<OsString> = env.get("CARGO_BUILD_RUSTFLAGS").map(Into::into).into_iter().collect();
                words.extend(flags);
                command.env("CARGO_BUILD_RUSTFLAGS", words.join(OsStr::new(" ")));
            }
        }
    }
}

/// As a setting on cargo's command line, which is added to what the same setting has in files.
fn configure(command: &mut Command, key: &str, flags: &[OsString]) {
    // a path that is no text cannot be in a setting; cargo itself refuses to work in such a directory
    let flags = flags.iter().filter_map(|flag| Some(Value::String(flag.to_str()?.to_owned())));
    command.arg("--config").arg(format!("{key}={}", Value::Array(flags.collect())));
}

/// `--remap-path-prefix=FROM=TO`, the most particular last: of several that fit, rustc takes the last.
fn flags(binary: &CargoBinary, env: &Environment) -> Vec<OsString> {
    let home = |name: &str, directory: &str| {
        let given = env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        given.or_else(|| Some(Path::new(env.get("HOME")?).join(directory)))
    };
    let places = [
        (home("RUSTUP_HOME", ".rustup"), "/rustup"),
        (home("CARGO_HOME", ".cargo"), "/cargo"),
        (Some(binary.workspace_root.clone()), "/src"),
        (Some(binary.target_directory.clone()), "/target"),
        (binary.build_directory.clone(), "/target"),
    ];
    let mut prefixes = Vec::new();
    for (from, to) in places.into_iter().filter_map(|(from, to)| Some((from?, to))) {
        // rustc compares text, and is given now the one and now the other
        let real = from.canonicalize().ok();
        prefixes.extend(real.into_iter().chain([from]).map(|from| (from, to)));
    }
    prefixes.sort_by(|(a, _), (b, _)| (a.as_os_str().len(), a).cmp(&(b.as_os_str().len(), b)));
    prefixes.dedup();
    let flag = |(from, to): (PathBuf, &str)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flag
    };
    prefixes.into_iter().map(flag).collect()
}

/// Where cargo takes flags from.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// `RUSTFLAGS`, with these words in it.
    Variable(Vec<OsString>),
    /// `target.….rustflags`.
    Target,
    /// `build.rustflags`.
    Build,
    /// `build.rustflags` as one text, to which cargo joins no list.
    BuildText,
}

impl Place {
    fn of(directory: &Path, env: &Environment) -> Self {
        if let Some(flags) = env.set("RUSTFLAGS") {
            let words = flags.as_bytes().split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            return Self::Variable(words.map(|word| OsStr::from_bytes(word).to_owned()).collect());
        }
        let configs = configs(directory, env);
        let build = configs.iter().find_map(|config| config.get("build")?.get("rustflags"));
        if build.is_none() && env.get("CARGO_BUILD_RUSTFLAGS").is_none() {
            return Self::Target;
        }
        // where it cannot be told whether a target's flags count (`cfg(…)`), the user's `build` ones must not be lost;
        // at worst cargo does not look at ours
        let for_this_machine =
            |target: &str| target.starts_with(&format!("{}-", std::env::consts::ARCH)) && target.contains("-linux-");
        let targets = configs.iter().filter_map(|config| config.get("target")?.as_table());
        let counts =
            targets.flatten().any(|(target, table)| for_this_machine(target) && table.get("rustflags").is_some());
        match build {
            _ if counts => Self::Target,
            Some(Value::String(_)) => Self::BuildText,
            _ => Self::Build,
        }
    }
}

/// Cargo's configuration files, the nearest first, and what they include (Cargo Book, "Configuration", hierarchical
/// structure, `include`). What cannot be read is left out: cargo will say so better.
fn configs(directory: &Path, env: &Environment) -> Vec<toml::Table> {
    let home = env.get("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(env.get("HOME")?).join(".cargo")));
    let above = directory.ancestors().map(|above| above.join(".cargo"));
    let mut configs = Vec::new();
    for directory in above.chain(home) {
        // of both, cargo takes the one without an ending
        let path = ["config", "config.toml"].map(|name| directory.join(name)).into_iter().find(|path| path.is_file());
        if let Some(path) = path {
            read_config(&path, &mut configs, 0);
        }
    }
    configs
}

fn read_config(path: &Path, configs: &mut Vec<toml::Table>, depth: usize) {
    use std::io::Read as _;

    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST_CONFIG).read_to_string(&mut text));
    let Some(config) = read.ok().and_then(|_| text.parse::<toml::Table>().ok()) else { return };
    let included: Vec<&Value> = match config.get("include") {
        Some(Value::Array(list)) => list.iter().collect(),
        one => one.into_iter().collect(),
    };
    // a text, or a table with it
    let named = included.iter().filter_map(|one| one.as_str().or_else(|| one.get("path")?.as_str()));
    let beside: Vec<PathBuf> = named.map(|name| path.with_file_name(name)).collect();
    configs.push(config);
    if depth < DEEPEST_INCLUDE {
        beside.iter().for_each(|path| read_config(path, configs, depth + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &Path)]) -> Environment {
        let vars = vars.iter().map(|(name, value)| (OsString::from(name), value.as_os_str().to_owned()));
        Environment::scrubbed(vars, None)
    }

    #[test]
    fn the_most_particular_prefix_is_last() {
        let binary = CargoBinary {
            workspace_root: "/w/app".into(),
            target_directory: "/w/app/target".into(),
            build_directory: None,
            ..CargoBinary::default()
        };
        let env = environment(&[("HOME", Path::new("/h")), ("CARGO_HOME", Path::new("/w/app/target/very/deep"))]);
        let flags: Vec<_> = flags(&binary, &env).into_iter().map(|flag| flag.into_string().unwrap()).collect();
        let flags: Vec<_> = flags.iter().map(|flag| flag.trim_start_matches("--remap-path-prefix=")).collect();
        assert_eq!(
            flags,
            ["/w/app=/src", "/h/.rustup=/rustup", "/w/app/target=/target", "/w/app/target/very/deep=/cargo"]
        );
    }

    #[test]
    fn flags_go_where_cargo_looks() {
        let check = |config: &str, variable: Option<&str>, expected: Place| {
            let home = tempfile::tempdir().unwrap();
            let project = home.path().join("project");
            std::fs::create_dir_all(project.join(".cargo")).unwrap();
            std::fs::write(project.join(".cargo/config.toml"), config).unwrap();
            std::fs::write(project.join(".cargo/more.toml"), "include = 'more.toml'\nbuild.rustflags = ['x']").unwrap();
            let mut vars = vec![("HOME", home.path())];
            vars.extend(variable.map(|flags| ("RUSTFLAGS", Path::new(flags))));
            assert_eq!(Place::of(&project, &environment(&vars)), expected, "{config:?} {variable:?}");
        };
        let host = format!("[target.{}-unknown-linux-gnu]\nrustflags = []\n", std::env::consts::ARCH);
        let build = "[build]\nrustflags = ['-C', 'x']\n";
        check("", None, Place::Target);
        check(&host, None, Place::Target);
        check(build, None, Place::Build);
        check("[build]\nrustflags = '-C x'\n", None, Place::BuildText);
        check(&format!("{build}{host}"), None, Place::Target);
        check(&format!("{build}[target.'cfg(unix)']\nrustflags = []\n"), None, Place::Build);
        check(build, Some("-C  y"), Place::Variable(vec!["-C".into(), "y".into()]));
        check(build, Some(""), Place::Variable(Vec::new()));
        check("not toml", None, Place::Target);
        check("include = 'more.toml'", None, Place::Build);
        check("include = [{ path = 'more.toml', optional = true }]", None, Place::Build);
    }
}
