//! The environment that compilers are run in: the caller's, without what `cargo run` and rustup's proxies add to it.
//!
//! We are often started by `cargo run`. A compiler that inherited our variables would build the user's source with
//! *our* toolchain (`RUSTUP_TOOLCHAIN`), tell its build scripts that they belong to *our* package (`CARGO_PKG_*`),
//! and rebuild everything each time it is started another way, for cargo's fingerprints know some of them.
//!
//! What the user set on purpose stays. Variables whose names do not tell whose they are (`RUSTUP_TOOLCHAIN`,
//! `LD_LIBRARY_PATH`) are touched only where cargo's or rustup's mark shows that they started us.
//!
//! Nothing in this crate reads the process's environment but [`Environment::of_caller`]; one exception is `lddtree`,
//! which looks at `LD_LIBRARY_PATH` by itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variables that compilers are given, and the ones that say where caches lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    vars: BTreeMap<OsString, OsString>,
    sampan: Option<PathBuf>,
}

/// `CARGO…` variables that configure cargo and come from people: the *home* and caches, the terminal, the network,
/// registries with their credentials, `[build]`, `[target.…]` and `[profile.…]` tables spelt as variables
/// (Cargo Book, "Environment variables cargo reads"). Every other `CARGO…` variable is set by cargo for its children.
const CARGO_SETTINGS: [&str; 18] = [
    "CARGO_HOME",
    "CARGO_LOG",
    "CARGO_INCREMENTAL",
    "CARGO_CACHE_RUSTC_INFO",
    "CARGO_TARGET_",
    "CARGO_BUILD_",
    "CARGO_PROFILE_",
    "CARGO_TERM_",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTRY_",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "CARGO_CREDENTIAL_",
    "CARGO_RESOLVER_",
    "CARGO_CACHE_",
    "CARGO_UNSTABLE_",
    "CARGO_FUTURE_INCOMPAT_REPORT_",
];

/// What cargo and rustup's proxies set under names that people use as well.
const SET_BY_CARGO: [&str; 2] = ["OUT_DIR", "RUSTUP_TOOLCHAIN"];

/// Variables that rustup's proxies set and nobody else.
const SET_BY_RUSTUP: [&str; 2] = ["RUST_RECURSION_COUNT", "RUSTUP_TOOLCHAIN_SOURCE"];

/// Lists of library directories that `cargo run` puts its own in front of, on Linux and elsewhere.
const LIBRARY_PATHS: [&str; 3] = ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"];

impl Environment {
    /// This process's environment, scrubbed.
    pub fn of_caller() -> Self {
        let own_directory = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
        Self::scrubbed(std::env::vars_os(), own_directory.as_deref())
    }

    /// `vars`, scrubbed. `own_directory` is where our own executable lies: below it are the directories that cargo
    /// adds to the library path when it runs us.
    pub fn scrubbed(vars: impl IntoIterator<Item = (OsString, OsString)>, own_directory: Option<&Path>) -> Self {
        let mut vars: BTreeMap<OsString, OsString> = vars.into_iter().collect();
        let has = |name: &str| vars.contains_key(OsStr::new(name));
        let by_cargo = has("CARGO_MANIFEST_DIR") || has("RUST_RECURSION_COUNT");
        let toolchains = rustup_home(&vars).map(|home| home.join("toolchains"));

        vars.retain(|name, _| name.to_str().is_none_or(|name| is_kept(name, by_cargo)));
        if by_cargo {
            let added = |entry: &Path| {
                toolchains.as_deref().is_some_and(|dir| entry.starts_with(dir))
                    || own_directory.is_some_and(|dir| entry.starts_with(dir))
            };
            for name in LIBRARY_PATHS {
                edit_list(&mut vars, name, |entry| !added(entry));
            }
            // old rustups put the toolchain's own bin directory first; without a proxy elsewhere it is all there is
            let in_toolchain = |entry: &Path| toolchains.as_deref().is_some_and(|dir| entry.starts_with(dir));
            let elsewhere = vars.get(OsStr::new("PATH")).is_some_and(|path| {
                std::env::split_paths(path).any(|entry| !in_toolchain(&entry) && entry.join("cargo").is_file())
            });
            if elsewhere {
                edit_list(&mut vars, "PATH", |entry| !in_toolchain(entry));
            }
        }
        Self { vars, sampan: None }
    }

    /// The same with this `sampan` binary, which goes into the images of static sites to serve them. Without, it is
    /// the one on `PATH`.
    #[must_use]
    pub fn with_sampan(self, path: impl Into<PathBuf>) -> Self {
        Self { sampan: Some(path.into()), ..self }
    }

    /// Where the `sampan` binary is.
    pub(crate) fn sampan(&self) -> Option<PathBuf> {
        let on_path =
            || std::env::split_paths(self.get("PATH")?).map(|entry| entry.join("sampan")).find(|path| path.is_file());
        self.sampan.clone().or_else(on_path)
    }

