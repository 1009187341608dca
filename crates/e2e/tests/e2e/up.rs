//! From source to a URL.

use std::path::Path;
use std::process::{Command, Stdio};

use sampan_e2e::sampan::{SOON, body_of};
use sampan_e2e::{Sampan, http, sources, tools};
use sampan_testkit::{wait_for, wait_until};

/// Brings it up, asserts what it answers under its own name and under plain `localhost`, and takes it down.
#[track_caller]
fn check(sampan: &Sampan, source: &Path, words: &[&str], body: &str) {
    let url = sampan.up(source, words);
    let (host, port, path) = http::split(&url);
    let name = host.strip_suffix(".localhost").unwrap_or_else(|| panic!("{url} is of no service"));
    assert_eq!(path, "/");
    // ready means ready: the first request is answered
    let response = http::get(&url).expect("an answer");
    assert_eq!((response.status, response.body.as_str()), (200, body), "{url}");
    assert_eq!(http::get(&format!("http://localhost:{port}/")).expect("an answer").body, body);
    assert_eq!(http::get(&format!("http://nobody.localhost:{port}/")).expect("an answer").status, 404);
    sampan.ok(&["down", name]);
    assert_eq!(http::get(&url).expect("an answer").status, 404, "{url} is down");
}

#[test]
fn hello_rust() {
    check(&Sampan::new(), &sources::example("hello-rust"), &[], "Hello, World!");
}

#[test]
fn hello_go() {
    check(&Sampan::new(), &sources::example("hello-go"), &[], "Hello, World!");
}

#[test]
fn a_lone_go_file_that_declares_nothing() {
    check(&Sampan::new(), &sources::fixture("go-lone"), &[], "Hello from a lone file!");
}

#[test]
fn a_go_module_with_its_main_package_below_cmd() {
    check(&Sampan::new(), &sources::fixture("go-cmd"), &[], "Hello from cmd/x!");
}

#[test]
fn a_rust_app_that_links_libz_and_libsqlite3() {
    let libraries = tools::libraries();
    let sampan = Sampan::new().with("SAMPAN_TEST_LIBRARIES", libraries.to_str().expect("a path in UTF-8"));
    let url = sampan.up(&sources::fixture("dynamic"), &[]);
    let body = body_of(&url);
    assert!(body.starts_with("zlib 1.") && body.contains("sqlite 3."), "{body}");
}

#[test]
fn an_app_that_listens_on_its_loopback_only() {
    check(&Sampan::new(), &sources::fixture("probe"), &["-e", "PROBE_HOST=127.0.0.1"], "probe one");
}

#[test]
fn an_app_on_a_port_of_its_own() {
    let sampan = Sampan::new();
    let source = sources::fixture("go-lone");
    // it does not look at PORT and listens on 8080 all the same: found where it is
    check(&sampan, &source, &["-e", "PORT=9999"], "Hello from a lone file!");
    check(&sampan, &sources::fixture("probe"), &["--port", "80"], "probe one");
}

#[test]
fn a_ready_binary() {
    let sampan = Sampan::new();
    // made by the same command that compiles it
    sampan.up(&sources::fixture("probe"), &["--name", "compiled"]);
    let binary = sources::fixture("probe").join("target/release/probe");
    let url = sampan.up(&binary, &["--name", "ready"]);
    assert_eq!(body_of(&url), "probe one");
}

#[test]
fn settings_come_from_flags_then_from_sampan_toml() {
    let sampan = Sampan::new();
    let source = sources::private_fixture("probe", &sampan.dir());
    let toml =
        "name = \"from-toml\"\n[size]\ncpus = 0.5\nmemory = \"64MiB\"\n[env]\nGREETING = \"toml\"\nOTHER = \"toml\"\n";
    std::fs::write(source.join("sampan.toml"), toml).expect("a sampan.toml");
    let url = sampan.up(&source, &["--memory", "96MiB", "-e", "GREETING=flag"]);
    assert!(url.contains("//from-toml.localhost:"), "{url}");
    assert_eq!(body_of(&format!("{url}env/GREETING")), "flag");
    assert_eq!(body_of(&format!("{url}env/OTHER")), "toml");
    let server = &sampan.inspect("from-toml")["replicas"][0]["server"];
    assert_eq!((server["cpus"].as_f64(), server["memory_bytes"].as_u64()), (Some(0.5), Some(96 << 20)));
}

#[test]
fn several_replicas_share_the_load() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &["--replicas", "3"]);
    let mut names: Vec<String> = (0..30).map(|_| body_of(&format!("{url}file/etc/hostname"))).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3, "{names:?}");
    let service = sampan.inspect("probe");
    assert_eq!(service["replicas"].as_array().map(Vec::len), Some(3));
    assert_eq!(service["health"], "ready");
}

