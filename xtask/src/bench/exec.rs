//! One more process in a container that runs: over the native API (a connection each, for it becomes a stream) until
//! the end is told, and as whole commands. Beside the floor of a start there is that of an exec: the bare kernel's
//! setns, clone, execve and wait into the same container.

use std::io::{BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Bench;
use super::bounded::timed;
use super::docker::Docker;
use super::floor::{entering, floor};
use super::oci::Runtime;
use super::report::{Promise, Suite};
use super::sampan::{IMAGE, Pool, Sampan};
use super::start::there;
use super::turns::{Contender, GAP, take_turns};

const API: &str = "api exec";
const COMMAND: &str = "sampan exec";
const NAME: &str = "sleeper";

/// The suite.
pub fn measure(bench: &Bench) -> Result<Suite> {
    let sampan = Sampan::open(bench, "sampan", Pool::On)?;
    let body = format!(r#"{{"image":"{IMAGE}","name":"{NAME}","command":["sleep","1000000"]}}"#);
    let container = sampan.connect()?.json("POST", "/v1/containers", &body)?;
    let pid = container["state"]["pid"].as_u64().context("the container has no pid")?;
    let mut absent = Vec::new();
    let (crun, runc) = (Runtime::crun(&bench.scratch), Runtime::runc(&bench.scratch));
    let oci = there("sampan oci exec", Runtime::sampan(bench), &mut absent);
    let (crun, runc) = (there("crun exec", crun, &mut absent), there("runc exec", runc, &mut absent));
    let docker = there("docker exec", Docker::open(&bench.scratch), &mut absent);

    let mut sleepers = Vec::new();
    let mut contenders = vec![floor(&bench.scratch)?, entering(&bench.scratch, pid)?, over_api(&sampan)?];
    let mut command = sampan.command(&["exec", NAME, "true"]);
    contenders.push(Contender::new(COMMAND, move || timed(&mut command))?);
    for runtime in [&oci, &crun, &runc].into_iter().flatten() {
        let name = format!("{} exec", runtime.name);
        let Some(sleeper) = there(&name, runtime.sleeper("sleeper"), &mut absent) else { continue };
        let words = ["exec", &sleeper.id, "true"].map(str::to_owned);
        contenders.extend(there(&name, runtime.contender("exec", &words), &mut absent));
        sleepers.push(sleeper);
    }
    if let Some(docker) = &docker {
        let started = docker.sleeper().and_then(|id| docker.contender("exec", &["exec", &id, "true"]));
        contenders.extend(there("docker exec", started, &mut absent));
    }
    let section = take_turns("into a container that sleeps", bench.runs, &mut contenders)?;
    drop(contenders);
    drop(sleepers);
    docker.map_or(Ok(()), Docker::end)?;
    sampan.end()?;

    let how =
        format!("start to end of `true`, {} runs each in turns, {} ms idle before each", bench.runs, GAP.as_millis());
    let ratio = section.row(API).map_or(f64::NAN, |row| row.p50_ratio);
    let promises = vec![Promise::at_most(format!("{API}: p50"), ratio, 1.5, "× the floor")];
    Ok(Suite { name: "exec", how, sections: vec![section], promises, absent })
}

fn over_api(sampan: &Sampan) -> Result<Contender<'_>> {
    let path = format!("/v1/containers/{NAME}/exec");
    Contender::new(API, move || {
        let start = Instant::now();
        let mut stream = sampan.connect()?.upgrade(&path, "sampan-stream", r#"{"command":["true"]}"#)?;
        let end = last_control(&mut stream)?;
        let took: Duration = start.elapsed();
        if end["exited"]["exit_code"] == 0 { Ok(took) } else { bail!("the process ended as {end}") }
    })
}

/// Reads a stream (`sampan_model::stream`) to its end, and returns its last control frame.
fn last_control(stream: &mut BufReader<UnixStream>) -> Result<Value> {
    let mut last = Value::Null;
    loop {
        let mut head = [0; 16];
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(last),
            read => read?,
        }
        let [kind, _, _, _, a, b, c, d, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
        stream.read_exact(&mut payload)?;
        if kind == 3 {
            last = serde_json::from_slice(&payload)?;
            if last.get("exited").or_else(|| last.get("failed")).is_some() {
                return Ok(last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_last_control_frame() {
        let frame = |kind: u8, payload: &str| {
            let mut bytes = vec![kind, 0, 0, 0];
            bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
            bytes.extend([0; 8]);
            bytes.extend(payload.as_bytes());
            bytes
        };
        let all = [frame(3, r#"{"started":{"pid":7}}"#), frame(1, "out"), frame(3, r#"{"exited":{"exit_code":0}}"#)];
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&all.concat()).unwrap();
        assert_eq!(last_control(&mut BufReader::new(ours)).unwrap()["exited"]["exit_code"], 0);
    }
}
