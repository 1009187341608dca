//! `sampan logs`: what a container has written; of a service, its replicas' together.

use std::collections::HashMap;
use std::io::{self, Write};

use jiff::Timestamp;
use sampan_client::{Client, LogEntry, LogOptions, LogStream, Output};
use sampan_model::Label;
use serde_json::json;

use super::args::{Globals, LogsArgs};
use super::connect::connect;
use super::failure::Failure;

/// `sampan logs`. Without a handler of its own: Ctrl-C just ends it.
pub async fn logs(globals: &Globals, args: LogsArgs) -> Result<(), Failure> {
    let client = connect(globals).await?;
    let options = LogOptions { follow: args.follow, tail: args.tail.0, since: args.since, until: args.until };
    let sources = sources(&client, &args.name, options).await?;
    let mut writer = Writer::new(globals.json, args.timestamps, sources.iter().map(|source| source.name.as_str()));
    let mut merged = Merged::begin(sources).await;
    while let Some((name, entry)) = merged.next(args.follow).await {
        let entry = entry?;
        match entry.output {
            // programs read one stream of JSON
            Output::Stdout => writer.write(&mut io::stdout().lock(), &name, &entry)?,
            Output::Stderr if globals.json => writer.write(&mut io::stdout().lock(), &name, &entry)?,
            Output::Stderr => writer.write(&mut io::stderr().lock(), &name, &entry)?,
        }
    }
    Ok(())
}

/// One container's log.
struct Source {
    name: String,
    entries: LogStream,
}

/// A container's log, or a service's: all its replicas'.
async fn sources(client: &Client, name: &str, options: LogOptions) -> Result<Vec<Source>, Failure> {
    let error = match client.logs(name, options).await {
        Ok(entries) if !is_service(client, name).await => return Ok(vec![Source { name: name.to_owned(), entries }]),
        Ok(_) => None,
        Err(error) if error.is("not_found") => Some(error),
        Err(error) => return Err(error.into()),
    };
    let service = match Label::parse(name) {
        Ok(label) => client.service(&label).await.ok(),
        Err(_) => None,
    };
    let mut sources = Vec::new();
    for replica in service.into_iter().flat_map(|service| service.replicas) {
        match client.logs(replica.id.as_str(), options).await {
            Ok(entries) => sources.push(Source { name: replica.name.to_string(), entries }),
            // it was replaced meanwhile
            Err(error) if error.is("not_found") => {}
            Err(error) => return Err(error.into()),
        }
    }
    match error {
        Some(error) if sources.is_empty() => Err(error.into()),
        _ => Ok(sources),
    }
}

async fn is_service(client: &Client, name: &str) -> bool {
    match Label::parse(name) {
        Ok(label) => client.service(&label).await.is_ok(),
        Err(_) => false,
    }
}

/// Several logs as one. What is there already comes in the order of its time; of what is to come, as it comes.
struct Merged {
    sources: Vec<Source>,
    /// The next entry of each source that has one already.
    next: Vec<Option<Result<LogEntry, Failure>>>,
}

impl Merged {
    async fn begin(sources: Vec<Source>) -> Self {
        let next = sources.iter().map(|_| None).collect();
        Self { sources, next }
    }

    /// The next entry and whose it is.
    async fn next(&mut self, follow: bool) -> Option<(String, Result<LogEntry, Failure>)> {
        let mut at = 0;
        // a log that is not followed tells its next entry at once: the oldest of all is the next one
        while !follow && at < self.sources.len() {
            if self.next[at].is_none() {
                match self.sources[at].entries.next().await {
                    Some(entry) => self.next[at] = Some(entry.map_err(Failure::from)),
                    None => {
                        self.sources.remove(at);
                        self.next.remove(at);
                        continue;
                    }
                }
            }
            at += 1;
        }
        if !follow {
            let time = |entry: &Option<Result<LogEntry, Failure>>| match entry {
                Some(Ok(entry)) => Some(entry.at),
                // what went wrong is told first
                _ => None,
            };
            let oldest = (0..self.next.len()).min_by_key(|&at| time(&self.next[at]))?;
            let entry = self.next[oldest].take()?;
            return Some((self.sources[oldest].name.clone(), entry));
        }
        self.next_to_come().await
    }

