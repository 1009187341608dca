//! Compilers, run for real.

use std::process::Stdio;

use sampan_pack::compile::{CompileError, Interrupt, compile};
use sampan_pack::detect::{Selection, detect};
use sampan_pack::{Environment, Progress};

use crate::{directory, environment, without_tools, words};

const TOML: &str = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[features]\nloud = []\n";

/// Hears what is run, and keeps the compiler's words out of the test's output.
#[derive(Default)]
struct Heard(Vec<String>);

impl Progress for Heard {
    fn compiling(&mut self, command: &str) {
        self.0.push(command.into());
    }

    fn compiler_output(&mut self) -> Stdio {
        Stdio::null()
    }
}

#[test]
fn a_crate_is_compiled_where_it_says() {
    let files = directory(&[
        ("Cargo.toml", TOML),
        ("src/main.rs", "fn main() { print!(\"{}\", cfg!(feature = \"loud\")) }"),
        ("sampan.toml", "[build]\nfeatures = [\"loud\"]\n"),
        (".cargo/config.toml", "[build]\ntarget-dir = \"elsewhere\"\n"),
    ]);
    let source = detect(files.path(), &Selection::default(), &environment()).expect("detect");
    let mut heard = Heard::default();
    let binary = compile(&source, &environment(), &mut heard, Some(&Interrupt::default())).expect("compile");
    assert_eq!(heard.0, ["cargo build --release --package tiny --bin tiny --features loud"]);
    assert_eq!(binary.name, "tiny");
    assert!(binary.path.starts_with(files.path().canonicalize().expect("canonical").join("elsewhere")), "{binary:?}");
    let output = std::process::Command::new(&binary.path).output().expect("run it");
    assert_eq!(output.stdout, b"true");
}

#[test]
fn a_compile_error_is_the_compilers_to_explain() {
    let files = directory(&[("Cargo.toml", TOML), ("src/main.rs", "fn main() { nonsense }")]);
    let source = detect(files.path(), &Selection::default(), &environment()).expect("detect");
    let error = compile(&source, &environment(), &mut Heard::default(), None).expect_err("nonsense");
    assert_eq!(
        words(&error, files.path()),
        "the source in DIR does not compile: `cargo build --release --package tiny --bin tiny` ended with \
         exit status: 101; its own words are above"
    );
}

#[test]
fn a_missing_compiler_says_how_to_get_it() {
    let files = directory(&[("main.go", "package main\nfunc main() {}\n")]);
    let source = detect(files.path(), &Selection::default(), &without_tools()).expect("go is not needed to detect Go");
    let cache = tempfile::tempdir().expect("temporary directory");
    let env = Environment::scrubbed(
        [("PATH".into(), "/nonexistent".into()), ("XDG_CACHE_HOME".into(), cache.path().into())],
        None,
    );
    let error = compile(&source, &env, &mut Heard::default(), None).expect_err("no go");
    assert!(words(&error, files.path()).contains("`apt-get install golang-go`"), "{error}");
    let homeless = Environment::scrubbed([("PATH".into(), "/nonexistent".into())], None);
    let error = compile(&source, &homeless, &mut Heard::default(), None).expect_err("no home");
    assert!(matches!(error, CompileError::NoCache), "{error}");
}

#[test]
fn an_interrupt_ends_the_compiler_and_its_children() {
    // a build script that says that it runs, and would go on for ever
    let files = directory(&[
        ("Cargo.toml", TOML),
        ("src/main.rs", "fn main() {}"),
        (
            "build.rs",
            "fn main() { std::fs::write(\"started\", std::process::id().to_string()).unwrap(); loop { std::thread::park() } }",
        ),
    ]);
    let source = detect(files.path(), &Selection::default(), &environment()).expect("detect");
    let interrupt = Interrupt::away_from_terminal();
    let (switch, mark) = (interrupt.clone(), files.path().join("started"));
    let watcher = std::thread::spawn(move || {
        let pid = loop {
            match std::fs::read_to_string(&mark) {
                Ok(pid) if !pid.is_empty() => break pid,
                _ => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        };
        switch.raise();
        pid
    });
    let error = compile(&source, &environment(), &mut Heard::default(), Some(&interrupt)).expect_err("interrupted");
    assert!(matches!(error, CompileError::Interrupted), "{error}");
    let pid = watcher.join().expect("the watcher");
    let left = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while left() {
        assert!(std::time::Instant::now() < until, "the build script {pid} lives on");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let error = compile(&source, &environment(), &mut Heard::default(), Some(&interrupt)).expect_err("still raised");
    assert!(matches!(error, CompileError::Interrupted), "{error}");
}
