//! What is recognised, and what is said where it is not.

use std::os::unix::fs::symlink;

use sampan_pack::detect::{DetectError, Selection, SourceKind, detect};

use crate::{directory, environment, without_tools, words};

const MAIN: &str = "fn main() {}";
const GO: &str = "package main\n\nfunc main() {}\n";

/// A crate with these lines after its name.
fn package(name: &str, more: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"1.2.3\"\nedition = \"2024\"\n{more}")
}

/// What was chosen, in a word; or what was said.
fn chosen(files: &[(&str, &str)], selection: &Selection) -> Result<String, String> {
    let directory = directory(files);
    let source = detect(directory.path(), selection, &environment()).map_err(|e| words(&e, directory.path()))?;
    Ok(match source.kind {
        SourceKind::Cargo(binary) => format!("cargo {}/{}", binary.package, binary.bin),
        // the temporary directory's own name is another each time
        SourceKind::Go(main) => format!("go {}", main.arguments.join(" ")),
        SourceKind::Executable(path) => format!("program {}", path.file_name().expect("name").display()),
        SourceKind::Site => "site".into(),
    })
}

fn check(files: &[(&str, &str)], bin: Option<&str>, expected: Result<&str, &str>) {
    let selection = Selection { bin: bin.map(Into::into), package: None };
    match (chosen(files, &selection), expected) {
        (Ok(chosen), Ok(expected)) => assert_eq!(chosen, expected, "{files:?}"),
        (Err(said), Err(expected)) => assert!(said.contains(expected), "{files:?} said\n{said}"),
        (got, _) => panic!("{files:?} with {bin:?} gave {got:?}"),
    }
}

#[test]
fn cargo() {
    let one = package("one", "");
    let several = package("many", "");
    let default = package("many", "default-run = \"b\"");
    let root = format!("{}[workspace]\nmembers = [\"m\"]\n", package("root", ""));
    let virtual_two = "[workspace]\nresolver = \"3\"\nmembers = [\"a\", \"b\"]\n";
    let (a, b) = (package("a", ""), package("b", ""));
    let a_alone = [
        ("Cargo.toml", virtual_two),
        ("a/Cargo.toml", &a),
        ("a/src/main.rs", MAIN),
        ("b/Cargo.toml", &b),
        ("b/src/lib.rs", ""),
    ];
    let both = [
        ("Cargo.toml", virtual_two),
        ("a/Cargo.toml", &a),
        ("a/src/main.rs", MAIN),
        ("b/Cargo.toml", &b),
        ("b/src/main.rs", MAIN),
    ];
    let two: [(&str, &str); 3] = [("Cargo.toml", &several), ("src/bin/a.rs", MAIN), ("src/bin/b.rs", MAIN)];

    check(&[("Cargo.toml", &one), ("src/main.rs", MAIN)], None, Ok("cargo one/one"));
    check(
        &[("Cargo.toml", &one), ("src/main.rs", MAIN), ("src/lib.rs", ""), ("main.go", GO)],
        None,
        Ok("cargo one/one"),
    );
    check(&two, None, Err("DIR holds several programs: a, b. Choose one with --bin NAME"));
    check(&two, Some("a"), Ok("cargo many/a"));
    check(&two, Some("c"), Err("DIR holds no program \"c\"; there is: a, b"));
    check(&[("Cargo.toml", &default), two[1], two[2]], None, Ok("cargo many/b"));
    check(&[two[0], two[1], two[2], ("sampan.toml", "bin = \"b\"")], None, Ok("cargo many/b"));
    check(&[two[0], two[1], two[2], ("sampan.toml", "bin = \"b\"")], Some("a"), Ok("cargo many/a"));
    check(&[("Cargo.toml", &one), ("src/lib.rs", "")], None, Err("DIR holds no program, only libraries (one)"));
    check(&a_alone, None, Ok("cargo a/a"));
    check(&both, None, Err("several programs: a, b."));
    check(&both, Some("b"), Ok("cargo b/b"));
    check(
        &[("Cargo.toml", &root), ("src/lib.rs", ""), ("m/Cargo.toml", &package("m", "")), ("m/src/main.rs", MAIN)],
        None,
        Ok("cargo m/m"),
    );
    check(
        &[("Cargo.toml", &root), ("src/main.rs", MAIN), ("m/Cargo.toml", &package("m", "")), ("m/src/main.rs", MAIN)],
        None,
        Ok("cargo root/root"),
    );
    check(&[("Cargo.toml", "[package]\nname = 1\n")], None, Err("cargo cannot read the crate in DIR:\nerror:"));

    let selection = Selection { bin: None, package: Some("b".into()) };
    assert_eq!(chosen(&both, &selection).as_deref(), Ok("cargo b/b"));
    let selection = Selection { bin: None, package: Some("c".into()) };
    let said = chosen(&both, &selection).expect_err("no package c");
    assert_eq!(said, "DIR holds no package \"c\"; there is: a, b");
}

#[test]
fn a_member_does_not_speak_for_its_workspace() {
    let files = directory(&[
        ("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"a\", \"b\"]\n"),
        ("a/Cargo.toml", &package("a", "")),
        ("a/src/lib.rs", ""),
        ("b/Cargo.toml", &package("b", "")),
        ("b/src/main.rs", MAIN),
    ]);
    let error = detect(&files.path().join("a"), &Selection::default(), &environment()).expect_err("a library");
    assert!(matches!(error, DetectError::LibraryOnly { packages, .. } if packages == ["a"]));
}

