//! From asking for a container that runs `true` until it is gone, as a user's shell sees it: the whole of
//! `sampan run --rm bb true`, of `sampan oci run`, `crun run` and `runc run` of a bundle, of `docker run --rm`.
//! `sampan version` is what starting our binary costs. The peers get their root file system ready made and no address.

use anyhow::Result;

use super::Bench;
use super::bounded::timed;
use super::docker::{self, Docker};
use super::floor::floor;
use super::oci::Runtime;
use super::report::{Absent, Promise, Suite};
use super::sampan::{IMAGE, Pool, Sampan};
use super::turns::{Contender, GAP, take_turns};

const RUN: &str = "sampan run --rm";

/// The suite.
pub fn measure(bench: &Bench) -> Result<Suite> {
    let pool = Sampan::open(bench, "pool", Pool::On)?;
    let cold = Sampan::open(bench, "cold", Pool::Off)?;
    let mut contenders = vec![floor(&bench.scratch)?];
    for (name, sampan) in [(RUN, &pool), ("sampan run --rm, cold", &cold)] {
        let mut command = sampan.command(&["run", "--rm", IMAGE, "true"]);
        contenders.push(Contender::new(name, move || timed(&mut command))?);
    }
    let mut version = pool.command(&["version"]);
    contenders.push(Contender::new("sampan version", move || timed(&mut version))?);
    let mut absent = Vec::new();
    for (name, runtime) in [
        ("sampan oci run", Runtime::sampan(bench)),
        ("crun run", Runtime::crun(&bench.scratch)),
        ("runc run", Runtime::runc(&bench.scratch)),
    ] {
        contenders.extend(there(name, runtime.and_then(|runtime| of_bundle(&runtime)), &mut absent));
    }
    let docker = there("docker run --rm", Docker::open(&bench.scratch), &mut absent);
    if let Some(docker) = &docker {
        let words = ["run", "--rm", "--network", "none", docker::IMAGE, "true"];
        contenders.extend(there("docker run --rm", docker.contender("run --rm", &words), &mut absent));
    }
    let section = take_turns("whole commands", bench.runs, &mut contenders)?;
    drop(contenders);
    docker.map_or(Ok(()), Docker::end)?;
    pool.end()?;
    cold.end()?;

    let how =
        format!("start to end of `true`, {} runs each in turns, {} ms idle before each", bench.runs, GAP.as_millis());
    let ratio = section.row(RUN).map_or(f64::NAN, |row| row.p50_ratio);
    let promises = vec![Promise::at_most(format!("{RUN}: p50"), ratio, 5.0, "× the floor")];
    let mut suite = Suite { name: "start", how, sections: vec![section], promises, absent };
    suite.promise_faster(0, RUN, "docker", 35.0);
    suite.promise_faster(0, RUN, "runc", 3.0);
    suite.promise_faster(0, "sampan oci run", "crun", 1.0);
    Ok(suite)
}

fn of_bundle(runtime: &Runtime) -> Result<Contender<'static>> {
    let bundle = runtime.bundle("bundle", &["true"])?;
    runtime.contender("run", &runtime.run_words(&bundle, &runtime.id("run")))
}

/// The peer, or a note why it is not there.
pub fn there<T>(name: &str, peer: Result<T>, absent: &mut Vec<Absent>) -> Option<T> {
    peer.map_err(|error| absent.push(Absent { name: name.to_owned(), why: format!("{error:#}") })).ok()
}
