//! Starts and removals, four at a time, for a while: how many a second, how long each takes, what is left behind
//! (nothing), and what the time went into, so that the bottleneck has a name. The peers do the same for a shorter
//! while.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::api::{Removal, start_to_end};
use super::bounded::PATIENCE;
use super::docker::{self, Docker};
use super::oci::Runtime;
use super::report::{Promise, Row, Section, Suite};
use super::sampan::{Pool, Sampan};
use super::start::there;
use super::turns::Once;
use super::usage::{self, Cpu};
use super::{Bench, interrupt, traces};

/// How many at a time.
const LANES: usize = 4;
/// How long a peer is measured, at most.
const PEERS: Duration = Duration::from_secs(8);

/// The suite.
pub fn measure(bench: &Bench) -> Result<Suite> {
    let seconds = Duration::from_secs(bench.seconds);
    let mut sections = Vec::new();
    let mut promises = Vec::new();
    for (name, pool) in [("sampan, from the pool", Pool::On), ("sampan, cold", Pool::Off)] {
        let sampan = Sampan::open(bench, "sampan", pool)?;
        let (section, left) = of_sampan(name, &sampan, seconds)?;
        let rate = section.figures[0].value;
        promises.push(Promise::at_least(format!("{name}: starts and removals"), rate, 200.0, "a second"));
        promises.push(Promise::at_most(format!("{name}: left behind"), left.len() as f64, 0.0, "kinds of things"));
        sections.push(section);
        sampan.end()?;
        for line in left {
            eprintln!("xtask: {name} left behind: {line}");
        }
    }
    let mut absent = Vec::new();
    let peers = seconds.min(PEERS);
    for (name, runtime) in [
        ("sampan oci run", Runtime::sampan(bench)),
        ("crun run", Runtime::crun(&bench.scratch)),
        ("runc run", Runtime::runc(&bench.scratch)),
    ] {
        sections.extend(there(name, runtime.and_then(|runtime| of_runtime(&runtime, peers)), &mut absent));
    }
    let docker = Docker::open(&bench.scratch).and_then(|docker| {
        let words = ["run", "--rm", "--network", "none", docker::IMAGE, "true"];
        let lanes = (0..LANES).map(|_| docker.measured(&words)).collect();
        let section = churn(&docker.name, peers, lanes, || Ok(()));
        docker.end()?;
        section
    });
    sections.extend(there("docker run --rm", docker, &mut absent));
    let how = format!(
        "starts of `true` until it has ended and is removed, {LANES} at a time, for {} s (peers {} s)",
        seconds.as_secs(),
        peers.as_secs()
    );
    Ok(Suite { name: "churn", how, sections, promises, absent })
}

fn of_sampan(name: &str, sampan: &Sampan, seconds: Duration) -> Result<(Section, Vec<String>)> {
    let lane = || -> Result<Once<'static>> {
        let mut connection = sampan.connect()?;
        Ok(Box::new(move || start_to_end(&mut connection, Removal::AtItsEnd)))
    };
    let mut lanes = (0..LANES).map(|_| lane()).collect::<Result<Vec<_>>>()?;
    // caches, pools and threads are as they stay
    for lane in &mut lanes {
        lane()?;
    }
    let before = traces::settled(sampan)?;
    let processes = sampan.processes()?;
    let used = |(_, pid): &(String, u32)| Cpu::of(*pid);
    let cpu_before = processes.iter().map(used).collect::<Result<Vec<_>>>()?;
    let others = || Ok::<_, anyhow::Error>((Cpu::of(std::process::id())?.sum_s(), usage::kernel_threads_s()));
    let (machine_before, others_before) = (usage::machine()?, others()?);
    let mut section = churn(name, seconds, lanes, || all_removed(sampan))?;
    let (machine_after, others_after) = (usage::machine()?, others()?);
    let cpu_after = processes.iter().map(used).collect::<Result<Vec<_>>>()?;

    let starts = section.rows[0].samples_ms.len() as f64;
    let a_start = |seconds: f64| seconds * 1e3 / starts;
    let mut spent = Vec::new();
    for (((role, _), after), before) in processes.iter().zip(cpu_after).zip(cpu_before) {
        let cpu = after.since(before);
        spent.push((format!("{role}, in its program"), cpu.user_s));
        spent.push((format!("{role}, in the kernel"), cpu.system_s));
        if cpu.children_s > 0.0 {
            spent.push((format!("children of the {role}"), cpu.children_s));
        }
    }
    spent.push(("the kernel's threads".into(), others_after.1 - others_before.1));
    spent.push(("this program".into(), others_after.0 - others_before.0));
    let busy = machine_after.0 - machine_before.0;
    let known: f64 = spent.iter().map(|(_, seconds)| seconds).sum();
    spent.push(("interrupts and other programs".into(), (busy - known).max(0.0)));
    for (what, seconds) in &spent {
        section.add(what, a_start(*seconds), "ms of CPU a start");
    }
    let percent = busy * 100.0 / (machine_after.1 - machine_before.1);
    section.add("processors busy", percent, "%");
    let left = traces::left_since(sampan, &before)?;
    section.add("left behind", left.len() as f64, "kinds of things");
    section.note = Some(bottleneck(percent, &spent));
    Ok((section, left))
}

