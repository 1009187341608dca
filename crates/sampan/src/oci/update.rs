//! `update`: what a container may use from now on.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use lexopt::prelude::*;
use sampan_model::ByteSize;
use sampan_runtime::oci::Container;
use sampan_runtime::oci::config::{BlockIo, Cpu, Memory, Pids, Resources};

use super::arguments::{Arguments, required};
use super::{Done, Global};

pub fn update(global: &Global, mut words: Arguments) -> Result<Done> {
    let (mut id, mut file) = (None, None);
    let mut asked = Resources::default();
    while let Some(word) = words.next()? {
        match word {
            Short('r') | Long("resources") => file = Some(words.value()?),
            Short('m') | Long("memory") => memory(&mut asked).limit = Some(bytes(&mut words, "--memory")?),
            Long("memory-reservation") => {
                memory(&mut asked).reservation = Some(bytes(&mut words, "--memory-reservation")?);
            }
            Long("memory-swap") => memory(&mut asked).swap = Some(bytes(&mut words, "--memory-swap")?),
            // the kernel has given them up
            Long("kernel-memory" | "kernel-memory-tcp") => drop(words.value()?),
            Long("cpu-period") => cpu(&mut asked).period = Some(words.number("--cpu-period")?),
            Long("cpu-quota") => cpu(&mut asked).quota = Some(words.number("--cpu-quota")?),
            Long("cpu-burst") => cpu(&mut asked).burst = Some(words.number("--cpu-burst")?),
            Long("cpu-share") => cpu(&mut asked).shares = Some(words.number("--cpu-share")?),
            Long("cpu-rt-period") => cpu(&mut asked).realtime_period = Some(words.number("--cpu-rt-period")?),
            Long("cpu-rt-runtime") => cpu(&mut asked).realtime_runtime = Some(words.number("--cpu-rt-runtime")?),
            Long("cpu-idle") => cpu(&mut asked).idle = Some(words.number("--cpu-idle")?),
            Long("cpuset-cpus") => cpu(&mut asked).cpus = words.value()?.string()?,
            Long("cpuset-mems") => cpu(&mut asked).mems = words.value()?.string()?,
            Long("pids-limit") => asked.pids = Some(Pids { limit: Some(words.number("--pids-limit")?) }),
            Long("blkio-weight") => {
                let weight = Some(words.number("--blkio-weight")?);
                asked.block_io = Some(BlockIo { weight, ..BlockIo::default() });
            }
            Value(value) if id.is_none() => id = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if let Some(file) = file {
        let mut text = Vec::new();
        if file == "-" {
            std::io::stdin().read_to_end(&mut text).context("read the resources from standard input")?;
        } else {
            text = std::fs::read(&file).with_context(|| format!("read the resources {file:?}"))?;
        }
        asked = serde_json::from_slice(&text).context("read the resources")?;
    }
    Container::find(&global.root, &required(id)?)?.update(&asked)?;
    Ok(Done::Well)
}

fn memory(asked: &mut Resources) -> &mut Memory {
    asked.memory.get_or_insert_with(Memory::default)
}

fn cpu(asked: &mut Resources) -> &mut Cpu {
    asked.cpu.get_or_insert_with(Cpu::default)
}

/// `-1` is no limit.
fn bytes(words: &mut Arguments, flag: &str) -> Result<i64> {
    let text = words.value()?.string()?;
    if text == "-1" {
        return Ok(-1);
    }
    let size: ByteSize = text.parse().with_context(|| format!("{flag} {text}"))?;
    i64::try_from(size.0).with_context(|| format!("{flag} {text}: that is too much"))
}
