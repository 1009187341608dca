//! A thousand containers that run and do nothing, one started after the other: whether the last start as fast as the
//! first, and what they take of memory, Sampan's own and the kernel's told apart. The peer has a few, for what each
//! takes.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::docker::Docker;
use super::floor::floor;
use super::report::{Promise, Row, Section, Suite};
use super::sampan::{IMAGE, Pool, Sampan};
use super::start::there;
use super::turns::{GAP, idle, take_turns};
use super::usage::{kernel_mib, pss_mib};
use super::{Bench, interrupt};

/// How many of Docker's containers are measured.
const FEW: usize = 10;
/// How many are compared at either end.
const END: usize = 100;

/// The suite.
pub fn measure(bench: &Bench) -> Result<Suite> {
    let mut sections = vec![take_turns("before", 50, &mut [floor(&bench.scratch)?])?];
    let mut promises = Vec::new();
    for (name, pool, most) in [("from the pool", Pool::On, 1.5), ("cold", Pool::Off, 2.0)] {
        let sampan = Sampan::open(bench, "sampan", pool)?;
        let section = many(&sampan, name, bench.runs)?;
        let start = Instant::now();
        sampan.end()?;
        let gone_s = start.elapsed().as_secs_f64();
        let mut section = section;
        promises.push(Promise::at_most(
            format!("{name}: the last starts' p50 over the first's"),
            section.rows[1].p50_ratio,
            most,
            "×",
        ));
        let own: f64 = section.figures.iter().filter(|figure| figure.name == OWN).map(|figure| figure.value).sum();
        promises.push(Promise::at_most(format!("{name}: Sampan's own memory"), own, 64.0, "MiB"));
        section.add("ended and removed, all of them", gone_s, "s");
        sections.push(section);
    }
    let mut absent = Vec::new();
    sections.extend(there("docker", few(bench), &mut absent));
    let how = format!(
        "{} containers that sleep, started over the API one after the other, {} ms idle before each",
        bench.runs,
        GAP.as_millis()
    );
    Ok(Suite { name: "thousand", how, sections, promises, absent })
}

const OWN: &str = "Sampan's own memory, all processes (PSS)";

fn many(sampan: &Sampan, name: &str, count: usize) -> Result<Section> {
    let mut connection = sampan.connect()?;
    let body = format!(r#"{{"image":"{IMAGE}","command":["sleep","1000000"]}}"#);
    // caches and threads are as they stay
    connection.json("POST", "/v1/containers", &body)?;
    idle();
    let processes = sampan.processes()?;
    let memory = || processes.iter().map(|(_, pid)| pss_mib(*pid)).collect::<Result<Vec<f64>>>();
    let (own_before, kernel_before) = (memory()?, kernel_mib()?);
    let mut samples = Vec::with_capacity(count);
    let mut inside = 0.0;
    for number in 0..count {
        interrupt::check()?;
        idle();
        let start = Instant::now();
        let container = connection.json("POST", "/v1/containers", &body)?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
        if number == 0 {
            let pid = container["state"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            inside = pss_mib(pid.context("the container has no pid")?)?;
        }
    }
    let (own_after, kernel_after) = (memory()?, kernel_mib()?);
    let end = END.min(count);
    let rows = vec![
        Row::new(format!("the first {end}"), samples[..end].to_vec()),
        Row::new(format!("the last {end}"), samples[count - end..].to_vec()),
    ];
    let mut section = Section::new(format!("{count} {name}, request to started"), rows);
    for (((role, _), before), after) in processes.iter().zip(&own_before).zip(&own_after) {
        section.add(format!("memory of the {role} with one"), *before, "MiB");
        section.add(format!("memory of the {role} with all"), *after, "MiB");
    }
    section.add(OWN, own_after.iter().sum(), "MiB");
    section.add("Sampan's own memory a container", kib_each(&own_before, &own_after, count), "KiB");
    section.add("the kernel's memory a container", (kernel_after - kernel_before) * 1024.0 / count as f64, "KiB");
    section.add("a sleeping process's own", inside * 1024.0, "KiB");
    Ok(section)
}

fn kib_each(before: &[f64], after: &[f64], count: usize) -> f64 {
    (after.iter().sum::<f64>() - before.iter().sum::<f64>()) * 1024.0 / count as f64
}

/// Docker with a few: dockerd, containerd, and a shim each.
fn few(bench: &Bench) -> Result<Section> {
    let docker = Docker::open(&bench.scratch)?;
    let memory = || docker.pids().into_iter().map(pss_mib).sum::<Result<f64>>();
    let before = memory()?;
    let mut samples = Vec::new();
    for _ in 0..FEW {
        interrupt::check()?;
        let start = Instant::now();
        docker.sleeper()?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let after = memory()?;
    let mut section = Section::new(format!("{} run -d, {FEW} of them", docker.name), vec![Row::new("all", samples)]);
    section.add("memory of dockerd and containerd without any", before, "MiB");
    section.add("memory of theirs a container", (after - before) * 1024.0 / FEW as f64, "KiB");
    docker.end()?;
    Ok(section)
}