/// What would have to be quicker for more starts a second.
fn bottleneck(percent: f64, spent: &[(String, f64)]) -> String {
    let most = spent.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or("nothing", |(what, _)| what);
    if percent >= 85.0 {
        format!("the processors are the bottleneck, most of it {most}")
    } else {
        format!("waiting is the bottleneck (a lock, a queue or the disk); of the CPU most goes to {most}")
    }
}

fn of_runtime(runtime: &Runtime, seconds: Duration) -> Result<Section> {
    let bundle = runtime.bundle("churn", &["true"])?;
    let lane = |lane: usize| runtime.measured(&runtime.run_words(&bundle, &runtime.id(&lane.to_string())));
    churn(&format!("{} run", runtime.name), seconds, (0..LANES).map(lane).collect::<Result<Vec<_>>>()?, || Ok(()))
}

/// Waits until no container is listed any more: those that have ended are removed when whoever waited has been told.
fn all_removed(sampan: &Sampan) -> Result<()> {
    let mut connection = sampan.connect()?;
    let end = Instant::now() + PATIENCE;
    while connection.json("GET", "/v1/containers", "")?.as_array().is_none_or(|left| !left.is_empty()) {
        if Instant::now() >= end {
            bail!("containers that ended are still there after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Runs every lane over and over, all at once; the section's first figure is the rate, of what is over when `rest` is.
fn churn(
    name: &str,
    seconds: Duration,
    lanes: Vec<Once<'static>>,
    rest: impl FnOnce() -> Result<()>,
) -> Result<Section> {
    let start = Instant::now();
    let end = start + seconds;
    let samples = std::thread::scope(|scope| {
        let threads: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(move || run_until(end, lane))).collect();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(samples) => samples,
            Err(_) => bail!("a lane panicked"),
        });
        ended.collect::<Result<Vec<_>>>()
    });
    let samples = samples.with_context(|| format!("churn with {name}"))?.concat();
    rest()?;
    let rate = samples.len() as f64 / start.elapsed().as_secs_f64();
    let mut section = Section::new(name, vec![Row::new("start to end", samples)]);
    section.add("rate", rate, "a second");
    Ok(section)
}

fn run_until(end: Instant, mut lane: Once<'static>) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    while Instant::now() < end {
        interrupt::check()?;
        samples.push(lane()?.as_secs_f64() * 1e3);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bottlenecks() {
        let spent = [("daemon, in the kernel".to_owned(), 3.0), ("supervisor, in the kernel".to_owned(), 5.0)];
        assert_eq!(bottleneck(97.0, &spent), "the processors are the bottleneck, most of it supervisor, in the kernel");
        assert!(bottleneck(50.0, &spent).starts_with("waiting is the bottleneck"));
    }

    #[test]
    fn lanes_run_side_by_side() {
        let lane = || -> Once<'static> {
            Box::new(|| {
                std::thread::sleep(Duration::from_millis(5));
                Ok(Duration::from_millis(5))
            })
        };
        let section = churn("x", Duration::from_millis(100), vec![lane(), lane()], || Ok(())).unwrap();
        assert!(section.rows[0].samples_ms.len() >= 2 && section.figures[0].value > 0.0, "{section}");
        assert_eq!(section.rows[0].p50_ms, 5.0);
    }
}
