//! What a course is, and what is told to somebody who sent something else: every wrong field at once, by its name.

use jiff::civil::Date;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::price::{Currency, Price};
use crate::problem::Mistake;

/// The longest name, in characters.
const LONGEST_NAME: usize = 120;
/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 4000;
/// Years that courses are held in.
const YEARS: std::ops::RangeInclusive<i16> = 2000..=2100;
/// The fields that a course is made with.
const FIELDS: [&str; 5] = ["name", "description", "price", "start", "end"];

/// What somebody says of a course; the rest is the database's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Draft {
    /// Its name, a line.
    pub name: String,
    /// What it is about, in plain text.
    pub description: String,
    /// What it costs.
    pub price: Price,
    /// Its first day.
    pub start: Date,
    /// Its last day, which may be the first.
    pub end: Date,
}

/// A course.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Course {
    /// Its number.
    pub id: i64,
    /// What was said of it.
    #[serde(flatten)]
    pub draft: Draft,
    /// Counts its changes, from 1: what [`Course::etag`] is made of.
    #[serde(skip)]
    pub version: i64,
}

impl Course {
    /// Tells this state of this course from every other (RFC 9110 §8.8.3).
    pub fn etag(&self) -> String {
        format!("\"{}.{}\"", self.id, self.version)
    }
}

impl Draft {
    /// The draft that the JSON says. `id`: the course that it is of, whose number may be among the fields, so that
    /// what was read can be sent back.
    ///
    /// # Errors
    /// Every mistake that is in it.
    pub fn read(value: &Value, id: Option<i64>) -> Result<Self, Vec<Mistake>> {
        let Value::Object(fields) = value else {
            return Err(vec![Mistake::field("", format!("use an object with the fields {}", FIELDS.join(", ")))]);
        };
        let mut reader = Reader { fields, mistakes: Vec::new() };
        reader.strangers(id);
        let name = reader.text("name", LONGEST_NAME, Lines::One);
        let description = reader.text("description", LONGEST_DESCRIPTION, Lines::Many);
        let price = reader.price();
        let start = reader.date("start");
        let end = reader.date("end");
        if let (Some(start), Some(end)) = (start, end)
            && end < start
        {
            reader.wrong("/end", format!("it is before the start, {start}: use that day or a later one"));
        }
        match (name, description, price, start, end) {
            (Some(name), Some(description), Some(price), Some(start), Some(end)) if reader.mistakes.is_empty() => {
                Ok(Self { name, description, price, start, end })
            }
            _ => Err(reader.mistakes),
        }
    }

    /// This draft with a JSON merge patch (RFC 7396) applied: what the patch does not name stays.
    ///
    /// # Errors
    /// Every mistake of the outcome.
    pub fn patched(&self, patch: &Value, id: i64) -> Result<Self, Vec<Mistake>> {
        let mut value = serde_json::to_value(self).expect("a draft has only text keys");
        merge(&mut value, patch);
        Self::read(&value, Some(id))
    }
}

/// RFC 7396 §2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(fields.remove(name)),
            value => merge(fields.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}

/// Whether a text may have several lines.
#[derive(PartialEq)]
enum Lines {
    One,
    Many,
}

/// Reads field by field and goes on past mistakes.
struct Reader<'a> {
    fields: &'a Map<String, Value>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn wrong(&mut self, pointer: &str, detail: impl Into<String>) {
        self.mistakes.push(Mistake::field(pointer, detail));
    }

    /// Fields that a course does not have.
    fn strangers(&mut self, id: Option<i64>) {
        for (name, value) in self.fields {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            match id {
                _ if FIELDS.contains(&name.as_str()) => {}
                Some(id) if name == "id" && value.as_i64() == Some(id) => {}
                Some(id) if name == "id" => self.wrong(&pointer, format!("it is {id} and does not change")),
                None if name == "id" => self.wrong(&pointer, "leave it out: a new course is given one"),
                _ => self.wrong(&pointer, format!("a course has no such field, only {}", FIELDS.join(", "))),
            }
        }
    }

    fn text(&mut self, name: &str, longest: usize, lines: Lines) -> Option<String> {
        let pointer = format!("/{name}");
        let text = match self.fields.get(name) {
            Some(Value::String(text)) => text.trim(),
            Some(_) => {
                self.wrong(&pointer, "use text");
                return None;
            }
            None => {
                self.wrong(&pointer, "it is missing");
                return None;
            }
        };
        let length = text.chars().count();
        let is_line_break = |c: char| lines == Lines::Many && (c == '\n' || c == '\r' || c == '\t');
        if text.is_empty() {
            self.wrong(&pointer, "it is empty");
        } else if length > longest {
            self.wrong(&pointer, format!("it has {length} characters: use at most {longest}"));
        } else if text.chars().any(|c| c.is_control() && !is_line_break(c)) {
            self.wrong(&pointer, "it has control characters: leave them out");
        } else {
            return Some(text.to_owned());
        }
        None
    }

    fn price(&mut self) -> Option<Price> {
        const FORM: &str = r#"use {"amount": "49.90", "currency": "EUR"}"#;
        let price = match self.fields.get("price") {
            Some(Value::Object(price)) => price,
            Some(_) => {
                self.wrong("/price", FORM);
                return None;
            }
            None => {
                self.wrong("/price", format!("it is missing: {FORM}"));
                return None;
            }
        };
        for name in price.keys().filter(|name| !["amount", "currency"].contains(&name.as_str())) {
            let pointer = format!("/price/{}", name.replace('~', "~0").replace('/', "~1"));
            self.wrong(&pointer, "a price has no such field, only amount and currency");
        }
        let currency = match price.get("currency") {
            Some(Value::String(code)) => Currency::parse(code),
            _ => None,
        };
        if currency.is_none() {
            let all: Vec<&str> = Currency::all().collect();
            self.wrong("/price/currency", format!("use one of {}", all.join(", ")));
        }
        let amount = match price.get("amount") {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) if number.is_u64() => Some(number.to_string()),
            Some(Value::Number(_)) => {
                self.wrong("/price/amount", "write it as text, \"49.90\": numbers with a point are not exact");
                None
            }
            Some(_) => {
                self.wrong("/price/amount", "use text such as \"49.90\"");
                None
            }
            None => {
                self.wrong("/price/amount", "it is missing: use text such as \"49.90\"");
                None
            }
        };
        let (currency, amount) = (currency?, amount?);
        match currency.amount(&amount) {
            Ok(amount_minor) => Some(Price { amount_minor, currency }),
            Err(detail) => {
                self.wrong("/price/amount", detail);
                None
            }
        }
    }

    fn date(&mut self, name: &str) -> Option<Date> {
        let pointer = format!("/{name}");
        let parsed = match self.fields.get(name) {
            Some(Value::String(text)) => date(text),
            Some(_) => Err(DATE.to_owned()),
            None => Err("it is missing: ".to_owned() + DATE),
        };
        parsed.map_err(|detail| self.wrong(&pointer, detail)).ok()
    }
}

