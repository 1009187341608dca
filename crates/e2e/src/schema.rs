//! Values compared with their JSON schema (draft 2020-12), as far as the OpenAPI page uses it.
//!
//! A keyword that is not known here fails the test: nothing is passed over. Stricter than the standard in one thing: a
//! field that a schema's `properties` do not name is an error, for a page that leaves fields out is not complete.

use std::fmt::Write as _;

use sampan_model::{ContainerId, ContainerName, Digest, Label};
use serde_json::{Map, Value};

/// What only tells people something.
const WORDS: [&str; 4] = ["title", "description", "default", "examples"];

/// Schemas, and the page that their references lead into.
#[derive(Debug, Clone, Copy)]
pub struct Schemas<'a> {
    /// The page.
    pub page: &'a Value,
}

impl Schemas<'_> {
    /// What is wrong with a value, each with its place; nothing where it is as its schema says.
    pub fn check(&self, value: &Value, schema: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        self.value(value, schema, "", &mut wrong);
        wrong
    }

    fn value(&self, value: &Value, schema: &Value, at: &str, wrong: &mut Vec<String>) {
        let keywords = match schema {
            Value::Bool(true) => return,
            Value::Object(keywords) => keywords,
            other => panic!("{other} at {at:?} is no schema"),
        };
        let mut say = |what: String| wrong.push(format!("{at}: {what}"));
        for (keyword, rule) in keywords {
            match (keyword.as_str(), rule, value) {
                ("type", rule, value) if !has_type(value, rule) => say(format!("{value} is no {rule}")),
                ("const", rule, value) if value != rule => say(format!("{value} is not {rule}")),
                ("enum", Value::Array(choice), value) if !choice.contains(value) => {
                    say(format!("{value} is none of {rule}"));
                }
                ("minimum", rule, value @ Value::Number(_)) if value.as_f64() < rule.as_f64() => {
                    say(format!("{value} is below {rule}"))
                }
                ("maximum", rule, value @ Value::Number(_)) if value.as_f64() > rule.as_f64() => {
                    say(format!("{value} is above {rule}"))
                }
                ("minItems", rule, Value::Array(items)) if (items.len() as u64) < rule.as_u64().unwrap_or(0) => {
                    say(format!("it has {} items, fewer than {rule}", items.len()));
                }
                ("maxItems", rule, Value::Array(items)) if items.len() as u64 > rule.as_u64().unwrap_or(0) => {
                    say(format!("it has {} items, more than {rule}", items.len()));
                }
                ("required", Value::Array(names), Value::Object(fields)) => {
                    let missing = names.iter().filter_map(Value::as_str).filter(|name| !fields.contains_key(*name));
                    missing.for_each(|name| say(format!("{name} is missing")));
                }
                ("pattern", Value::String(pattern), Value::String(text)) if !fits(text, pattern) => {
                    say(format!("{text:?} does not fit {pattern}"));
                }
                ("format", Value::String(format), value) if !has_format(value, format) => {
                    say(format!("{value} is no {format}"));
                }
                _ => {}
            }
        }
        self.parts(value, keywords, at, wrong);
        self.choices(value, keywords, at, wrong);
    }

    /// What is inside the value.
    fn parts(&self, value: &Value, keywords: &Map<String, Value>, at: &str, wrong: &mut Vec<String>) {
        if let (Some(Value::Object(properties)), Value::Object(fields)) = (keywords.get("properties"), value) {
            for (name, value) in fields {
                let at = format!("{at}/{name}");
                match (properties.get(name), keywords.get("additionalProperties")) {
                    (Some(schema), _) => self.value(value, schema, &at, wrong),
                    (None, Some(schema @ Value::Object(_))) => self.value(value, schema, &at, wrong),
                    // the rest of it is told by another schema
                    (None, None) if ["$ref", "oneOf", "anyOf"].iter().any(|key| keywords.contains_key(*key)) => {}
                    (None, _) => wrong.push(format!("{at}: the schema does not name it")),
                }
            }
        } else if let (Some(schema), Value::Object(fields)) = (keywords.get("additionalProperties"), value) {
            for (name, value) in fields {
                self.value(value, schema, &format!("{at}/{name}"), wrong);
            }
        }
        let Value::Array(items) = value else { return };
        let first = keywords.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (number, item) in items.iter().enumerate() {
            if let Some(schema) = first.get(number).or_else(|| keywords.get("items")) {
                self.value(item, schema, &format!("{at}/{number}"), wrong);
            }
        }
    }

    /// What the value must be besides.
    fn choices(&self, value: &Value, keywords: &Map<String, Value>, at: &str, wrong: &mut Vec<String>) {
        for (keyword, rule) in keywords {
            match (keyword.as_str(), rule) {
                ("$ref", Value::String(path)) => {
                    let schema = path.strip_prefix('#').and_then(|pointer| self.page.pointer(pointer));
                    self.value(value, schema.unwrap_or_else(|| panic!("{path} leads nowhere")), at, wrong);
                }
                ("oneOf" | "anyOf", Value::Array(choices)) => {
                    let tried: Vec<Vec<String>> = choices.iter().map(|schema| self.check(value, schema)).collect();
                    let fitting = tried.iter().filter(|wrong| wrong.is_empty()).count();
                    if fitting == 0 || (keyword == "oneOf" && fitting > 1) {
                        let mut text = format!("{at}: {fitting} of {keyword} fit:");
                        for wrong in tried {
                            write!(text, "\n    {}", wrong.join("; ")).expect("a text takes whatever is written");
                        }
                        wrong.push(text);
                    }
                }
                ("allOf", Value::Array(all)) => all.iter().for_each(|schema| self.value(value, schema, at, wrong)),
                (
                    "type"
                    | "const"
                    | "enum"
                    | "minimum"
                    | "maximum"
                    | "minItems"
                    | "maxItems"
                    | "required"
                    | "pattern"
                    | "format"
                    | "properties"
                    | "additionalProperties"
                    | "items"
                    | "prefixItems",
                    _,
                ) => {}
                (word, _) if WORDS.contains(&word) => {}
                (other, rule) => panic!("{other:?}: {rule} at {at:?} is not understood: teach it to schema.rs"),
            }
        }
    }
}

