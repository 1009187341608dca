//! Sources in temporary directories, through the real toolchain, to images.

#![forbid(unsafe_code)]

#[path = "it/compile.rs"]
mod compile;
#[path = "it/detect.rs"]
mod detect;
#[path = "it/image.rs"]
mod image;
#[path = "it/project.rs"]
mod project;
#[path = "it/reproducible.rs"]
mod reproducible;

use std::path::Path;
use std::process::Stdio;

use sampan_pack::{Environment, Progress};
use tempfile::TempDir;

/// Keeps the compiler's words out of the test's output.
struct Silent;

impl Progress for Silent {
    fn compiler_output(&mut self) -> Stdio {
        Stdio::null()
    }
}

/// A directory of these files; one whose name ends in `*` is made executable, and the `*` dropped.
fn directory(files: &[(&str, &str)]) -> TempDir {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().expect("temporary directory");
    for (name, content) in files {
        let path = directory.path().join(name.trim_end_matches('*'));
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        match content.strip_prefix("copy of ") {
            Some(from) => std::fs::copy(from, &path).map(drop).expect("copy"),
            None => std::fs::write(&path, content).expect("write"),
        }
        let mode = if name.ends_with('*') { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
    }
    directory
}

/// The tests' environment, and a target directory of their own: whoever runs the tests may have set one for all.
fn environment() -> Environment {
    let ours = std::env::vars_os().filter(|(name, _)| name != "CARGO_TARGET_DIR" && name != "CARGO_BUILD_TARGET_DIR");
    Environment::scrubbed(ours, std::env::current_exe().expect("ourselves").parent())
}

/// The tests' environment with nothing on its `PATH`.
fn without_tools() -> Environment {
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/nonexistent".into());
    Environment::scrubbed([("PATH".into(), "/nonexistent".into()), ("HOME".into(), home)], None)
}

/// An error with its causes, the directory named `DIR`.
fn words(error: &dyn std::error::Error, directory: &Path) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    let canonical = directory.canonicalize().unwrap_or_else(|_| directory.into());
    words.replace(&canonical.display().to_string(), "DIR").replace(&directory.display().to_string(), "DIR")
}
