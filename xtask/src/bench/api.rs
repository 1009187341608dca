//! A program that uses the native API: from the first byte of its request until it knows how its process ended, over
//! one connection that it keeps. With an address, a cgroup, a user namespace and a seccomp filter; the image is warm.
//!
//! Two round trips: `POST /v1/containers` (it is started when that answers) and `POST …/wait`. The container is
//! removed afterwards, outside the time that is told, as the floor's scratch directories are; the rows `until removed`
//! ask for its removal at its end, and wait for that too. Beside them a loop that only counts takes its turn
//! ([`noise`]): a 99th percentile is held against nobody where that one's is not its own either.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Bench;
use super::floor::floor;
use super::http::Connection;
use super::noise;
use super::report::{Promise, Section, Suite};
use super::sampan::{IMAGE, Pool, Sampan};
use super::turns::{Contender, GAP, take_turns};
use super::writer::{RATE, Writer};

const COLD: &str = "api, cold";
const POOL: &str = "api, from the pool";

/// The suite.
pub fn measure(bench: &Bench) -> Result<Suite> {
    let cold = Sampan::open(bench, "cold", Pool::Off)?;
    let pool = Sampan::open(bench, "pool", Pool::On)?;
    let mut contenders = vec![
        floor(&bench.scratch)?,
        noise::contender()?,
        contender(COLD, cold.connect()?, Removal::Afterwards)?,
        contender(POOL, pool.connect()?, Removal::Afterwards)?,
        contender("api, cold, until removed", cold.connect()?, Removal::AtItsEnd)?,
        contender("api, from the pool, until removed", pool.connect()?, Removal::AtItsEnd)?,
    ];
    let alone = take_turns("alone", bench.runs, &mut contenders)?;
    let writer = Writer::start(&bench.scratch)?;
    let mut beside = take_turns("beside a disk writer", bench.runs, &mut contenders)?;
    beside.add("it wrote", writer.end()?, "MB/s");
    drop(contenders);
    cold.end()?;
    pool.end()?;
    let promises = promises(&alone, &beside);
    let how = format!(
        "from the request for a container that runs `true` until its end is known; {} runs each in turns, {} ms idle \
         before each; the writer: {} MB/s with an fdatasync 5 times a second",
        bench.runs,
        GAP.as_millis(),
        RATE / 1_000_000,
    );
    Ok(Suite { name: "api", how, sections: vec![alone, beside], promises, absent: Vec::new() })
}

fn promises(alone: &Section, beside: &Section) -> Vec<Promise> {
    let mut promises = Vec::new();
    for (section, words) in [(alone, ""), (beside, ", beside the writer")] {
        for (name, most) in [(COLD, 2.0), (POOL, 1.5)] {
            let Some(row) = section.row(name) else { continue };
            promises.push(Promise::at_most(format!("{name}{words}: p50"), row.p50_ratio, most, "× the floor"));
            let slowest = Promise::at_most(format!("{name}{words}: p99"), row.p99_ratio, 4.0, "× the floor");
            promises.push(noise::judge(slowest, section));
        }
    }
    promises
}

/// When a container is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// By another request, outside the time that is told.
    Afterwards,
    /// By the daemon, before it answers that the container has ended.
    AtItsEnd,
}

fn contender(name: &str, mut connection: Connection, removal: Removal) -> Result<Contender<'static>> {
    Contender::new(name, move || start_to_end(&mut connection, removal))
}

/// Starts a container that runs `true`, and tells how long it took until its end was known.
pub fn start_to_end(connection: &mut Connection, removal: Removal) -> Result<Duration> {
    let at_exit = removal == Removal::AtItsEnd;
    let body = format!(r#"{{"image":"{IMAGE}","command":["true"],"remove_at_exit":{at_exit}}}"#);
    let start = Instant::now();
    let container = connection.json("POST", "/v1/containers", &body)?;
    let id = container["id"].as_str().context("the container has no id")?;
    let exit = connection.json("POST", &format!("/v1/containers/{id}/wait"), "")?;
    let took = start.elapsed();
    if exit["exit_code"] != 0 {
        bail!("the container ended as {exit}");
    }
    if removal == Removal::Afterwards {
        connection.ask("DELETE", &format!("/v1/containers/{id}"), "")?;
    }
    Ok(took)
}