const DATE: &str = "use a day as YYYY-MM-DD, such as 2027-03-01";

/// A day as `YYYY-MM-DD` (RFC 3339 `full-date`).
///
/// # Errors
/// What is wrong with the text, for people.
pub fn date(text: &str) -> Result<Date, String> {
    // the parser takes other ISO 8601 forms too; one day is to have one spelling
    let has_form = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !has_form {
        return Err(DATE.to_owned());
    }
    match text.parse::<Date>() {
        Ok(date) if YEARS.contains(&date.year()) => Ok(date),
        Ok(_) => Err(format!("use a year from {} to {}", YEARS.start(), YEARS.end())),
        Err(_) => Err(format!("there is no such day as {text}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "name": "Rust", "description": "All of it.",
            "price": { "amount": "49.90", "currency": "EUR" },
            "start": "2027-03-01", "end": "2027-04-01",
        })
    }

    /// The mistakes in a good course with one change, as `pointer: detail`.
    fn check(change: Value, expected: &[&str]) {
        let mut value = good();
        merge(&mut value, &change);
        let told: Vec<String> = match Draft::read(&value, None) {
            Ok(_) => Vec::new(),
            Err(mistakes) => {
                mistakes.iter().map(|mistake| format!("{}: {}", mistake.place(), mistake.detail)).collect()
            }
        };
        assert_eq!(told.len(), expected.len(), "{change}: {told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{change}: {told}, not {expected}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        check(json!({}), &[]);
        check(json!({ "end": "2027-03-01" }), &[]);
        check(json!({ "price": { "amount": 49 } }), &[]);
        check(json!({ "name": null, "start": null }), &["#/name: it is missing", "#/start: it is missing"]);
        check(json!({ "name": "  " }), &["#/name: it is empty"]);
        check(json!({ "name": "a\nb" }), &["#/name: it has control"]);
        check(json!({ "description": "a\nb" }), &[]);
        check(json!({ "name": "x".repeat(121) }), &["#/name: it has 121"]);
        check(json!({ "price": { "amount": 49.9 } }), &["#/price/amount: write it as text"]);
        check(json!({ "price": { "currency": "XXX" } }), &["#/price/currency: use one of AUD"]);
        check(json!({ "price": 49 }), &["#/price: use {"]);
        check(json!({ "end": "2027-02-28" }), &["#/end: it is before the start, 2027-03-01"]);
        check(json!({ "start": "2027-02-29" }), &["#/start: there is no such day"]);
        check(json!({ "start": "2027-03-01T10:00:00Z" }), &["#/start: use a day"]);
        check(json!({ "start": "1999-03-01" }), &["#/start: use a year"]);
        check(json!({ "id": 1, "x/y": 1 }), &["#/id: leave it out", "#/x~1y: a course has no such field"]);
    }

    #[test]
    fn patches_change_what_they_name() {
        let draft = Draft::read(&good(), None).expect("a draft");
        let patch = json!({ "id": 7, "price": { "amount": "0" } });
        let patched = draft.patched(&patch, 7).expect("a patched draft");
        assert_eq!(patched, Draft { price: Price { amount_minor: 0, ..draft.price }, ..draft.clone() });
        for (patch, place) in [(json!({ "name": null }), "#/name"), (json!([]), "#"), (json!({ "id": 8 }), "#/id")] {
            let mistakes = draft.patched(&patch, 7).expect_err("a mistake");
            assert_eq!(mistakes[0].place(), place);
        }
    }
}
