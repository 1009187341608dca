//! A thousand random operations with random kills; then everything agrees, and after `purge` the machine is as before.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use sampan_e2e::agreement::assert_agreement;
use sampan_e2e::machine::Machine;
use sampan_e2e::{Sampan, sources, tools};

use crate::alone;

const OPERATIONS: usize = 1_000;

/// A sequence of numbers that a seed decides (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_of<'words>(&mut self, words: &[&'words str]) -> &'words str {
        words[self.below(words.len())]
    }
}

const NAMES: [&str; 6] = ["ann", "bob", "cat", "dan", "eve", "fay"];
const SERVERS: [&str; 2] = ["north", "south"];
const VOLUMES: [&str; 2] = ["data", "more"];

/// One operation, and whether it was done. Most fail now and then, as there is no such thing or there is one already: that is well. What must not
/// be is a command that hangs, panics, or leaves a daemon that disagrees.
fn operate(sampan: &Sampan, random: &mut Random) -> (String, bool) {
    let name = random.one_of(&NAMES);
    let server = random.one_of(&SERVERS);
    let volume = random.one_of(&VOLUMES);
    let words: Vec<&str> = match random.below(100) {
        0..=19 => vec!["run", "-d", "--name", name, "bb", "sleep", "100"],
        20..=29 => vec!["run", "--rm", "bb", "true"],
        30..=34 => vec!["run", "-d", "--name", name, "-p", "80", "-v", "data:/d", "bb", "sleep", "100"],
        35..=39 => vec!["run", "-d", "--name", name, "--restart", "always", "bb", "sh", "-c", "sleep 0.2; exit 1"],
        40..=44 => vec!["run", "-d", "--name", name, "--server", server, "bb", "sleep", "100"],
        45..=54 => vec!["rm", "-f", name],
        55..=59 => vec!["stop", "-t", "0", name],
        60..=64 => vec!["start", name],
        65..=72 => vec!["exec", name, "true"],
        73..=74 => vec!["pause", name],
        75..=76 => vec!["unpause", name],
        77..=78 => vec!["restart", "-t", "0", name],
        79..=80 => vec!["server", "create", server],
        81 => vec!["server", "close", server],
        82 => vec!["server", "stop", server],
        83 => vec!["server", "start", server],
        84..=85 => vec!["volume", "create", volume],
        86..=87 => vec!["volume", "rm", volume],
        88..=89 => vec!["logs", name],
        90 => vec!["kill", name],
        91 => vec!["daemon", "restart"],
        92 => return (replace_binary(sampan), true),
        93..=94 => return (kill(sampan, "daemon"), true),
        95 => return (kill(sampan, "supervisor"), true),
        96 => return (kill(sampan, "edge"), true),
        97 => return (kill(sampan, "logger"), true),
        _ => return (kill_a_first_process(sampan, random), true),
    };
    let outcome = sampan.run(&words);
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    (words.join(" "), outcome.status.success())
}

fn kill(sampan: &Sampan, role: &str) -> String {
    // any command starts a daemon where there is none
    sampan.run(&["ps"]);
    // that of a supervisor that was just killed may be on its way out
    let _ = kill_process(sampan.pid_of(role), Signal::KILL);
    format!("(the {role} is killed)")
}

/// A daemon of another file takes over, as an upgrade does.
fn replace_binary(sampan: &Sampan) -> String {
    let binary = tools::sampan();
    let copy = sampan.dir().join("sampan");
    // never written to: it may be running
    let _ = fs::remove_file(&copy);
    fs::copy(binary, &copy).expect("a copy of the binary");
    let as_usual = sampan.command(&["daemon", "restart"]);
    let mut command = std::process::Command::new(&copy);
    command.args(as_usual.get_args()).current_dir(sampan.dir());
    command.envs(as_usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = sampan_e2e::sampan::outcome(&mut command);
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    "(the binary is replaced)".to_owned()
}

fn kill_a_first_process(sampan: &Sampan, random: &mut Random) -> String {
    let pids: Vec<i32> = sampan
        .containers()
        .iter()
        .filter_map(|container| i32::try_from(container["state"]["pid"].as_i64()?).ok())
        .collect();
    let Some(pid) = (!pids.is_empty()).then(|| pids[random.below(pids.len())]).and_then(Pid::from_raw) else {
        return "(nothing runs)".to_owned();
    };
    // it may just have ended
    let _ = kill_process(pid, Signal::KILL);
    "(a container's first process is killed)".to_owned()
}

#[test]
fn a_thousand_operations_and_the_machine_is_as_before() {
    let _alone = alone();
    let seed = std::env::var("SAMPAN_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
        now.as_secs()
    });
    println!("SAMPAN_TEST_SEED={seed} does the same again");
    let before = Machine::look();
    let sampan = Sampan::new();
    sampan.import_busybox();
    let mut random = Random(seed);
    let (mut last, mut done) = (Vec::new(), 0);
    for number in 1..=OPERATIONS {
        let (operation, was_done) = operate(&sampan, &mut random);
        last.push(operation);
        done += usize::from(was_done);
        if number % 100 == 0 {
            let from = last.len().saturating_sub(20);
            assert_agreement(&sampan, &format!("seed {seed}, after {number}: …, {}", last[from..].join(", ")));
        }
    }
    println!("{done} of {OPERATIONS} operations were done");
    assert!(done > OPERATIONS / 3, "seed {seed}: {done} of {OPERATIONS} operations were done");
    // apps are served as ever
    let url = sampan.up(&sources::fixture("probe"), &[]);
    assert_eq!(sampan_e2e::sampan::body_of(&url), "probe one");
    sampan.assert_purged();
    let after = Machine::look();
    let changed = after.since(&before);
    assert!(changed.is_empty(), "seed {seed}: the machine is not as before:\n{}", changed.join("\n"));
}