    /// A variable's value, unless it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable's value, be it empty, unless it is unset.
    pub(crate) fn set(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The directory for caches of ours (XDG base directories 0.8): `$XDG_CACHE_HOME/sampan`, else
    /// `~/.cache/sampan`.
    pub(crate) fn cache_directory(&self) -> Option<PathBuf> {
        let base = self.get("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        base.or_else(|| Some(Path::new(self.get("HOME")?).join(".cache"))).map(|base| base.join("sampan"))
    }

    /// `program` with exactly these variables, found through their `PATH`.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.vars);
        command
    }
}

fn is_kept(name: &str, by_cargo: bool) -> bool {
    if name == "CARGO" || name.starts_with("CARGO_") {
        return name != "CARGO_TARGET_TMPDIR" && CARGO_SETTINGS.iter().any(|setting| matches_setting(name, setting));
    }
    let set_for_us = SET_BY_RUSTUP.contains(&name) || by_cargo && SET_BY_CARGO.contains(&name);
    !set_for_us
}

/// A setting that ends in `_` is the beginning of a family of names.
fn matches_setting(name: &str, setting: &str) -> bool {
    if setting.ends_with('_') { name.starts_with(setting) } else { name == setting }
}

fn rustup_home(vars: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let var = |name: &str| vars.get(OsStr::new(name)).filter(|value| !value.is_empty());
    var("RUSTUP_HOME").map(PathBuf::from).or_else(|| Some(Path::new(var("HOME")?).join(".rustup")))
}

/// Keeps some entries of a list of directories; an emptied list is removed.
fn edit_list(vars: &mut BTreeMap<OsString, OsString>, name: &str, keep: impl Fn(&Path) -> bool) {
    let Some(list) = vars.remove(OsStr::new(name)) else { return };
    let kept: Vec<PathBuf> = std::env::split_paths(&list).filter(|entry| keep(entry)).collect();
    if kept.is_empty() {
        return;
    }
    // entries that came out of a list hold no separator, so they join again
    vars.insert(name.into(), std::env::join_paths(kept).unwrap_or(list));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(vars: &[(&str, &str)]) -> Vec<String> {
        let vars = vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let scrubbed = Environment::scrubbed(vars, Some(Path::new("/src/target/release")));
        let text = |part: OsString| part.into_string().expect("test data is UTF-8");
        scrubbed.vars.into_iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect()
    }

    #[test]
    fn what_cargo_set_goes_and_what_people_set_stays() {
        for (name, kept) in [
            ("CARGO", false),
            ("CARGO_MANIFEST_DIR", false),
            ("CARGO_PKG_NAME", false),
            ("CARGO_BIN_NAME", false),
            ("CARGO_TARGET_TMPDIR", false),
            ("CARGO_ENCODED_RUSTFLAGS", false),
            ("RUST_RECURSION_COUNT", false),
            ("CARGO_HOME", true),
            ("CARGO_TARGET_DIR", true),
            ("CARGO_TERM_COLOR", true),
            ("CARGO_NET_OFFLINE", true),
            ("CARGO_REGISTRIES_X_TOKEN", true),
            ("CARGO_HTTP_PROXY", true),
            ("RUSTUP_HOME", true),
            ("RUSTUP_TOOLCHAIN", true),
            ("RUSTFLAGS", true),
            ("RUST_BACKTRACE", true),
            ("MAKEFLAGS", true),
            ("TARGET", true),
            ("GOFLAGS", true),
            ("LD_LIBRARY_PATH", true),
        ] {
            assert_eq!(scrub(&[(name, "x")]).len(), usize::from(kept), "{name}");
        }
    }

    #[test]
    fn under_cargo_run_the_toolchain_is_chosen_anew() {
        let left = scrub(&[
            ("CARGO_MANIFEST_DIR", "/src"),
            ("HOME", "/home/u"),
            ("LD_LIBRARY_PATH", "/src/target/release/deps:/home/u/.rustup/toolchains/t/lib:/opt/lib"),
            ("PATH", "/home/u/.rustup/toolchains/t/bin:/none"),
            ("RUSTUP_TOOLCHAIN", "nightly"),
        ]);
        // no proxy elsewhere on this PATH: the toolchain's own directory has to stay
        assert_eq!(left, ["HOME=/home/u", "LD_LIBRARY_PATH=/opt/lib", "PATH=/home/u/.rustup/toolchains/t/bin:/none"]);
    }

    #[test]
    fn caches_lie_where_xdg_says() {
        let cache = |vars: &[(&str, &str)]| {
            let vars = vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
            Environment::scrubbed(vars, None).cache_directory()
        };
        assert_eq!(cache(&[("HOME", "/h")]), Some("/h/.cache/sampan".into()));
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/sampan".into()));
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]), Some("/h/.cache/sampan".into()));
        assert_eq!(cache(&[]), None);
    }
}
