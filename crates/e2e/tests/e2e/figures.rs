//! The figures of `SPECIFICATION.md`: printed, and asserted where a noisy machine cannot break them.
//!
//! They are of the binary under test; times are promised of the release build (`SAMPAN_BIN=target/release/sampan`).

use std::time::Instant;

use sampan_e2e::sampan::{SOON, pss_kib};
use sampan_e2e::{Sampan, http, sources};
use sampan_testkit::wait_until;

#[test]
fn figures_of_up_again() {
    let sampan = Sampan::new();
    let source = sources::example("hello-rust");
    let url = sampan.up(&source, &[]);
    let mut took = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(sampan.up(&source, &[]), url);
        assert_eq!(http::get(&url).expect("an answer").status, 200);
        took.push(start.elapsed());
        // from nothing but what was compiled, packed and stored
    }
    println!("up of an unchanged source that runs, until its first 200: {took:?} (promised: 1 s)");
    let mut took = Vec::new();
    for _ in 0..5 {
        sampan.ok(&["down", "hello-rust"]);
        let start = Instant::now();
        sampan.up(&source, &[]);
        assert_eq!(http::get(&url).expect("an answer").status, 200);
        took.push(start.elapsed());
    }
    println!("up of an unchanged source that is down, until its first 200: {took:?} (promised: 1 s)");
}

#[test]
fn figures_of_idle_memory() {
    let sampan = Sampan::new();
    sampan.up(&sources::example("hello-rust"), &[]);
    let roles = ["daemon", "supervisor", "logger", "edge"];
    let figures = || roles.map(|role| pss_kib(sampan.pid_of(role)));
    // what the start has used may take a moment until it is given back
    let mut last = figures();
    wait_until("idle memory within what is promised", SOON, || {
        last = figures();
        last.iter().sum::<u64>() <= 30 << 10 && last[1] <= 4 << 10
    });
    let each: Vec<String> = roles.iter().zip(last).map(|(role, kib)| format!("{role} {kib} KiB")).collect();
    let sum = last.iter().sum::<u64>();
    println!("idle memory (PSS): {}; in all {sum} KiB (promised: 30720; supervisor 4096)", each.join(", "));
}
