//! The same source is the same image: in another directory, as another user, with another umask, toolchain's place,
//! number of jobs, time zone, age of files and order of builds.
//!
//! The other user's build happens in a process of its own: this very test binary, told by [`CHILD`] what to pack.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use sampan_pack::{Environment, Options, prepare};
use tempfile::TempDir;

use crate::{Silent, directory, environment};

/// The source that the process is to pack, where it is one for that alone.
const CHILD: &str = "SAMPAN_TEST_PACK";
const SOMEBODY: &str = "1000";

/// Panics in each of three crates: in the program, in a dependency, and in what a build script wrote, for that is how
/// paths get into programs.
const RUST: [(&str, &str); 6] = [
    (
        "Cargo.toml",
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\ninner = { path = \"inner\" }\n\
         [profile.release]\ndebug = true\nstrip = false\n",
    ),
    (
        "build.rs",
        "fn main() { let out = std::env::var(\"OUT_DIR\").unwrap();\n\
         std::fs::write(format!(\"{out}/made.rs\"), \"pub fn made(n: usize) -> u8 { [1, 2, 3][n] }\").unwrap(); }",
    ),
    (
        "src/main.rs",
        "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n\
         fn main() { let n = std::env::args().count(); println!(\"{} {} {}\", made(n), inner::inner(n), file!()); }",
    ),
    ("inner/Cargo.toml", "[package]\nname = \"inner\"\nversion = \"0.1.0\"\nedition = \"2024\"\n"),
    ("inner/src/lib.rs", "pub fn inner(n: usize) -> u8 { [4, 5, 6][n] }\npub mod deep;\n"),
    ("inner/src/deep.rs", "pub fn deep() -> Vec<String> { std::env::args().collect() }\n"),
];

const SITE: [(&str, &str); 3] = [("index.html", "<h1>"), ("a/b.css", "b{}"), ("a/c.css", "c{}")];

fn digest(source: &Path, env: &Environment) -> String {
    let out = tempfile::tempdir().expect("out");
    let prepared = prepare(source, &Options::default(), env).expect("prepare");
    prepared.pack(env, out.path(), &mut Silent, None).expect("pack").manifest.to_string()
}

/// Not a test but the other user's process.
#[test]
fn child() {
    if let Some(source) = std::env::var_os(CHILD) {
        let env = Environment::of_caller().with_sampan("/bin/sh");
        println!("digest={}", digest(Path::new(&source), &env));
    }
}

/// The digest of a source as somebody else gets it, who has another home and the toolchain elsewhere.
fn as_somebody(source: TempDir) -> String {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc");
    let sysroot = String::from_utf8(sysroot.stdout).expect("a path in UTF-8");
    let home = tempfile::tempdir().expect("a home");
    let own = home.path().join("own");
    std::fs::create_dir(home.path().join("toolchain")).expect("a place for the toolchain");
    std::fs::copy(std::env::current_exe().expect("ourselves"), &own).expect("a copy of ourselves");
    for path in [source.path(), home.path()] {
        let status = Command::new("chown").args(["-R", &format!("{SOMEBODY}:{SOMEBODY}")]).arg(path).status();
        assert!(status.expect("chown").success());
    }
    // mounted for this process alone: root's home is closed to others
    let script = "mount --bind \"$1\" \"$2/toolchain\" && umask 077 && cd / && exec setpriv --reuid $3 --regid $3 \
                  --clear-groups env -i HOME=\"$2\" TMPDIR=\"$2\" PATH=\"$2/toolchain/bin:/usr/bin:/bin\" TZ=Asia/Tokyo \
                  CARGO_BUILD_JOBS=1 SAMPAN_TEST_PACK=\"$4\" \"$2/own\" --exact reproducible::child --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", sysroot.trim()])
        .arg(home.path())
        .arg(SOMEBODY)
        .arg(source.path())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = said.lines().find_map(|line| line.split_once("digest=")).map(|(_, digest)| digest.to_owned());
    digest.unwrap_or_else(|| panic!("{}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn make_old(directory: &Path) {
    for name in ["src/main.rs", "index.html", "app"] {
        if let Ok(file) = std::fs::File::options().append(true).open(directory.join(name)) {
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("a time");
        }
    }
}

fn check(files: &[(&str, &str)]) {
    let env = environment().with_sampan("/bin/sh");
    let (here, there) = (directory(files), directory(files));
    make_old(there.path());
    let first = digest(here.path(), &env);
    assert_eq!(first, digest(here.path(), &env), "a second time");
    assert_eq!(first, digest(there.path(), &env), "in another directory");
    assert_eq!(first, as_somebody(directory(files)), "as somebody else");
}

#[test]
fn rust() {
    check(&RUST);
}

#[test]
fn sites() {
    check(&SITE);
}

#[test]
fn programs() {
    check(&[("app*", "copy of /bin/sh")]);
}

/// What cargo built for its user stays built, and so does ours.
#[test]
fn the_users_own_builds_stay() {
    let files = directory(&RUST);
    let env = environment();
    let build = || {
        let output = Command::new("cargo")
            .args(["build", "--release"])
            .current_dir(files.path())
            .env_remove("CARGO_TARGET_DIR")
            .output()
            .expect("cargo");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said.matches("Compiling").count()
    };
    assert_eq!(build(), 2);
    let first = digest(files.path(), &env);
    assert_eq!(build(), 0, "cargo has to build again what was there before us");
    let program = files.path().join("target/release/tiny");
    let ours = std::fs::metadata(&program).expect("a program").modified().expect("a time");
    assert_eq!(digest(files.path(), &env), first);
    assert_eq!(build(), 0);
    assert_eq!(
        std::fs::metadata(&program).expect("a program").modified().expect("a time"),
        ours,
        "it was linked again"
    );
}

#[test]
fn the_users_own_flags_count() {
    let program = |config: &str, flags: Option<&str>| {
        let mut files = RUST.to_vec();
        files[2] = ("src/main.rs", "fn main() { print!(\"{}{}\", cfg!(user_build), cfg!(user_target)) }");
        files.push((".cargo/config.toml", config));
        let files = directory(&files);
        let vars = std::env::vars_os().filter(|(name, _)| name != "CARGO_TARGET_DIR" && name != "RUSTFLAGS");
        let env = Environment::scrubbed(vars.chain(flags.map(|flags| ("RUSTFLAGS".into(), flags.into()))), None);
        let source = sampan_pack::detect::detect(files.path(), &Default::default(), &env).expect("detect");
        let binary = sampan_pack::compile::compile(&source, &env, &mut Silent, None).expect("compile");
        let bytes = std::fs::read(&binary.path).expect("the program");
        let path = files.path().canonicalize().expect("canonical");
        let path = path.to_str().expect("text").as_bytes().to_owned();
        let tells = bytes.windows(path.len()).any(|window| window == path);
        let output = Command::new(&binary.path).output().expect("it runs");
        (String::from_utf8(output.stdout).expect("text"), tells)
    };
    let check = |config: &str, flags: Option<&str>, expected: &str| {
        assert_eq!(program(config, flags), (expected.to_owned(), false), "{config:?} {flags:?}");
    };
    let target =
        format!("[target.{}-unknown-linux-gnu]\nrustflags = ['--cfg', 'user_target']\n", std::env::consts::ARCH);
    check("", None, "falsefalse");
    check("[build]\nrustflags = ['--cfg', 'user_build']\n", None, "truefalse");
    check("[build]\nrustflags = '--cfg user_build'\n", None, "truefalse");
    check(&target, None, "falsetrue");
    check(&target, Some("--cfg user_build"), "truefalse");
}
