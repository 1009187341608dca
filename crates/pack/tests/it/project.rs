//! What a directory brings up.

use std::path::Path;

use sampan_model::Label;
use sampan_pack::{Options, PackError, Project, Selection, names, project};

use crate::{directory, without_tools, words};

const GO: &str = "package main\n\nfunc main() {}\n";

fn label(name: &str) -> Label {
    Label::parse(name).expect("a label")
}

/// The services with their commands, or what was said.
fn said(files: &[(&str, &str)], options: &Options, only: &[&str]) -> Result<Vec<String>, String> {
    let directory = directory(files);
    let only: Vec<Label> = only.iter().map(|name| label(name)).collect();
    let project = project(directory.path(), options, &only, &without_tools());
    let Project { services, .. } = project.map_err(|error: PackError| words(&error, directory.path()))?;
    let one = |service: &sampan_pack::Prepared| {
        let settings = &service.settings;
        let port = settings.port.map(|port| format!(" at {port}")).unwrap_or_default();
        let env: String = settings.env.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        let closed = if settings.ingress { "" } else { " unrouted" };
        format!("{}{port}{closed}{env}: {}", settings.name, settings.command.join(" "))
    };
    Ok(services.iter().map(one).collect())
}

#[track_caller]
fn check(files: &[(&str, &str)], options: &Options, only: &[&str], expected: Result<&[&str], &str>) {
    match (said(files, options, only), expected) {
        (Ok(said), Ok(expected)) => assert_eq!(said, expected, "{files:?}"),
        (Err(said), Err(part)) => assert!(said.contains(part), "{files:?} said\n{said}"),
        (got, _) => panic!("{files:?} gave {got:?}"),
    }
}

/// With a name, for a temporary directory has another each time.
fn named() -> Options {
    Options { name: Some(label("shop")), ..Options::default() }
}

#[test]
fn processes_are_services() {
    let main = ("main.go", GO);
    let procfile = ("Procfile", "worker: QUEUE=$NAME ./main work --at ${PORT}\nweb: bin/main --listen 0.0.0.0:$PORT\n");
    check(&[main], &named(), &[], Ok(&["shop: "]));
    check(
        &[main, procfile, ("sampan.toml", "port = 3000\n[env]\nNAME = \"orders\"\n")],
        &named(),
        &[],
        Ok(&[
            "shop at 3000 NAME=orders: /app/main --listen 0.0.0.0:3000",
            // a worker has no port of its own; the one it is told is the default
            "shop-worker unrouted NAME=orders QUEUE=orders: /app/main work --at 8080",
        ]),
    );
    let env = Options { env: vec![("NAME".into(), "x".into()), ("PORT".into(), "9".into())], ..named() };
    check(
        &[main, procfile],
        &env,
        &["shop-worker"],
        Ok(&["shop-worker unrouted NAME=x PORT=9 QUEUE=x: /app/main work --at 9"]),
    );
    check(&[main, procfile], &named(), &[], Err("the process worker of shop-worker uses $NAME, which is not set"));
    // what the author of `sampan.toml` says comes first
    check(
        &[main, ("Procfile", "web: main a\n"), ("sampan.toml", "args = [\"b\"]")],
        &named(),
        &[],
        Ok(&["shop: /app/main b"]),
    );
    check(
        &[main, ("Procfile", "web: gunicorn app\n")],
        &named(),
        &[],
        Err("the process web in DIR/Procfile runs \"gunicorn\""),
    );
    check(&[main, ("Procfile", "jobs: main\n")], &named(), &[], Ok(&["shop-jobs unrouted: /app/main"]));
    let long = Options { name: Some(label(&"x".repeat(60))), ..Options::default() };
    check(&[main, ("Procfile", "worker: main\n")], &long, &[], Err("longer than 63 characters"));
}

#[test]
fn several_services_of_one_file() {
    let toml = "[services.web]\npath = \"web\"\ndepends_on = [\"api\"]\n[services.api]\npath = \"api\"\nport = 1\n";
    let files = [
        ("sampan.toml", toml),
        ("web/index.html", ""),
        ("api/main.go", GO),
        ("api/sampan.toml", "name = \"prices\"\nport = 2\nreplicas = 3"),
        ("api/Procfile", "web: main\njobs: main\n"),
    ];
    let none = Options::default();
    check(&files, &none, &[], Ok(&["prices at 1: /app/main", "prices-jobs unrouted: /app/main", "web: "]));
    // by the file's name for it, or by the service's
    check(&files, &none, &["api"], Ok(&["prices at 1: /app/main", "prices-jobs unrouted: /app/main"]));
    check(&files, &none, &["prices-jobs", "web"], Ok(&["prices-jobs unrouted: /app/main", "web: "]));
    check(&files, &none, &["shop"], Err("DIR holds no service shop; there is: prices, prices-jobs, web"));
    check(
        &files,
        &Options { port: Some(3), ..Options::default() },
        &[],
        Err("--port is for one service, and DIR holds"),
    );
    let bin = Options { selection: Selection { bin: Some("x".into()), package: None }, ..Options::default() };
    check(&files, &bin, &[], Err("choose one with --only NAME"));
    check(&files, &Options { port: Some(3), ..Options::default() }, &["web"], Ok(&["web at 3: "]));

    let same = "[services.a]\nname = \"x\"\n[services.b]\nname = \"x\"";
    check(&[("sampan.toml", same), ("index.html", "")], &none, &[], Err("two services of DIR are named x"));
    let nested =
        [("sampan.toml", "[services.a]\npath = \"a\""), ("a/sampan.toml", "[services.b]"), ("a/index.html", "")];
    check(&nested, &none, &[], Err("DIR/a is the directory of one service"));
    check(&[("sampan.toml", "[services.a]\npath = \"b\"")], &none, &[], Err("no such directory: DIR/b"));
    check(&[("sampan.toml", "[services.a]\n"), ("index.html", "")], &none, &[], Ok(&["a: "]));
}

#[test]
fn one_is_not_several() {
    let files = directory(&[("sampan.toml", "[services.a]\n[services.b]\n"), ("index.html", "")]);
    let error = sampan_pack::prepare(files.path(), &Options::default(), &without_tools()).expect_err("two");
    assert_eq!(words(&error, files.path()), "DIR holds several services (a, b): give the directory of one");
    let names = names(files.path()).expect("names");
    let path = files.path().canonicalize().expect("canonical");
    assert_eq!(names, [(label("a"), path.clone()), (label("b"), path)]);
    assert!(sampan_pack::names(Path::new("/bin/sh")).is_ok(), "a program is one service");
}

#[test]
fn volumes_are_mounted() {
    let files = directory(&[
        ("sampan.toml", "name = \"x\"\nvolumes = [\"data:/data\", \"conf:/etc/x:ro\"]"),
        ("index.html", ""),
    ]);
    let prepared = sampan_pack::prepare(files.path(), &Options::default(), &without_tools()).expect("prepare");
    let digest = sampan_model::Digest::from_sha256([0; 32]);
    let spec = serde_json::to_value(prepared.settings.into_spec(digest)).expect("JSON");
    assert_eq!(
        spec["mounts"],
        serde_json::json!([
            { "target": "/data", "source": { "kind": "volume", "name": "data" }, "read_only": false },
            { "target": "/etc/x", "source": { "kind": "volume", "name": "conf" }, "read_only": true },
        ])
    );
}
