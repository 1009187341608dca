//! `Procfile`: which processes a source is made of, as Heroku has it. The process `web` is the service; each other is a
//! service of its own without a route, named `SERVICE-PROCESS`.
//!
//! ```text
//! web: target/release/shop --listen 0.0.0.0:$PORT
//! worker: QUEUE=orders ./shop work
//! ```
//!
//! The first word names a program of the source by its last part: in an image there is `/app/NAME` and nothing else.
//! There is no shell either, so a line is not given to one: its words are told apart by a shell's rules for blanks,
//! quotes and backslashes, `NAME=VALUE` before the program is set for it, `$NAME` and `${NAME}` are replaced out of the
//! service's environment (the value is one word or part of one, never several), and what only a shell can do is
//! refused.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sampan_model::Label;

use crate::detect::Choice;

/// The file's name, beside `Cargo.toml` or `go.mod`.
pub const FILE_NAME: &str = "Procfile";
/// The process that answers requests.
pub const WEB: &str = "web";
/// The process that other platforms run once before the others.
const RELEASE: &str = "release";
/// The largest file that is read.
const MOST_BYTES: u64 = 64 << 10;
/// The most processes.
const MOST_PROCESSES: usize = 32;

/// A process of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its name, with '-' where the file has '_'.
    pub name: Label,
    /// Variables that are set for it alone.
    pub env: Vec<(String, Word)>,
    /// The program's name.
    pub program: String,
    /// What the program is given.
    pub args: Vec<Word>,
}

/// A word, with what is to be filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(String),
}

/// Why a `Procfile` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProcfileError {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than what is read.
    #[error("{} is larger than {MOST_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line of it cannot be used.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong, and what to do instead.
        message: String,
    },
    /// A process runs what is no program of the source.
    #[error(
        "the process {process} in {} runs {program:?}, which is no program of this source{}: in its image there is \
         nothing else to run", path.display(), Choice(names)
    )]
    NoSuchProgram {
        /// The file.
        path: PathBuf,
        /// The process.
        process: Label,
        /// What it runs.
        program: String,
        /// The programs there are, sorted.
        names: Vec<String>,
    },
    /// It has no process.
    #[error("{} names no process: write `web: PROGRAM` into it, or remove it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Process {
    /// Whether it answers requests.
    pub fn is_web(&self) -> bool {
        self.name.as_str() == WEB
    }
}

impl Word {
    /// The word with its variables replaced by what `value` has.
    ///
    /// # Errors
    /// The name of a variable that has no value.
    pub fn expand<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> Result<String, String> {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => Ok(text.as_str()),
            Piece::Variable(name) => value(name).ok_or_else(|| name.clone()),
        });
        pieces.collect()
    }

    /// What it is where it has no variables.
    fn plain(&self) -> Option<String> {
        self.expand(|_| None).ok()
    }
}

/// Reads the `Procfile` in `directory`: `web` first, then by name. `None` where there is none.
///
/// # Errors
/// [`ProcfileError`].
pub fn read(directory: &Path) -> Result<Option<Vec<Process>>, ProcfileError> {
    let path = directory.join(FILE_NAME);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > MOST_BYTES => Err(ProcfileError::TooLarge { path }),
        Ok(_) => parse(&path, &String::from_utf8_lossy(&bytes)).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ProcfileError::Read { path, source }),
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Process>, ProcfileError> {
    let mut processes: Vec<Process> = Vec::new();
    let mut names = BTreeSet::new();
    for (at, line) in text.lines().enumerate() {
        let failed = |message| ProcfileError::Line { path: path.into(), line: at + 1, message };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let process = process(line).map_err(failed)?;
        if !names.insert(process.name.clone()) {
            return Err(failed(format!("a process {} is there already", process.name)));
        }
        if processes.len() == MOST_PROCESSES {
            return Err(failed(format!("there are more than {MOST_PROCESSES} processes")));
        }
        processes.push(process);
    }
    if processes.is_empty() {
        return Err(ProcfileError::Empty { path: path.into() });
    }
    processes.sort_by(|a, b| (!a.is_web(), &a.name).cmp(&(!b.is_web(), &b.name)));
    Ok(processes)
}

