//! What is said to a command line that cannot be understood.
//!
//! clap names the nearest word of ours where it differs by letters. Here is what differs by habit: the words of Docker,
//! Compose, Kubernetes, Fly and Heroku for what is called otherwise, or is not there. `docs/mistakes.md` tells more.

use std::io::Write as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _};

use super::args::Cli;
use super::failure::Failure;

/// The exit code for a wrong command line, and Docker's for one of `run` and `exec`, whose others are the container's.
const USAGE: u8 = 2;
const USAGE_OF_RUN: u8 = 125;

/// First words of others, and what to do instead. Each command in backticks can be typed, with names filled in.
#[rustfmt::skip]
const COMMANDS: &[(&[&str], &str)] = &[
    (&["images"], "images are listed with `sampan image ls`"),
    (&["rmi"], "images are removed with `sampan image rm NAME`"),
    (&["load"], "an image archive is loaded with `sampan image load -i FILE`"),
    (&["save"], "images are saved with `sampan image save -o FILE NAME`"),
    (&["import"], "a root file system's tar becomes an image with `sampan image import FILE NAME`"),
    (&["tag"], "an image gets another name with `sampan image tag NAME OTHER`"),
    (&["history"], "an image's layers are shown with `sampan image history NAME`"),
    (&["pull", "push", "search", "login", "logout"],
        "there is no registry to speak to yet: bring images in with `sampan image load -i FILE`, take them out with `sampan image save -o FILE NAME`"),
    (&["container"], "containers need no word before the command: `sampan ps`, `sampan logs NAME`, `sampan rm NAME`"),
    (&["compose", "stack", "swarm"],
        "several services stand in one sampan.toml, as [services.NAME], and come up together with `sampan up DIR`; see `sampan up --help`"),
    (&["buildx"], "an image is built from source with `sampan build DIR`"),
    (&["deploy", "launch", "apply", "push-app", "serve", "publish"], "source becomes a service, or its next version, with `sampan up DIR`"),
    (&["init", "new"], "nothing has to be set up: `sampan up DIR` finds out what the source is, and sampan.toml says what cannot be found out"),
    (&["get", "list", "ls", "apps", "status", "services", "pods"], "services and containers are listed with `sampan ps`; images with `sampan image ls`"),
    (&["describe", "show"], "all there is to know of something is printed with `sampan inspect NAME`"),
    (&["delete", "destroy", "remove", "undeploy"], "a service is removed with `sampan down NAME`, a container with `sampan rm NAME`"),
    (&["scale"], "the number of replicas is a part of the service: `sampan up DIR --replicas 3`"),
    (&["log", "tail", "journal"], "what something has written is printed with `sampan logs -f NAME`"),
    (&["info", "system"], "the daemon tells of itself with `sampan daemon status`, of this machine with `sampan doctor`"),
    (&["prune"], "images that nothing uses are removed with `sampan image prune`"),
    (&["install", "enable"], "systemd runs the daemon after `sampan daemon install`"),
    (&["uninstall", "disable"], "systemd lets go of the daemon with `sampan daemon uninstall`; everything of a root goes with `sampan purge`"),
    (&["check", "diagnose"], "what this machine offers and lacks is told by `sampan doctor`"),
    (&["completion", "complete"], "a shell's completions are printed by `sampan completions bash`"),
    (&["config", "secrets", "secret", "env"], "a service's environment is given with `sampan up DIR -e NAME=VALUE`, or as [env] in sampan.toml"),
    (&["network"], "every server has an address of its own, and services find one another by name: `sampan inspect NAME` shows both"),
    (&["commit", "diff", "export"], "what is in a container does not become an image; build one from source with `sampan build DIR`"),
    (&["shell", "console", "sh", "bash"], "a shell in a container: `sampan exec -it NAME sh`"),
];

