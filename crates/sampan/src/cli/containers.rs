//! `down`, `logs`, `inspect`, `stop`, `rm`, `wait`: one request a name, more or less.

use std::io::Write as _;

use jiff::Timestamp;
use sampan_client::{Client, ClientError, LogEntry, LogOptions, Output};
use sampan_model::Label;
use serde_json::{Value, json};

use super::args::{Globals, LogsArgs, StopArgs};
use super::connect::connect;
use super::failure::Failure;
use super::output;

/// `sampan down`.
pub async fn down(globals: &Globals, names: &[Label]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    for name in names {
        match client.delete_service(name).await {
            Ok(()) => {}
            Err(error) if error.is("not_found") && client.container(name.as_str()).await.is_ok() => {
                return Err(Failure::from(error).with_hint(format!("{name} is a container: `sampan rm -f {name}`")));
            }
            Err(error) => return Err(error.into()),
        }
    }
    print_done(globals, "removed", names)
}

/// `sampan inspect`.
pub async fn inspect(globals: &Globals, names: &[String]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let mut found = Vec::new();
    for name in names {
        found.extend(client.inspect(name).await?);
    }
    if globals.quiet {
        let id = |value: &Value| value["id"].as_str().or(value["name"].as_str()).map(str::to_owned);
        return output::print_lines(found.iter().filter_map(id));
    }
    output::print_json(&found)
}

/// `sampan stop`.
pub async fn stop(globals: &Globals, args: StopArgs) -> Result<(), Failure> {
    let client = connect(globals).await?;
    for name in &args.names {
        match client.stop_container(name, args.timeout).await {
            Ok(()) => {}
            Err(error) => return Err(hint_at_service(&client, name, error).await),
        }
    }
    print_done(globals, "stopped", &args.names)
}

/// `sampan rm`.
pub async fn rm(globals: &Globals, force: bool, names: &[String]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    for name in names {
        let removed = match force {
            true => client.kill_and_delete_container(name).await,
            false => client.delete_container(name).await,
        };
        match removed {
            Ok(()) => {}
            // as with rm(1): what is to be gone is gone
            Err(error) if force && error.is("not_found") && !is_service(&client, name).await => {}
            Err(error) => return Err(hint_at_service(&client, name, error).await),
        }
    }
    print_done(globals, "removed", names)
}

/// `sampan wait`.
pub async fn wait(globals: &Globals, names: &[String]) -> Result<(), Failure> {
    let client = connect(globals).await?;
    for name in names {
        let exit = client.wait_container(name).await?;
        if globals.json {
            output::print_json(&exit)?;
        } else {
            let code = exit.exit_code.map_or_else(|| "unknown".into(), |code| code.to_string());
            output::print_lines([code])?;
        }
    }
    Ok(())
}

fn print_done<T: std::fmt::Display>(globals: &Globals, word: &str, names: &[T]) -> Result<(), Failure> {
    if globals.json {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        return output::print_json(&json!({ word: names }));
    }
    output::print_lines(names)
}

async fn is_service(client: &Client, name: &str) -> bool {
    match Label::parse(name) {
        Ok(label) => client.service(&label).await.is_ok(),
        Err(_) => false,
    }
}

/// Somebody who means a service is told which command is for services.
async fn hint_at_service(client: &Client, name: &str, error: ClientError) -> Failure {
    let is_missing = error.is("not_found");
    let failure = Failure::from(error);
    if is_missing && is_service(client, name).await {
        return failure.with_hint(format!("{name} is a service: `sampan down {name}` removes it"));
    }
    failure
}

/// `sampan logs`. Without a handler of its own: Ctrl-C just ends it.
pub async fn logs(globals: &Globals, args: LogsArgs) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let options = LogOptions { follow: args.follow, tail: args.tail };
    let container = match client.logs(&args.name, options).await {
        Err(error) if error.is("not_found") => Err((replica_of(&client, &args.name).await, error)),
        other => Ok(other?),
    };
    let mut entries = match container {
        Ok(entries) => entries,
        Err((Some(replica), _)) => client.logs(&replica, options).await?,
        Err((None, error)) => return Err(error.into()),
    };
    let mut writer = LineWriter { timestamps: args.timestamps || globals.json, in_line: [false; 2] };
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        if globals.json {
            output::print(&json_line(&entry))?;
        } else {
            match entry.output {
                Output::Stdout => writer.write(&mut std::io::stdout().lock(), &entry)?,
                Output::Stderr => writer.write(&mut std::io::stderr().lock(), &entry)?,
            }
        }
    }
    Ok(())
}

/// The replica whose log is meant by a service's name: the one that answers, else the first.
async fn replica_of(client: &Client, name: &str) -> Option<String> {
    let service = client.service(&Label::parse(name).ok()?).await.ok()?;
    let ready = service.replicas.iter().find(|replica| replica.ready == Some(true));
    ready.or(service.replicas.first()).map(|replica| replica.id.to_string())
}

fn json_line(entry: &LogEntry) -> String {
    let stream = match entry.output {
        Output::Stdout => "stdout",
        Output::Stderr => "stderr",
    };
    let text = String::from_utf8_lossy(&entry.bytes);
    format!("{}\n", json!({ "at": entry.at.to_string(), "stream": stream, "text": text }))
}

/// Writes entries, with the time at the start of each line where asked.
struct LineWriter {
    timestamps: bool,
    /// Whether the last entry of stdout and of stderr left its line unfinished.
    in_line: [bool; 2],
}

impl LineWriter {
    fn write(&mut self, out: &mut impl std::io::Write, entry: &LogEntry) -> std::io::Result<()> {
        if !self.timestamps {
            out.write_all(&entry.bytes)?;
            return out.flush();
        }
        let in_line = &mut self.in_line[usize::from(entry.output == Output::Stderr)];
        let mut text = Vec::with_capacity(entry.bytes.len() + 64);
        for line in entry.bytes.split_inclusive(|&byte| byte == b'\n') {
            if !*in_line {
                write!(text, "{} ", stamp(entry.at))?;
            }
            text.extend_from_slice(line);
            *in_line = !line.ends_with(b"\n");
        }
        out.write_all(&text)?;
        out.flush()
    }
}

/// A time whose width does not change: nine digits of a second.
fn stamp(at: Timestamp) -> String {
    format!("{at:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(output: Output, text: &'static str) -> LogEntry {
        LogEntry { output, at: Timestamp::from_nanosecond(1_500_000_000).unwrap(), bytes: text.into() }
    }

    #[test]
    fn times_stand_at_the_start_of_lines() {
        let mut writer = LineWriter { timestamps: true, in_line: [false; 2] };
        let mut out = Vec::new();
        for (output, text) in [(Output::Stdout, "a\nb"), (Output::Stderr, "!\n"), (Output::Stdout, "c\n")] {
            writer.write(&mut out, &entry(output, text)).unwrap();
        }
        let at = "1970-01-01T00:00:01.500000000Z";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{at} a\n{at} b{at} !\nc\n"));
    }

    #[test]
    fn json_lines() {
        let line = json_line(&entry(Output::Stderr, "x\n"));
        assert_eq!(line, "{\"at\":\"1970-01-01T00:00:01.5Z\",\"stream\":\"stderr\",\"text\":\"x\\n\"}\n");
    }
}
