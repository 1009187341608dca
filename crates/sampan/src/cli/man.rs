//! `sampan man [DIR]`: manual pages from the same words that are parsed: `sampan.1`, and `sampan-run.1` and so on.
//!
//! What a command's help says under "Example:" stands under EXAMPLES; what holds for all commands (files, environment,
//! exit codes) stands in `sampan.1` alone.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::args::Cli;
use super::failure::Failure;
use super::output;

/// What the pages belong to, at the top of each.
const MANUAL: &str = "Sampan";

/// Terms and what they are, a section of `sampan.1` each.
type Terms = &'static [(&'static str, &'static str)];

const FILES: Terms = &[
    ("/var/lib/sampan", "The default root: records, images, volumes, logs. --root or SAMPAN_ROOT choose another."),
    (
        "/run/sampan/sampan.sock",
        "The native API of the default root's daemon; of any other root, ROOT/run/sampan.sock.",
    ),
    ("ROOT/daemon.log", "What the daemon says where systemd does not run it."),
    ("sampan.toml", "Beside a source: what cannot be told from it. Flags and the environment come before it."),
    (
        "/etc/systemd/system/sampan.service, sampan.socket, sampan-http.socket",
        "What sampan daemon install writes for the default root; for others the names have the root's tag.",
    ),
];

const ENVIRONMENT: Terms = &[
    ("SAMPAN_ROOT", "The root, where --root does not say it."),
    ("SAMPAN_HTTP", "Where services are reached, where --http does not say it."),
    (
        "SAMPAN_LOG",
        "What the daemon logs: error, warn, info (the default), debug, or a directive such as sampan_edge=debug.",
    ),
    (
        "SAMPAN_RUNTIMES",
        "Other OCI runtimes that run --runtime may name, for the daemon: NAME=/PATH, several parted by colons. Without it \
         those in its PATH are found.",
    ),
    ("NO_COLOR", "Where it is set, nothing is coloured."),
    (
        "LISTEN_FDS, NOTIFY_SOCKET",
        "Read by the daemon when systemd runs it: sockets to listen on, and whom to tell that it is ready.",
    ),
];

const EXIT_STATUS: Terms = &[
    ("0", "Done."),
    ("1", "It failed; standard error says what failed, on what, why, and what to do next."),
    ("2", "The command line is wrong (run and exec: 125)."),
    ("125", "run and exec: Sampan could not do it; any other code is the container's own."),
    ("126", "run and exec: the command was found and cannot be executed."),
    ("127", "run and exec: the command is not in the image."),
    ("130", "Ctrl-C ended it."),
];

/// Writes every page below the directory, or prints the main one.
pub fn man(directory: Option<&Path>) -> Result<(), Failure> {
    let pages = pages();
    let Some(directory) = directory else {
        let (_, text) = pages.first().expect("the main page comes first");
        return output::print(text);
    };
    let cannot = |path: &Path, error| Failure::new(format!("write {}: {error}", path.display()));
    fs::create_dir_all(directory).map_err(|error| cannot(directory, error))?;
    for (name, text) in &pages {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| cannot(&path, error))?;
    }
    output::print_lines(pages.iter().map(|(name, _)| directory.join(name).display().to_string()))
}

/// Names and texts, the main page first.
fn pages() -> Vec<(String, String)> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, true, &mut pages);
    pages
}

fn add_pages(command: &Command, is_main: bool, pages: &mut Vec<(String, String)>) {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    pages.push((format!("{name}.1"), page(command, is_main)));
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        add_pages(inner, false, pages);
    }
}

fn page(command: &Command, is_main: bool) -> String {
    let source = format!("sampan {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual(MANUAL);
    let mut text = Vec::new();
    let rendered = man
        .render_title(&mut text)
        .and_then(|()| man.render_name_section(&mut text))
        .and_then(|()| man.render_synopsis_section(&mut text))
        .and_then(|()| man.render_description_section(&mut text))
        .and_then(|()| man.render_options_section(&mut text))
        .and_then(|()| match command.get_subcommands().next() {
            Some(_) => man.render_subcommands_section(&mut text),
            None => Ok(()),
        })
        .and_then(|()| rest(command, is_main).to_writer(&mut text));
    rendered.expect("a vector takes everything that is written to it");
    let text = String::from_utf8(text).expect("commands, options and help are UTF-8, and so is what is made of them");
    text.chars().map(plain).collect()
}

/// A character as every troff reads it, whatever encoding it takes its input to be in (groff_char(7)).
fn plain(c: char) -> String {
    if c.is_ascii() { c.into() } else { format!("\\[u{:04X}]", u32::from(c)) }
}

/// What comes after the sections that are made of options and commands.
fn rest(command: &Command, is_main: bool) -> Roff {
    let mut roff = Roff::new();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (examples, remarks) = examples_and_remarks(&help);
    if !remarks.is_empty() {
        roff.control("SH", ["NOTES"]).text([roman(remarks)]);
    }
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        roff.text(examples.into_iter().flat_map(|line| [bold(line), Inline::LineBreak]).collect::<Vec<_>>());
        roff.control("fi", []);
    }
    if is_main {
        for (title, terms) in [("FILES", FILES), ("ENVIRONMENT", ENVIRONMENT), ("EXIT STATUS", EXIT_STATUS)] {
            roff.control("SH", [title]);
            for (term, what) in terms {
                roff.control("TP", []).text([italic(*term)]).text([roman(*what)]);
            }
        }
    } else {
        let main = "files, environment and exit codes";
        roff.control("SH", ["SEE ALSO"]).text([bold("sampan"), roman(format!("(1): {main}"))]);
    }
    roff
}

/// The indented lines below "Example:", and everything else.
fn examples_and_remarks(help: &str) -> (Vec<&str>, String) {
    let (examples, remarks): (Vec<_>, Vec<_>) =
        help.lines().filter(|line| !line.starts_with("Example")).partition(|line| line.starts_with("  "));
    (examples.into_iter().map(str::trim).collect(), remarks.join("\n").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_an_example() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[0], "sampan.1");
        for name in ["sampan-up.1", "sampan-run.1", "sampan-image-import.1", "sampan-daemon-install.1"] {
            assert!(names.contains(&name), "no {name} in {names:?}");
        }
        for (name, text) in &pages {
            assert!(
                text.is_ascii() && text.contains(".SH EXAMPLES") && text.contains("\\fBsampan "),
                "{name}:\n{text}"
            );
        }
        for section in ["FILES", "ENVIRONMENT", "EXIT STATUS"] {
            assert!(
                pages[0].1.contains(&format!(".SH \"{section}\"")) || pages[0].1.contains(&format!(".SH {section}")),
                "{section}"
            );
        }
    }

    #[test]
    fn examples_and_what_is_said_beside_them() {
        let help = "Example:\n  sampan a    this\n  sampan b\n\nA remark.";
        assert_eq!(examples_and_remarks(help), (vec!["sampan a    this", "sampan b"], "A remark.".to_owned()));
    }
}