fn process(line: &str) -> Result<Process, String> {
    let (name, command) = line.split_once(':').ok_or("a line is `NAME: COMMAND`, such as `web: ./server`")?;
    let name = name.trim_end();
    if name == RELEASE {
        return Err(
            "a `release` process, run once before the others, is not supported: let the app prepare itself when \
                    it starts, or run it by hand with `sampan run`"
                .into(),
        );
    }
    let label =
        Label::parse(&name.replace('_', "-")).map_err(|error| format!("{name:?} cannot name a process: {error}"))?;
    let mut words = words(command)?.into_iter().peekable();
    // what a shell would need it for happens anyway: nothing stands between the program and its signals
    words.next_if(|word| word.plain().as_deref() == Some("exec"));
    let mut env = Vec::new();
    while let Some(variable) = words.peek().and_then(assignment) {
        env.push(variable);
        words.next();
    }
    let program = words.next().ok_or_else(|| format!("the process {name} has no command"))?;
    let program = program.plain().ok_or("the program cannot be a variable: name it")?;
    let program = match program.rsplit('/').next() {
        Some("") | None => return Err(format!("{program:?} is no program")),
        Some(program) => program.to_owned(),
    };
    Ok(Process { name: label, env, program, args: words.collect() })
}

/// `NAME=VALUE`.
fn assignment(word: &Word) -> Option<(String, Word)> {
    let (Piece::Text(first), rest) = word.0.split_first()? else { return None };
    let (name, value) = first.split_once('=')?;
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let value = (!value.is_empty()).then(|| Piece::Text(value.to_owned()));
    is_name.then(|| (name.to_owned(), Word(value.into_iter().chain(rest.iter().cloned()).collect())))
}

/// Tells words apart (POSIX.1-2024, Shell Command Language, 2.2 "Quoting" and 2.3 "Token Recognition").
fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '#' if word.is_none() => break,
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a ' is not closed".into()),
                    }
                }
                word.quote();
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') if chars.peek().is_some_and(|c| "\"\\$`".contains(*c)) => {
                            word.push(chars.next().unwrap_or('\\'))
                        }
                        Some('$') => variable(word, &mut chars)?,
                        Some('`') => return Err(no_shell("`")),
                        Some(c) => word.push(c),
                        None => return Err("a \" is not closed".into()),
                    }
                }
                word.quote();
            }
            '\\' => word.get_or_insert_default().push(chars.next().ok_or("a \\ is the last character")?),
            '$' => variable(word.get_or_insert_default(), &mut chars)?,
            '&' | '|' | ';' | '<' | '>' | '(' | ')' | '`' => {
                let twice = if chars.peek() == Some(&c) { c.to_string() } else { String::new() };
                return Err(no_shell(&format!("{c}{twice}")));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

impl Word {
    fn push(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => self.0.push(Piece::Text(c.into())),
        }
    }

    /// A word of quotes alone is an empty word, which is one.
    fn quote(&mut self) {
        if self.0.is_empty() {
            self.0.push(Piece::Text(String::new()));
        }
    }
}

/// What follows a `$`.
fn variable(word: &mut Word, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(), String> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let mut name = String::new();
    match chars.peek() {
        Some('(') => return Err(no_shell("$(")),
        Some('{') => {
            chars.next();
            while let Some(c) = chars.next_if(is_name) {
                name.push(c);
            }
            if name.is_empty() || chars.next() != Some('}') {
                return Err("only ${NAME} is known of what a shell does between ${ and }".into());
            }
        }
        Some(c) if is_name(c) && !c.is_ascii_digit() => {
            while let Some(c) = chars.next_if(is_name) {
                name.push(c);
            }
        }
        // as a shell has it: a $ before anything else is a $
        _ => {
            word.push('$');
            return Ok(());
        }
    }
    word.0.push(Piece::Variable(name));
    Ok(())
}