/// The same within a group of commands (`sampan image list`): others' words for the usual ones of ours.
const SYNONYMS: &[(&[&str], &str)] = &[
    (&["list", "show-all", "l"], "ls"),
    (&["remove", "delete", "del", "destroy", "uninstall"], "rm"),
    (&["show", "describe", "get", "info"], "inspect"),
    (&["new", "add", "make"], "create"),
    (&["up", "run", "begin"], "start"),
    (&["down", "kill", "end"], "stop"),
    (&["reload", "upgrade"], "restart"),
    (&["info", "show", "ps"], "status"),
    (&["export"], "save"),
    (&["clean", "gc"], "prune"),
    (&["check", "verify"], "fsck"),
];

/// Options of Docker's that we have not, and why not or what instead.
#[rustfmt::skip]
const OPTIONS: &[(&str, &str)] = &[
    ("--network", "every server has a network of its own; publish a port with -p, and reach services by name"),
    ("--net", "every server has a network of its own; publish a port with -p, and reach services by name"),
    ("--ip", "addresses are given out; `sampan inspect NAME` shows them"),
    ("--gpus", "a device is handed to a container with --device"),
    ("--link", "containers find one another by name without it"),
    ("--uts", "every server has a host name of its own: --hostname"),
    ("--device-cgroup-rule", "a container may use the devices that it was given: --device"),
    ("--cgroup-parent", "every server has a cgroup of its own"),
    ("--platform", "what runs here is built for this machine's processor"),
    ("--memory-swap", "--memory counts swap as well"),
    ("--cpu-shares", "--cpus says how much of the processors it may use at most"),
    ("--cpuset-cpus", "--cpus says how much of the processors it may use at most"),
    ("--log-driver", "what containers write is kept in files and read with `sampan logs NAME`"),
    ("--volumes-from", "give both the same volume: -v NAME:/path"),
];

/// Turns clap's error into what is printed and the exit code. Help and the version are no errors: they are printed and
/// the process ends, as clap has it.
pub fn explain(error: &clap::Error, words: &[String]) -> Failure {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        error.exit();
    }
    if error.kind() == ErrorKind::MissingSubcommand {
        // as where no variable is set: without a command there is help
        let group = group_before(&Cli::command(), words).map_or_else(Cli::command, |(_, group)| group);
        let _ = std::io::stderr().write_all(group.clone().render_help().to_string().as_bytes());
        return Failure::silent(USAGE);
    }
    let is_run = first_command(words).is_some_and(|word| word == "run" || word == "exec");
    let code = if is_run { USAGE_OF_RUN } else { USAGE };
    if let Some(hint) = hint(error, words) {
        let what = match error.kind() {
            ErrorKind::InvalidSubcommand => "command",
            _ => "option",
        };
        let word = wrong_word(error).unwrap_or_default();
        return Failure::new(format!("there is no {what} '{word}'")).with_hint(hint).with_code(code);
    }
    // there is nobody to tell that standard error is closed
    let _ = error.print();
    Failure::silent(code)
}

/// What to do instead, where the wrong word is known here.
fn hint(error: &clap::Error, words: &[String]) -> Option<String> {
    let wrong = wrong_word(error)?;
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let at = words.iter().position(|word| *word == wrong)?;
            match group_before(&Cli::command(), &words[..at]) {
                Some((path, group)) => synonym(&group, &wrong).map(|ours| format!("it is `{path} {ours}`")),
                None => lookup(COMMANDS, &wrong).map(str::to_owned),
            }
        }
        // who writes one of Docker's to the letter means it, however near one of ours is
        ErrorKind::UnknownArgument => {
            let name = wrong.split('=').next().unwrap_or(&wrong);
            OPTIONS.iter().find(|(option, _)| *option == name).map(|(_, answer)| (*answer).to_owned())
        }
        _ => None,
    }
}

fn wrong_word(error: &clap::Error) -> Option<String> {
    let kind = match error.kind() {
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        _ => return None,
    };
    match error.get(kind)? {
        ContextValue::String(word) => Some(word.clone()),
        _ => None,
    }
}