    async fn next_to_come(&mut self) -> Option<(String, Result<LogEntry, Failure>)> {
        while !self.sources.is_empty() {
            let (at, entry) = {
                let waiting = self.sources.iter_mut().map(|source| Box::pin(source.entries.next()));
                let (entry, at, _) = futures_util::future::select_all(waiting).await;
                (at, entry)
            };
            match entry {
                Some(entry) => return Some((self.sources[at].name.clone(), entry.map_err(Failure::from))),
                None => drop(self.sources.remove(at)),
            }
        }
        None
    }
}

/// Writes entries; before each line its time where asked, and whose it is where there are several.
struct Writer {
    json: bool,
    timestamps: bool,
    /// How wide names are; `None` where there is one source.
    width: Option<usize>,
    /// Which of a source's streams left their line unfinished.
    in_line: HashMap<(String, Output), bool>,
}

impl Writer {
    fn new<'a>(json: bool, timestamps: bool, names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let width = (names.len() > 1).then(|| names.map(str::len).max().unwrap_or(0));
        Self { json, timestamps, width, in_line: HashMap::new() }
    }

    fn write(&mut self, out: &mut impl Write, name: &str, entry: &LogEntry) -> io::Result<()> {
        let text = if self.json { self.json_line(name, entry).into_bytes() } else { self.lines(name, entry)? };
        out.write_all(&text)?;
        out.flush()
    }

    fn lines(&mut self, name: &str, entry: &LogEntry) -> io::Result<Vec<u8>> {
        if !self.timestamps && self.width.is_none() {
            return Ok(entry.bytes.to_vec());
        }
        let in_line = self.in_line.entry((name.to_owned(), entry.output)).or_default();
        let mut text = Vec::with_capacity(entry.bytes.len() + 64);
        for line in entry.bytes.split_inclusive(|&byte| byte == b'\n') {
            if !*in_line {
                if let Some(width) = self.width {
                    write!(text, "{name:width$} | ")?;
                }
                if self.timestamps {
                    write!(text, "{} ", stamp(entry.at))?;
                }
            }
            text.extend_from_slice(line);
            *in_line = !line.ends_with(b"\n");
        }
        Ok(text)
    }

    fn json_line(&self, name: &str, entry: &LogEntry) -> String {
        let stream = match entry.output {
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        };
        let text = String::from_utf8_lossy(&entry.bytes);
        let mut line = json!({ "at": entry.at.to_string(), "stream": stream, "text": text });
        if self.width.is_some() {
            line["container"] = name.into();
        }
        format!("{line}\n")
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

    /// What is written of entries of these containers.
    fn check(json: bool, timestamps: bool, entries: &[(&str, LogEntry)], expected: &str) {
        let mut names: Vec<_> = entries.iter().map(|(name, _)| *name).collect();
        names.dedup();
        let mut writer = Writer::new(json, timestamps, names.into_iter());
        let mut out = Vec::new();
        for (name, entry) in entries {
            writer.write(&mut out, name, entry).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn times_stand_at_the_start_of_lines() {
        let at = "1970-01-01T00:00:01.500000000Z";
        let entries = [(Output::Stdout, "a\nb"), (Output::Stderr, "!\n"), (Output::Stdout, "c\n")];
        let entries = entries.map(|(output, text)| ("job", entry(output, text)));
        check(false, true, &entries, &format!("{at} a\n{at} b{at} !\nc\n"));
        check(false, false, &entries, "a\nb!\nc\n");
    }

    #[test]
    fn several_are_told_apart() {
        let entries = [("web.1", entry(Output::Stdout, "a\n")), ("web.10", entry(Output::Stderr, "b\n"))];
        check(false, false, &entries, "web.1  | a\nweb.10 | b\n");
        let at = "\"at\":\"1970-01-01T00:00:01.5Z\"";
        let expected = [
            format!("{{{at},\"container\":\"web.1\",\"stream\":\"stdout\",\"text\":\"a\\n\"}}\n"),
            format!("{{{at},\"container\":\"web.10\",\"stream\":\"stderr\",\"text\":\"b\\n\"}}\n"),
        ];
        check(true, false, &entries, &expected.concat());
    }

    #[test]
    fn json_lines() {
        let expected = "{\"at\":\"1970-01-01T00:00:01.5Z\",\"stream\":\"stderr\",\"text\":\"x\\n\"}\n";
        check(true, false, &[("job", entry(Output::Stderr, "x\n"))], expected);
    }
}
