//! Where the time goes: told for one start, and summed up for all.

use sampan_e2e::Sampan;
use sampan_e2e::native::Native;
use serde_json::{Value, json};

/// The steps of a list, and all of them together, in microseconds.
#[track_caller]
fn steps(list: &Value) -> (Vec<String>, u64) {
    let steps = list.as_array().unwrap_or_else(|| panic!("no list of steps: {list}"));
    let name = |step: &Value| step["step"].as_str().expect("a step's name").to_owned();
    (steps.iter().map(name).collect(), steps.iter().map(|step| step["us"].as_u64().expect("microseconds")).sum())
}

#[test]
fn a_run_says_where_its_time_went() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let told = sampan.run(&["run", "--rm", "--timing", "bb", "echo", "hello"]).assert_ok();
    assert_eq!(told.stdout, "hello\n", "what it writes is its own");
    for words in
        ["sampan run ", "  until it runs ", "  until it is removed ", "of it in the daemon ", "  root ", "in all"]
    {
        assert!(told.stderr.contains(words), "no {words:?} in {told}");
    }

    let started = std::time::Instant::now();
    let told = sampan.run(&["run", "--rm", "--timing", "--json", "bb", "true"]).assert_ok();
    let took = started.elapsed();
    let timing: Value = serde_json::from_str(&told.stderr).unwrap_or_else(|error| panic!("{error} in {told}"));
    let (own, own_us) = steps(&timing["command"]);
    let (daemons, daemons_us) = steps(&timing["daemon"]);
    let expected =
        ["command line", "until it is asked for", "until it is created", "until it runs", "until it has ended"];
    assert_eq!(own[..5], expected);
    assert!(daemons.len() >= 4, "{daemons:?}");
    assert!(0 < daemons_us && daemons_us <= own_us && u128::from(own_us) <= took.as_micros(), "{timing} of {took:?}");

    // nobody asked
    assert_eq!(sampan.run(&["run", "--rm", "bb", "true"]).assert_ok().stderr, "");
    let told = sampan.run(&["run", "-d", "--timing", "--name", "stays", "bb", "sleep", "60"]).assert_ok();
    assert!(told.stderr.contains("of it in the daemon"), "{told}");
}

#[test]
fn the_answer_to_a_start_says_it_and_no_other() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let native = Native::of(sampan.root());
    let ask = |method, path: &str, body: Option<&Value>| native.ask(method, path, body).expect("an answer").json();
    let body = json!({"image": "bb", "name": "box", "command": ["sleep", "60"]});
    let (first, _) = steps(&ask("POST", "/v1/containers", Some(&body))["timing"]);
    assert!(first.contains(&"spec".to_owned()) && first.contains(&"root".to_owned()), "{first:?}");
    assert_eq!(ask("GET", "/v1/containers/box", None)["timing"], Value::Null);
    let (again, _) = steps(&ask("POST", "/v1/containers/box/restart?timeout_ms=0", None)["timing"]);
    assert!(!again.contains(&"spec".to_owned()) && again.contains(&"root".to_owned()), "{again:?}");
}