fn has_type(value: &Value, rule: &Value) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        other => panic!("{other:?} is no type"),
    };
    rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is))
}

/// Our patterns are what our types take: that both are the same is what is to be seen.
fn fits(text: &str, pattern: &str) -> bool {
    match pattern {
        "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" => Label::parse(text).is_ok(),
        "^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$" => ContainerName::parse(text).is_ok(),
        "^[0-9a-f]{64}$" => ContainerId::parse(text).is_ok(),
        "^sha256:[0-9a-f]{64}$" => Digest::parse(text).is_ok(),
        other => panic!("the pattern {other} is not understood: teach it to schema.rs"),
    }
}

fn has_format(value: &Value, format: &str) -> bool {
    match (format, value) {
        (_, Value::Null) => true,
        ("uint8" | "uint16" | "uint32" | "uint64" | "uint", value) => value.is_u64(),
        ("int8" | "int16" | "int32" | "int64" | "int", value) => value.is_i64() || value.is_u64(),
        ("double" | "float", value) => value.is_number(),
        // RFC 3339, to the letters that no other format has
        ("date-time", Value::String(text)) => text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z'),
        ("ip", Value::String(text)) => text.parse::<std::net::IpAddr>().is_ok(),
        ("ipv4", Value::String(text)) => text.parse::<std::net::Ipv4Addr>().is_ok(),
        ("ipv6", Value::String(text)) => text.parse::<std::net::Ipv6Addr>().is_ok(),
        (other, value) => panic!("the format {other} of {value} is not understood: teach it to schema.rs"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, value: Value, wrong: usize) {
        let page = json!({ "s": { "type": "integer" } });
        let found = Schemas { page: &page }.check(&value, &schema);
        assert_eq!(found.len(), wrong, "{schema} {value}: {found:?}");
    }

    #[test]
    fn what_fits_and_what_does_not() {
        check(json!({ "type": ["string", "null"] }), json!(null), 0);
        check(json!({ "type": "string" }), json!(1), 1);
        check(json!({ "$ref": "#/s" }), json!("x"), 1);
        check(json!({ "type": "array", "items": { "$ref": "#/s" } }), json!([1, "x", null]), 2);
        let object = json!({ "type": "object", "properties": { "a": true }, "required": ["a", "b"] });
        check(object.clone(), json!({ "a": 1 }), 1);
        check(object, json!({ "a": 1, "b": 2 }), 1);
        check(json!({ "additionalProperties": { "type": "string" } }), json!({ "x": 1, "y": "" }), 1);
        check(json!({ "oneOf": [{ "const": 1 }, { "type": "integer" }] }), json!(1), 1);
        check(json!({ "anyOf": [{ "const": 1 }, { "type": "null" }] }), json!(null), 0);
        check(json!({ "prefixItems": [{ "type": "string" }, { "type": "integer" }] }), json!(["a", "b"]), 1);
        check(json!({ "pattern": "^[0-9a-f]{64}$" }), json!("zz"), 1);
        check(json!({ "format": "date-time" }), json!("2027-01-01T00:00:00Z"), 0);
        check(json!({ "format": "ipv4" }), json!("1.2.3"), 1);
    }
}
