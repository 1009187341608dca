//! What there is, and what it is doing.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use lexopt::prelude::*;
use sampan_runtime::oci::config::Status;
use sampan_runtime::oci::{self, Container, OciError};
use serde::Serialize;

use super::arguments::{Arguments, required};
use super::{Done, Global};

/// A container, as runc prints it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    id: &'a str,
    pid: u32,
    status: Status,
    bundle: &'a str,
    rootfs: &'a str,
    created: Timestamp,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: &'a std::collections::BTreeMap<String, String>,
    owner: String,
}

impl<'a> Shown<'a> {
    fn of(container: &'a Container) -> Result<Self> {
        let record = container.record();
        let status = container.status()?;
        Ok(Self {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status,
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: record.created,
            annotations: &record.annotations,
            owner: owner(record.owner),
        })
    }
}

fn owner(uid: u32) -> String {
    if uid == 0 { "root".to_owned() } else { format!("#{uid}") }
}

fn print(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

pub fn state(global: &Global, words: Arguments) -> Result<Done> {
    let container = Container::find(&global.root, &words.id_alone()?)?;
    print(&Shown::of(&container)?)?;
    Ok(Done::Well)
}

#[derive(PartialEq, Eq)]
enum Form {
    Table,
    Json,
}

fn form(words: &mut Arguments) -> Result<Form> {
    match words.value()?.string()?.as_str() {
        "table" => Ok(Form::Table),
        "json" => Ok(Form::Json),
        other => bail!("{other:?} is no format: table or json"),
    }
}

pub fn list(global: &Global, mut words: Arguments) -> Result<Done> {
    let (mut shown_as, mut quiet) = (Form::Table, false);
    while let Some(word) = words.next()? {
        match word {
            Short('f') | Long("format") => shown_as = form(&mut words)?,
            Short('q') | Long("quiet") => quiet = words.switch()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let ids = global.root.ids()?;
    let mut out = std::io::stdout().lock();
    if quiet {
        for id in ids {
            writeln!(out, "{id}")?;
        }
        return Ok(Done::Well);
    }
    let mut containers = Vec::new();
    for id in ids {
        match Container::find(&global.root, &id) {
            Ok(container) => containers.push(container),
            // deleted meanwhile
            Err(OciError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let shown = containers.iter().map(Shown::of).collect::<Result<Vec<_>>>()?;
    if shown_as == Form::Json {
        // runc says null where there are none
        let text = if shown.is_empty() { "null".to_owned() } else { serde_json::to_string(&shown)? };
        writeln!(out, "{text}")?;
        return Ok(Done::Well);
    }
    writeln!(out, "{:<12} {:<8} {:<8} {:<30} {:<30} OWNER", "ID", "PID", "STATUS", "BUNDLE", "CREATED")?;
    for Shown { id, pid, status, bundle, created, owner, .. } in &shown {
        let created = created.to_string();
        writeln!(out, "{id:<12} {pid:<8} {:<8} {bundle:<30} {created:<30} {owner}", status.as_str())?;
    }
    Ok(Done::Well)
}

pub fn ps(global: &Global, mut words: Arguments) -> Result<Done> {
    let (mut shown_as, mut id, mut flags) = (Form::Table, None, Vec::new());
    while let Some(word) = words.next()? {
        match word {
            Short('f') | Long("format") => shown_as = form(&mut words)?,
            Value(value) => {
                id = Some(value.string()?);
                flags = words.rest()?;
                break;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let pids = Container::find(&global.root, &required(id)?)?.pids()?;
    if shown_as == Form::Json {
        println!("{}", serde_json::to_string(&pids)?);
        return Ok(Done::Well);
    }
    if flags.is_empty() {
        flags.push("-ef".to_owned());
    }
    let told = Command::new("ps").args(&flags).output().context("run ps")?;
    if !told.status.success() {
        bail!("ps {}: {}", flags.join(" "), String::from_utf8_lossy(&told.stderr).trim());
    }
    let text = String::from_utf8_lossy(&told.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|word| word == "PID");
    let column = column.with_context(|| format!("ps {} shows no PID", flags.join(" ")))?;
    println!("{head}");
    let pid_of = |line: &&str| line.split_whitespace().nth(column)?.parse::<u32>().ok();
    for line in lines.filter(|line| pid_of(line).is_some_and(|pid| pids.contains(&pid))) {
        println!("{line}");
    }
    Ok(Done::Well)
}

pub fn events(global: &Global, mut words: Arguments) -> Result<Done> {
    let (mut id, mut once, mut interval) = (None, false, Duration::from_secs(5));
    while let Some(word) = words.next()? {
        match word {
            Long("stats") => once = words.switch()?,
            Long("interval") => interval = seconds(&words.value()?.string()?)?,
            Value(value) if id.is_none() => id = Some(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let container = Container::find(&global.root, &required(id)?)?;
    loop {
        if container.status()? == Status::Stopped {
            if once {
                return Err(OciError::NotRunning(container.record().id.clone()).into());
            }
            return Ok(Done::Well);
        }
        println!("{}", oci::stats(&container)?);
        if once || container.wait_for_end(interval)? {
            return Ok(Done::Well);
        }
    }
}

/// `5s`, `1m30s`, `500ms`: Go's durations.
fn seconds(text: &str) -> Result<Duration> {
    let duration: jiff::SignedDuration =
        text.parse().with_context(|| format!("--interval {text}: a duration such as 5s"))?;
    Duration::try_from(duration).with_context(|| format!("--interval {text}: a duration such as 5s"))
}
