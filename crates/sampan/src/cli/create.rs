//! The words of `run`, `create` and `server run` as a request.

use std::fs;
use std::path::Path;

use sampan_model::view::ContainerCreate;
use sampan_model::{Disk, ServerSize};

use super::args::{CreateArgs, labels};
use super::failure::Failure;
use super::terminal;

/// The request that the words make.
pub fn request(args: CreateArgs) -> Result<ContainerCreate, Failure> {
    terminal::require(args.tty, args.interactive)?;
    if args.rm && args.restart.is_some_and(|policy| policy != Default::default()) {
        return Err(Failure::new("--rm and --restart contradict one another")
            .with_hint("what is removed when it has ended cannot be started again: leave one of them out"));
    }
    let env = environment(&args.env_file, args.env)?;
    let default = ServerSize::default();
    let mut words = args.image_and_command.into_iter();
    let mounts = args.volume.into_iter().chain(args.mount).chain(args.tmpfs).collect();
    Ok(ContainerCreate {
        name: args.name,
        image: words.next().expect("clap requires one word"),
        entrypoint: args.entrypoint.map(|program| if program.is_empty() { Vec::new() } else { vec![program] }),
        command: words.collect(),
        env,
        size: ServerSize {
            cpus: args.cpus.unwrap_or(default.cpus),
            memory_bytes: args.memory.unwrap_or(default.memory_bytes),
            pids: args.pids_limit.map_or(default.pids, Into::into),
        },
        server: args.server,
        host_name: args.hostname,
        user: args.user,
        working_dir: args.workdir,
        labels: labels(args.label),
        mounts,
        ports: args.publish.into_iter().flat_map(|published| published.0).collect(),
        publish_all: args.publish_all,
        read_only: args.read_only,
        confinement: args.confine.confinement()?,
        stdin: args.interactive,
        terminal: args.tty,
        terminal_size: args.tty.then(terminal::size).flatten(),
        init: args.init,
        runtime: args.runtime,
        restart: args.restart.unwrap_or_default(),
        stop_signal: args.stop_signal,
        disk: args.disk.map(|size_bytes| Disk { size_bytes, loop_mounted: args.disk_loop }),
        remove_at_exit: args.rm,
    })
}

/// The environment of files and of single words, which win.
pub fn environment(files: &[impl AsRef<Path>], words: Vec<(String, String)>) -> Result<Vec<(String, String)>, Failure> {
    let mut env = Vec::new();
    for file in files {
        let file = file.as_ref();
        let text =
            fs::read_to_string(file).map_err(|error| Failure::new(format!("read {}: {error}", file.display())))?;
        let lines = env_file(&text, |name| std::env::var(name).ok());
        env.extend(lines.map_err(|reason| Failure::new(format!("read {}: {reason}", file.display())))?);
    }
    env.extend(words);
    Ok(env)
}

/// Docker's format: `NAME=VALUE` as it is, quotes and all; `NAME` for the caller's own value, if any; `#` begins a comment
/// at a line's start.
fn env_file(text: &str, own: impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, String> {
    let mut env = Vec::new();
    for (at, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), own(line.trim_end())),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("line {}: {name:?} is no name of a variable", at + 1));
        }
        env.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_environment() {
        let own = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let text = "\u{feff}# words\nA=b c \n\n  B=\"quoted\"\nHOME\nNOWHERE\nURL=http://x/?a=b#c\n";
        let env = env_file(text, own).unwrap();
        let expected = [("A", "b c "), ("B", "\"quoted\""), ("HOME", "/root"), ("URL", "http://x/?a=b#c")];
        assert_eq!(env, expected.map(|(name, value)| (name.into(), value.into())));
        assert!(env_file("A=b\nexport B=c\n", own).unwrap_err().starts_with("line 2"));
        assert!(env_file("=b", own).is_err());
    }
}