#[test]
fn eight_at_once_from_eight_shells() {
    let sampan = Sampan::new();
    let source = sources::fixture("probe");
    let source = source.to_str().expect("a path in UTF-8");
    let names: Vec<String> = (1..=8).map(|number| format!("app-{number}")).collect();
    let shells: Vec<_> = names
        .iter()
        .map(|name| {
            let mut command = sampan.command(&["up", source, "--name", name]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell")
        })
        .collect();
    for (name, shell) in names.iter().zip(shells) {
        let output = shell.wait_with_output().expect("its end");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {}\n{stderr}", output.status);
        let url = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(url.contains(name), "{url}");
        assert_eq!(http::get(&url).expect("an answer").body, "probe one");
    }
    assert_eq!(sampan.json(&["ps", "--json"]).as_array().map(Vec::len), Some(8));
}

#[test]
fn two_of_one_name_at_once_end_as_one_service() {
    let sampan = Sampan::new();
    let source = sources::fixture("probe");
    let source = source.to_str().expect("a path in UTF-8");
    let start = |greeting: &str| {
        let greeting = format!("GREETING={greeting}");
        let mut command = sampan.command(&["up", source, "-e", &greeting]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell")
    };
    let urls = [start("a"), start("b")].map(|shell| {
        let output = shell.wait_with_output().expect("its end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    assert_eq!(urls[0], urls[1]);
    let greeting = body_of(&format!("{}env/GREETING", urls[0]));
    assert!(["a", "b"].contains(&greeting.as_str()), "{greeting}");
    // the version that lost is drained first
    wait_until("one replica alone", SOON, || sampan.containers().len() == 1);
}

#[test]
fn its_output_ends_in_a_pipe() {
    let sampan = Sampan::new();
    let source = sources::fixture("probe");
    // the daemon that is started on the way must not hold the pipe open
    let mut up = sampan.command(&["up", source.to_str().expect("a path in UTF-8")]);
    let mut up = up.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("sampan");
    let output = up.stdout.take().expect("its output");
    let mut cat = Command::new("cat").stdin(output).stdout(Stdio::null()).spawn().expect("cat");
    assert!(up.wait().expect("its end").success());
    let status = wait_for("cat to end", SOON, || cat.try_wait().expect("cat's status"));
    assert!(status.success());
}

#[test]
fn up_again_without_a_change_changes_nothing() {
    let sampan = Sampan::new();
    let source = sources::fixture("probe");
    let url = sampan.up(&source, &[]);
    let before = sampan.inspect("probe");
    assert_eq!(sampan.up(&source, &[]), url);
    let after = sampan.inspect("probe");
    assert_eq!(before["version"], after["version"]);
    assert_eq!(before["replicas"][0]["id"], after["replicas"][0]["id"]);
}

#[test]
fn logs_are_kept_and_followed() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    body_of(&format!("{url}say/before"));
    let mut command = sampan.command(&["logs", "-f", "probe"]);
    let mut follower = command.stdout(Stdio::piped()).spawn().expect("sampan logs");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().expect("its output")));
    let mut lines = lines.map(|line| line.expect("a line"));
    assert!(lines.any(|line| line == "before"));
    body_of(&format!("{url}say/after"));
    assert!(lines.any(|line| line == "after"));
    // following ends when there is nothing more to come
    sampan.ok(&["down", "probe"]);
    let status = wait_for("logs -f to end", SOON, || follower.try_wait().expect("its status"));
    assert!(status.success(), "{status}");
}

#[test]
fn what_programs_read() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    let service = sampan.inspect("probe");
    for field in ["kind", "name", "url", "image", "replicas", "health", "version"] {
        assert!(!service[field].is_null(), "{field} of {service}");
    }
    assert_eq!((service["kind"].as_str(), service["url"].as_str()), (Some("service"), Some(url.as_str())));
    let container = &service["replicas"][0];
    for field in ["id", "name", "image", "server", "state", "mounts", "env", "ports"] {
        assert!(!container[field].is_null(), "{field} of {container}");
    }
    assert_eq!(container["name"], "probe.1");
    assert_eq!(container["state"]["status"], "running");
    assert_eq!(container["state"]["oom_killed"], false);
    for field in ["started_at", "pid"] {
        assert!(!container["state"][field].is_null(), "{field} of {container}");
    }
    for field in ["name", "cpus", "memory_bytes", "address"] {
        assert!(!container["server"][field].is_null(), "{field} of {container}");
    }
    assert_eq!(sampan.inspect("probe.1")["kind"], "container");
    assert!(sampan.ok(&["ps"]).contains("probe"));
    assert!(!sampan.ok(&["ps", "--quiet"]).contains(' '));
    let daemon = sampan.json(&["daemon", "status", "--json"]);
    for field in ["version", "root", "socket", "started_at", "revision", "http", "processes"] {
        assert!(!daemon[field].is_null(), "{field} of {daemon}");
    }
    sampan.run(&["inspect", "nobody"]).assert_fails(1, &["nobody"]);
}

#[test]
fn a_version_that_failed_is_taken_back_by_up_of_what_was() {
    let sampan = Sampan::new();
    let source = sources::fixture("probe");
    let url = sampan.up(&source, &[]);
    let words = ["up", source.to_str().expect("a path in UTF-8"), "-e", "PROBE_MODE=exit"];
    for _ in 0..2 {
        sampan.run(&words).assert_fails(1, &["before it was ready"]);
        assert_eq!(sampan.containers().len(), 1, "the version that failed is gone");
        assert_eq!(sampan.up(&source, &[]), url);
        assert_eq!(body_of(&url), "probe one");
    }
}

#[test]
fn a_replica_does_not_take_a_container_for_its_own_that_has_its_name() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    sampan.ok(&["run", "-d", "--name", "probe.1", "bb", "sleep", "1000"]);
    let source = sources::fixture("probe");
    let words = ["up", source.to_str().expect("a path in UTF-8")];
    sampan.run(&words).assert_fails(1, &["probe.1", "in use"]);
    assert_eq!(sampan.inspect("probe.1")["state"]["status"], "running");
}

#[test]
fn a_replica_is_its_service_s_to_remove() {
    let sampan = Sampan::new();
    let url = sampan.up(&sources::fixture("probe"), &[]);
    for words in [&["rm", "-f", "probe.1"][..], &["stop", "probe.1"]] {
        sampan.run(words).assert_fails(1, &["replica of the service", "sampan down"]);
    }
    assert_eq!(body_of(&url), "probe one");
}
