//! The little language of `--format`: a text with words in it, `{{.Names}}\t{{.Status}}`.
//!
//! | in the text | what becomes of it |
//! |---|---|
//! | `{{.Word}}` | the word's value |
//! | `{{.Label "NAME"}}` | a word that takes a name |
//! | `{{json .}}` | the whole object, in one line |
//! | `\t`, `\n` | a tab, a new line |
//! | `table ` at the start | words become columns under their names |
//!
//! It is what scripts use of Docker's templates. Deliberately absent: Go's conditions, loops and functions; who needs
//! them has `--json` and jq.

/// A format, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Columns under names, rather than a line an object.
    pub table: bool,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Word { word: String, argument: Option<String> },
    Json,
}

impl Format {
    /// Reads a format whose words are these.
    pub fn parse(text: &str, words: &[&str]) -> Result<Self, String> {
        let (table, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text),
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, behind) = after.split_once("}}").ok_or("a {{ is not closed")?;
            pieces.extend(literal(before));
            pieces.push(Piece::parse(inside.trim(), words)?);
            rest = behind;
        }
        pieces.extend(literal(rest));
        Ok(Self { table, pieces })
    }

    /// The text for one object, from its words' values and itself in JSON.
    pub fn render(&self, value: impl Fn(&str, Option<&str>) -> String, json: impl Fn() -> String) -> String {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Word { word, argument } => value(word, argument.as_deref()),
            Piece::Json => json(),
        });
        pieces.collect()
    }

    /// The words' names, where their values are.
    pub fn header(&self) -> String {
        self.render(
            |word, argument| match argument {
                Some(name) => name.to_owned(),
                None => spaced(word),
            },
            || "JSON".into(),
        )
    }
}

impl Piece {
    fn parse(inside: &str, words: &[&str]) -> Result<Self, String> {
        if inside == "json ." {
            return Ok(Self::Json);
        }
        let unknown = || format!("{{{{{inside}}}}} is not known: use {}", words.join(", "));
        let word = inside.strip_prefix('.').ok_or_else(unknown)?;
        let (word, argument) = match word.split_once(char::is_whitespace) {
            None => (word, None),
            Some((word, argument)) => {
                let quoted = argument.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                (word, Some(quoted.ok_or_else(|| format!("put {argument} in quotes: {{{{.{word} \"{argument}\"}}}}"))?))
            }
        };
        if words.contains(&word) && (word == "Label") == argument.is_some() {
            return Ok(Self::Word { word: word.to_owned(), argument: argument.map(str::to_owned) });
        }
        Err(unknown())
    }
}

fn literal(text: &str) -> Option<Piece> {
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    (!text.is_empty()).then_some(Piece::Text(text))
}

/// `RunningFor` → `RUNNING FOR`.
fn spaced(word: &str) -> String {
    let mut text = String::new();
    let mut was_lower = false;
    for c in word.chars() {
        if c.is_uppercase() && was_lower {
            text.push(' ');
        }
        was_lower = c.is_lowercase();
        text.extend(c.to_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 3] = ["Names", "RunningFor", "Label"];

    #[test]
    fn formats() {
        for (format, header, line) in [
            ("{{.Names}}", "NAMES", "<Names>"),
            ("{{ .Names }}\\t{{.RunningFor}}", "NAMES\tRUNNING FOR", "<Names>\t<RunningFor>"),
            ("a {{.Label \"app.tier\"}} b", "a app.tier b", "a <Label app.tier> b"),
            ("{{json .}}", "JSON", "{}"),
            ("none", "none", "none"),
        ] {
            let format = Format::parse(format, &WORDS).unwrap();
            let value = |word: &str, argument: Option<&str>| match argument {
                None => format!("<{word}>"),
                Some(argument) => format!("<{word} {argument}>"),
            };
            assert_eq!((format.header().as_str(), format.render(value, || "{}".into()).as_str()), (header, line));
        }
        assert!(Format::parse("table {{.Names}}", &WORDS).unwrap().table);
    }

    #[test]
    fn what_is_no_format() {
        for (format, says) in [
            ("{{.Names", "not closed"),
            ("{{.Colour}}", "use Names, RunningFor, Label"),
            ("{{Names}}", "is not known"),
            ("{{.Label}}", "is not known"),
            ("{{.Label app}}", "in quotes"),
            ("{{.Names \"x\"}}", "is not known"),
            ("{{if .Names}}x{{end}}", "is not known"),
        ] {
            let error = Format::parse(format, &WORDS).unwrap_err();
            assert!(error.contains(says), "{format}: {error}");
        }
    }
}
