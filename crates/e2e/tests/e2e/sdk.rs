//! The SDK: `examples/cloud.rs`, as somebody would run it.

use std::path::PathBuf;
use std::process::Command;

use sampan_e2e::sampan::outcome;
use sampan_e2e::{Sampan, sources, tools};
use serde_json::json;

/// The example, compiled into the same directory as the binary under test.
fn example() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(tools::repository()).args(["build", "--locked", "--quiet"]);
    outcome(command.args(["-p", "sampan-client", "--example", "cloud"])).assert_ok();
    tools::built().join("debug/examples/cloud")
}

#[test]
fn one_server_s_whole_life() {
    let sampan = Sampan::new();
    let source = sources::fixture("probe");
    let mut command = Command::new(example());
    command.arg(&source).current_dir(sampan.dir()).env("SAMPAN_BIN", tools::sampan());
    for (name, value) in sampan.command(&[]).get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    // no daemon runs yet: the program starts it
    let told = outcome(&mut command).assert_ok().stdout;
    let lines: Vec<&str> = told.lines().filter(|line| !line.starts_with("  ")).collect();
    let (first, again) = (lines[0], lines[1]);
    assert!(first.starts_with("probe on server-") && first.contains(" answers at http://probe.localhost:"), "{told}");
    assert!(again.starts_with("probe answers again at http://probe.localhost:"), "{told}");
    // whole values as they followed one another: as it was made, then smaller and larger, and its end
    let seen: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(seen.first(), Some(&"Running: 1 CPUs, 256MiB"), "{told}");
    assert!(seen.contains(&"Running: 0.5 CPUs, 512MiB"), "{told}");
    assert_eq!(seen.last(), Some(&"gone"), "{told}");
    // and nothing that it began is left
    assert_eq!(sampan.json(&["ps", "-a", "--json"]), json!([]));
    assert_eq!(sampan.json(&["server", "ls", "--json"]), json!([]));
}