fn no_shell(operator: &str) -> String {
    format!(
        "`{operator}` needs a shell, and there is none in the image: let the program do it, or make each command a \
         process of its own (to mean the character itself, put it in quotes)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<String, String> {
        let processes = parse(Path::new("Procfile"), text).map_err(|error| error.to_string())?;
        let expand = |word: &Word| {
            word.expand(|name| ["80"].get(usize::from(name != "PORT")).copied())
                .unwrap_or_else(|name| format!("?{name}"))
        };
        let one = |process: &Process| {
            let env = process.env.iter().map(|(name, value)| format!("{name}={} ", expand(value))).collect::<String>();
            let args = process.args.iter().map(|word| format!(" [{}]", expand(word))).collect::<String>();
            format!("{}: {env}{}{args}", process.name, process.program)
        };
        Ok(processes.iter().map(one).collect::<Vec<_>>().join("\n"))
    }

    fn check(text: &str, expected: Result<&str, &str>) {
        match (said(text), expected) {
            (Ok(said), Ok(expected)) => assert_eq!(said, expected, "{text}"),
            (Err(said), Err(part)) => assert!(said.contains(part), "{text}\n{said}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn processes() {
        check("web: ./server", Ok("web: server"));
        check(
            "# all\n\nworker : bin/work -q\nweb:target/release/shop --port $PORT\n",
            Ok("web: shop [--port] [80]\nworker: work [-q]"),
        );
        check("mail_out: x", Ok("mail-out: x"));
        check("web: exec A=1 B=$PORT server a=b", Ok("web: A=1 B=80 server [a=b]"));
        check(
            "web: x 'a  b' \"c $PORT\" d\\ e '' \"\" '$PORT' \\$PORT",
            Ok("web: x [a  b] [c 80] [d e] [] [] [$PORT] [$PORT]"),
        );
        check(
            "web: x 0.0.0.0:${PORT}/y --cost=5$ a'b'\"c\" '&&' \"|\" # rest",
            Ok("web: x [0.0.0.0:80/y] [--cost=5$] [abc] [&&] [|]"),
        );
        check("web: x $HOME", Ok("web: x [?HOME]"));
    }

    #[test]
    fn what_cannot_be() {
        check("", Err("names no process"));
        check("web", Err("Procfile:1: a line is `NAME: COMMAND`"));
        check("\nweb:", Err("Procfile:2: the process web has no command"));
        check("web: x\nweb: y", Err("Procfile:2: a process web is there already"));
        check("Web: x", Err("cannot name a process"));
        check("release: ./migrate\nweb: x", Err("`release` process"));
        check("web: 'x", Err("a ' is not closed"));
        check("web: \"x", Err("a \" is not closed"));
        check("web: x \\", Err("a \\ is the last"));
        check("web: $SHELL", Err("cannot be a variable"));
        check("web: bin/", Err("is no program"));
        for (command, operator) in [
            ("a && b", "`&&`"),
            ("a || b", "`||`"),
            ("a | b", "`|`"),
            ("a; b", "`;`"),
            ("a > log", "`>`"),
            ("a >> log", "`>>`"),
            ("a 2>&1", "`>`"),
            ("a < in", "`<`"),
            ("a &", "`&`"),
            ("(a)", "`(`"),
            ("a `b`", "needs a shell"),
            ("a \"$(b)\"", "`$(`"),
        ] {
            check(&format!("web: {command}"), Err(operator));
        }
        check("web: a ${b:-c}", Err("only ${NAME}"));
        let many: String = (0..33).map(|number| format!("p{number}: x\n")).collect();
        check(&many, Err("more than 32 processes"));
    }

    proptest::proptest! {
        /// Whatever is written there: it is understood or refused, and what is in single quotes is what it is.
        #[test]
        fn lines_are_understood_or_refused(text in "([a-z $'\"{}()|;=\\\\]|\\PC){0,40}", quoted in "[^'\r\n\0]{0,20}") {
            let _ = words(&text);
            let word = words(&format!("'{quoted}'")).expect("one word");
            proptest::prop_assert_eq!(word.iter().map(Word::plain).collect::<Vec<_>>(), [Some(quoted)]);
        }
    }
}