fn lookup(table: &'static [(&[&str], &str)], word: &str) -> Option<&'static str> {
    table.iter().find(|(theirs, _)| theirs.contains(&word)).map(|(_, ours)| *ours)
}

/// A group's own word for another's.
fn synonym(group: &Command, word: &str) -> Option<&'static str> {
    let fits = |ours: &str| group.get_subcommands().any(|command| command.get_name() == ours);
    SYNONYMS.iter().find(|(theirs, ours)| theirs.contains(&word) && fits(ours)).map(|(_, ours)| *ours)
}

/// The group of commands that the words lead into, with its path, where they lead into one.
fn group_before(top: &Command, words: &[String]) -> Option<(String, Command)> {
    let (mut path, mut group) = (String::from("sampan"), None);
    let mut current = top.clone();
    for word in words {
        if let Some(inner) = current.find_subcommand(word).cloned() {
            path = format!("{path} {word}");
            group = Some(inner.clone());
            current = inner;
        }
    }
    Some((path, group?))
}

/// The first word that is a command of ours.
fn first_command(words: &[String]) -> Option<&str> {
    let top = Cli::command();
    words.iter().map(String::as_str).find(|word| top.find_subcommand(word).is_some())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn answer(line: &str) -> (clap::Error, Option<String>) {
        let words = words(line);
        let error = Cli::try_parse_from(std::iter::once("sampan".to_owned()).chain(words.clone())).unwrap_err();
        let hint = hint(&error, &words);
        (error, hint)
    }

    #[test]
    fn others_words_are_answered_with_ours() {
        let check = |line: &str, part: &str| {
            let (error, hint) = answer(line);
            assert!(hint.as_ref().is_some_and(|hint| hint.contains(part)), "{line}: {hint:?} {error}");
        };
        check("images", "`sampan image ls`");
        check("--json images", "`sampan image ls`");
        check("rmi -f x", "`sampan image rm NAME`");
        check("compose up", "[services.NAME]");
        check("get pods", "`sampan ps`");
        check("deploy", "`sampan up DIR`");
        check("image list", "it is `sampan image ls`");
        check("image delete x", "it is `sampan image rm`");
        check("--root /r daemon reload", "it is `sampan daemon restart`");
        check("run --uts host x", "host name of its own");
        check("run --network=host x", "-p");
        // letters that were mistyped are clap's to answer
        assert_eq!(answer("upp").1, None);
        assert_eq!(answer("image ipmort").1, None);
    }

    #[test]
    fn no_word_of_ours_is_taken_for_another_s() {
        let top = Cli::command();
        for word in COMMANDS.iter().flat_map(|(words, _)| *words) {
            assert!(top.find_subcommand(word).is_none(), "{word} is a command");
        }
        let options: Vec<_> = top.get_subcommands().flat_map(|command| command.get_arguments()).collect();
        for (option, _) in OPTIONS {
            let name = option.trim_start_matches("--");
            assert!(!options.iter().any(|known| known.get_long() == Some(name)), "{option} is an option");
        }
    }

    #[test]
    fn every_command_in_an_answer_can_be_typed() {
        let answers = COMMANDS.iter().map(|(_, answer)| *answer).chain(OPTIONS.iter().map(|(_, answer)| *answer));
        for answer in answers {
            for line in answer.split('`').skip(1).step_by(2) {
                let line = line.replace("NAME=VALUE", "A=b").replace("NAME", "name").replace("OTHER", "other");
                match Cli::try_parse_from(line.split_whitespace()) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::DisplayHelp => {}
                    Err(error) => panic!("{answer}\n{line}: {error}"),
                }
            }
        }
    }

    #[test]
    fn exit_codes() {
        for (line, code) in
            [("images", 2), ("up --no-such", 2), ("run --no-such x", 125), ("--root /r run --net=host x", 125)]
        {
            let (error, _) = answer(line);
            assert_eq!(explain(&error, &words(line)).parts().2, code, "{line}");
        }
    }
}
