//! A mistake in a file, shown where it is, with what was probably meant.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

/// A mistake in a file, shown as compilers show theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line's text.
    pub text: String,
    /// How many characters of it are wrong, at least 1.
    pub width: usize,
    /// What is wrong with them.
    pub message: String,
    /// The field that was probably meant.
    pub suggestion: Option<String>,
}

impl Mistake {
    /// A mistake in what a key has, which is found by the keys that lead there.
    pub(super) fn at(path: &Path, text: &str, keys: &[&str], message: &str) -> Self {
        Self::new(path, text, find(text, keys).unwrap_or(0..0), message)
    }

    pub(super) fn new(path: &Path, text: &str, span: Range<usize>, message: &str) -> Self {
        // spans are of bytes and may point past the end; a column is in characters
        let floor = |at: usize| (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let (start, end) = (floor(span.start), floor(span.end));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        Self {
            path: path.into(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end().into(),
            width: text[start..end.clamp(start, line_end)].chars().count().max(1),
            message: message.trim_end().replace('\n', ": "),
            suggestion: suggest(message),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, text, width, message, .. } = self;
        writeln!(f, "{}:{line}:{column}: {message}", self.path.display())?;
        let margin = line.to_string().len();
        // a tab stays a tab, so that the caret stands below its character whatever a tab's width is
        let before: String = text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{:margin$} |\n{line} | {text}", "")?;
        write!(f, "{:margin$} | {before}{}", "", "^".repeat(*width))?;
        match &self.suggestion {
            Some(field) => write!(f, " did you mean `{field}`?"),
            None => Ok(()),
        }
    }
}

/// The known name nearest to an unknown one, out of serde's words: "unknown field `x`, expected one of `a`, `b`".
fn suggest(message: &str) -> Option<String> {
    let names: Vec<&str> = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2).collect();
    let (unknown, known) = names.split_first()?;
    let (distance, best) = known.iter().map(|name| (edit_distance(unknown, name), name)).min()?;
    (distance <= 1 + unknown.chars().count() / 3).then(|| (*best).into())
}

/// How many letters to insert, remove or replace (Levenshtein) until `a` is `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Where the last of these keys is.
fn find(text: &str, keys: &[&str]) -> Option<Range<usize>> {
    let (last, above) = keys.split_last()?;
    let document = DeTable::parse(text).ok()?;
    let mut table: &DeTable<'_> = document.get_ref();
    for key in above {
        table = match table.get(*key)?.get_ref() {
            DeValue::Table(table) => table,
            _ => return None,
        };
    }
    table.iter().find(|(key, _)| key.get_ref() == last).map(|(key, _)| key.span())
}
