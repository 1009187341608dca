//! Where the time goes: told for one start, and summed up for all.

use std::io::Write as _;
use std::process::{Command, Stdio};

use sampan_e2e::native::Native;
use sampan_e2e::{Sampan, tools};
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
        ["sampan run ", "  until it runs ", "  until it has ended ", "of it in the daemon ", "  root ", "in all"]
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

/// The page, which Prometheus's own `promtool` has read and finds nothing wrong with.
#[track_caller]
fn metrics(native: &Native) -> String {
    let answer = native.ask("GET", "/metrics", None).expect("the page");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut promtool = Command::new(tools::promtool());
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool runs");
    promtool.stdin.take().expect("its input").write_all(&answer.body).expect("it reads");
    let said = promtool.wait_with_output().expect("promtool ends");
    let text = String::from_utf8(answer.body).expect("UTF-8");
    let complaints = [said.stdout, said.stderr].concat();
    assert!(said.status.success(), "{}{text}", String::from_utf8_lossy(&complaints));
    text
}

/// The value of the one line that begins with these words.
#[track_caller]
fn number(page: &str, name: &str) -> f64 {
    let values: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect();
    let [value] = values[..] else { panic!("{name} is there {} times in {page}", values.len()) };
    value.parse().expect("a number")
}

#[test]
fn starts_are_counted() {
    let sampan = Sampan::new();
    sampan.import_busybox();
    let native = Native::of(sampan.root());
    let before = metrics(&native);
    for (name, expected) in [("started_total", 0.0), ("failed_total", 0.0), ("running", 0.0)] {
        assert_eq!(number(&before, &format!("sampan_containers_{name}")), expected, "{name}");
    }
    sampan.ok(&["run", "-d", "--name", "box", "bb", "sleep", "60"]);
    sampan.ok(&["run", "--rm", "bb", "true"]);
    sampan.ok(&["exec", "box", "true"]);
    sampan.run(&["run", "--rm", "bb", "no-such-program"]).assert_fails(127, &[]);

    let after = metrics(&native);
    for (name, expected) in [("started_total", 2.0), ("failed_total", 1.0), ("running", 1.0)] {
        assert_eq!(number(&after, &format!("sampan_containers_{name}")), expected, "{name}");
    }
    for (name, label, expected) in [
        ("sampan_start_seconds", "", 2.0),
        ("sampan_start_step_seconds", "step=\"root\",", 2.0),
        ("sampan_exec_seconds", "", 1.0),
    ] {
        let bucket = |bound| number(&after, &format!("{name}_bucket{{{label}le=\"{bound}\"}}"));
        assert!(bucket("0.001") <= bucket("1") && bucket("10") == expected && bucket("+Inf") == expected, "{after}");
        let labels = if label.is_empty() { String::new() } else { format!("{{{}}}", label.trim_end_matches(',')) };
        assert_eq!(number(&after, &format!("{name}_count{labels}")), expected, "{name}");
        let sum = number(&after, &format!("{name}_sum{labels}"));
        assert!(0.0 < sum && sum < 60.0, "{name}: {sum} s");
    }
    let ready = number(&after, "sampan_pool_servers");
    assert!((0.0..=256.0).contains(&ready), "{ready} servers wait");
    for role in ["daemon", "supervisor", "logger", "edge"] {
        let bytes = number(&after, &format!("sampan_process_memory_bytes{{role=\"{role}\"}}"));
        assert!((65_536.0..1e9).contains(&bytes), "{role}: {bytes} bytes");
    }
}