#[test]
fn go() {
    let module = ("go.mod", "module example.com/x\n");
    check(&[module, ("x.go", GO)], None, Ok("go ."));
    check(&[("main.go", GO)], None, Ok("go main.go"));
    check(&[("a.go", GO), ("b.go", GO), ("b_test.go", GO), ("l.go", "package lib")], None, Ok("go a.go b.go"));
    check(&[module, ("x.go", "package x"), ("cmd/serve/main.go", GO)], None, Ok("go ./cmd/serve"));
    check(&[module, ("cmd/a/a.go", GO), ("cmd/b/b.go", GO), ("cmd/c/c.go", "package c")], None, Err("programs: a, b."));
    check(&[module, ("cmd/a/a.go", GO), ("cmd/b/b.go", GO)], Some("b"), Ok("go ./cmd/b"));
    check(&[module, ("x.go", "package x")], None, Err("no package main in it nor in a directory under cmd/"));
    check(&[module, ("gen.go", "//go:build ignore\n\npackage main")], None, Err("no package main"));
    check(&[("lib.go", "package lib")], None, Err("nothing in DIR can be made into a service"));
}

#[test]
fn ready_programs() {
    let sh = "copy of /bin/sh";
    check(&[("app*", sh), ("data", sh), ("run*", "#!/bin/sh\n")], None, Ok("program app"));
    check(&[("a*", sh), ("b*", sh)], None, Err("several programs: a, b."));
    check(&[("a*", sh), ("b*", sh)], Some("b"), Ok("program b"));
    check(&[("a*", sh)], Some("b"), Err("no program \"b\"; there is: a"));
    let names: Vec<String> = (10..40).map(|number| format!("p{number}*")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), sh)).collect();
    check(&many, None, Err("p28, p29, … and 10 more. Choose one"));
    check(&[("readme", "")], None, Err("there is no Cargo.toml, no go.mod, no .go file of package main"));
    check(&[], None, Err("nothing in DIR"));

    let files = directory(&[("app*", sh)]);
    let program = files.path().join("app");
    let source = detect(&program, &Selection::default(), &without_tools()).expect("a program by its path");
    assert_eq!(source.kind, SourceKind::Executable(program.canonicalize().expect("canonical")));
}

#[test]
fn static_sites() {
    let (index, sh) = (("index.html", "<h1>"), "copy of /bin/sh");
    check(&[index], None, Ok("site"));
    // a program that is offered for download
    check(&[index, ("tool*", sh)], None, Ok("site"));
    check(&[index, ("tool*", sh)], Some("tool"), Ok("program tool"));
    check(&[index, ("main.go", GO)], None, Ok("go main.go"));
    check(&[index, ("Cargo.toml", &package("one", "")), ("src/main.rs", MAIN)], None, Ok("cargo one/one"));
    check(&[("about.html", "<h1>")], None, Err("no index.html"));
}

#[test]
fn a_foreign_program_is_refused() {
    let files = directory(&[("app*", "copy of /bin/sh")]);
    let program = files.path().join("app");
    let mut bytes = std::fs::read(&program).expect("read");
    bytes[18..20].copy_from_slice(&[22, 0]); // e_machine: s390
    std::fs::write(&program, bytes).expect("write");
    for path in [files.path(), &program] {
        let error = detect(path, &Selection::default(), &without_tools()).expect_err("a foreign program");
        let said = words(&error, files.path());
        assert!(said.starts_with("DIR/app is a program for s390x, and this machine is "), "{said}");
    }
}

#[test]
fn what_is_not_there() {
    let files = directory(&[("text", "hello"), ("sampan.toml", "prot = 1")]);
    for (path, says) in [
        ("none", "no such directory: DIR/none"),
        ("text/x", "no such directory: DIR/text/x"),
        ("text", "DIR/text is neither a directory of source nor an executable program"),
        ("", "DIR/sampan.toml:1:1: unknown field `prot`"),
    ] {
        let error = detect(&files.path().join(path), &Selection::default(), &without_tools()).expect_err(path);
        assert!(words(&error, files.path()).starts_with(says), "{}", words(&error, files.path()));
    }
}

#[test]
fn links_in_the_directory_lead_nowhere() {
    let outside = directory(&[("Cargo.toml", "[package]"), ("app*", "copy of /bin/sh")]);
    let files = directory(&[]);
    for name in ["Cargo.toml", "app"] {
        symlink(outside.path().join(name), files.path().join(name)).expect("link");
    }
    let error = detect(files.path(), &Selection::default(), &environment()).expect_err("only links");
    assert!(matches!(error, DetectError::NothingRecognisable { .. }), "{error}");
}

#[test]
fn a_missing_toolchain_says_how_to_get_it() {
    let files = directory(&[("Cargo.toml", &package("one", "")), ("src/main.rs", MAIN)]);
    let error = detect(files.path(), &Selection::default(), &without_tools()).expect_err("no cargo");
    let said = words(&error, files.path());
    assert!(said.starts_with("cargo is not installed") && said.contains("https://rustup.rs"), "{said}");
}
