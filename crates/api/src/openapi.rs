//! The native API for programs: an OpenAPI 3.1 page, made from the table that the router is made from.
//!
//! Schemas are derived from the types that are read and written, bodies as they are read and answers as they are
//! written; nothing here is known of any single request but what its path's parameters mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::codes;
use crate::native::endpoint::{Content, Endpoint};
use crate::native::routes;
use sampan_model::view::ErrorBody;
use sampan_model::{Digest, Label};

/// The page's text.
pub(crate) static PAGE: LazyLock<String> = LazyLock::new(|| page(&routes::table()).to_string());

/// Where schemas of more than one use are.
const SCHEMAS: &str = "#/components/schemas/";

fn page(table: &[Endpoint]) -> Value {
    let mut schemas = Schemas::new();
    let error = schemas.written.subschema_for::<ErrorBody>();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for endpoint in table {
        let operation = schemas.operation(endpoint, error.as_value());
        paths.entry(path_of(endpoint)).or_default().insert(endpoint.method.to_owned(), operation);
    }
    let mut page = json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Sampan",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The native API: HTTP/1.1 on the socket `run/sampan.sock` of Sampan's root. Times are RFC 3339, \
                sizes in bytes, durations in milliseconds (`_ms`). A segment's `/` is written `%2F`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://sampan", "description": "the socket; the host's name does not matter" }],
        "paths": paths,
    });
    schemas.finish(&mut page);
    page
}

/// The path as the page has it: to a reader `{*name}` is one parameter like any other.
fn path_of(endpoint: &Endpoint) -> String {
    endpoint.path.replace("{*", "{")
}

/// The schemas as they are collected: a type may be read otherwise than it is written (fields with a default).
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let generator = |contract: Contract| {
            let mut settings = SchemaSettings::draft2020_12();
            settings.meta_schema = None;
            settings.definitions_path = "/components/schemas".into();
            settings.contract = contract;
            settings.into_generator()
        };
        Self { read: generator(Contract::Deserialize), written: generator(Contract::Serialize) }
    }

    fn operation(&mut self, endpoint: &Endpoint, error: &Value) -> Value {
        let mut responses = refusals(endpoint, error);
        for answer in std::iter::once(&endpoint.answer).chain(&endpoint.other_answer) {
            let mut success = json!({ "description": answer.meaning });
            if let Some(content) = &answer.content {
                success["content"] = content_of(&mut self.written, content);
            }
            responses.insert(answer.status.to_string(), success);
        }

        let mut parameters = self.path_parameters(endpoint);
        parameters.extend(self.query_parameters(endpoint));
        let mut operation = json!({
            "operationId": operation_id(endpoint),
            "summary": endpoint.summary,
            "parameters": parameters,
            "responses": responses,
        });
        if let Some(content) = &endpoint.body {
            operation["requestBody"] = json!({ "required": true, "content": content_of(&mut self.read, content) });
        }
        operation
    }

    fn path_parameters(&mut self, endpoint: &Endpoint) -> Vec<Value> {
        let names = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters = names.map(|name| {
            let (name, after) = (name.trim_start_matches('*'), endpoint.path.split("/{").next().unwrap_or_default());
            let (description, schema) = match (after, name) {
                (_, "digest") => ("`sha256:` and 64 hex digits", self.read_schema::<Digest>()),
                (_, "version") => ("a number from 1", json!({ "type": "integer", "minimum": 1 })),
                ("/v1/containers", "id") => ("a name, an id, or the beginning of an id", json!({ "type": "string" })),
                ("/v1/images", "name") => ("a name, with or without a tag", json!({ "type": "string" })),
                ("/v1/inspect", "name") => ("a name, an id, or the beginning of an id", json!({ "type": "string" })),
                (_, "name") => ("a name", self.read_schema::<Label>()),
                _ => ("", json!({ "type": "string" })),
            };
            json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
        });
        parameters.collect()
    }

    fn read_schema<T: JsonSchema>(&mut self) -> Value {
        self.read.subschema_for::<T>().to_value()
    }

    /// The fields of the query's type, one by one.
    fn query_parameters(&mut self, endpoint: &Endpoint) -> Vec<Value> {
        let Some(query) = endpoint.query else { return Vec::new() };
        let reference = query(&mut self.read).to_value();
        let name = reference["$ref"].as_str().and_then(|path| path.strip_prefix(SCHEMAS)).unwrap_or_default();
        // its fields are the parameters: as a whole it is nowhere
        let Some(whole) = self.read.definitions_mut().remove(name) else { return Vec::new() };
        let required = whole["required"].as_array().cloned().unwrap_or_default();
        let fields = whole["properties"].as_object().cloned().unwrap_or_default();
        let parameters = fields.into_iter().map(|(name, mut schema)| {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let is_required = required.iter().any(|required| *required == name);
            json!({ "name": name, "in": "query", "required": is_required, "description": description.unwrap_or_default(), "schema": schema })
        });
        parameters.collect()
    }

    /// Puts the schemas into the page. A type that is read otherwise than it is written has two, the read one's name
    /// with `.asked` behind it; so has a type that holds such a one.
    fn finish(mut self, page: &mut Value) {
        let read = self.read.take_definitions(true);
        let mut schemas = self.written.take_definitions(true);
        let mut twofold: BTreeSet<String> = read
            .iter()
            .filter(|(name, schema)| schemas.get(*name) != Some(schema))
            .map(|(name, _)| name.clone())
            .collect();
        loop {
            let holds = |schema: &Value| twofold.iter().any(|name| refers_to(schema, name));
            let more: Vec<String> = read
                .iter()
                .filter(|(name, schema)| !twofold.contains(*name) && holds(schema))
                .map(|(name, _)| name.clone())
                .collect();
            if more.is_empty() {
                break;
            }
            twofold.extend(more);
        }
        twofold.retain(|name| schemas.contains_key(name));
        for (name, mut schema) in read {
            refer_to_asked(&mut schema, &twofold);
            let name = if twofold.contains(&name) { asked(&name) } else { name };
            schemas.insert(name, schema);
        }
        let paths = page["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
        for operation in paths.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
            for part in ["requestBody", "parameters"] {
                if let Some(part) = operation.get_mut(part) {
                    refer_to_asked(part, &twofold);
                }
            }
        }
        if let Some(code) = schemas.get_mut("ErrorView").and_then(|error| error.pointer_mut("/properties/code")) {
            code["enum"] = codes::CODES.iter().map(|code| code.word).collect();
        }
        page["components"] = json!({ "schemas": schemas });
    }
}

fn asked(name: &str) -> String {
    format!("{name}.asked")
}

/// Whether a schema refers to this one by itself.
fn refers_to(schema: &Value, name: &str) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(key, value)| match value {
            Value::String(path) if key == "$ref" => path.strip_prefix(SCHEMAS) == Some(name),
            other => refers_to(other, name),
        }),
        Value::Array(values) => values.iter().any(|value| refers_to(value, name)),
        _ => false,
    }
}

/// Turns references to a type as it is written into those to it as it is read.
fn refer_to_asked(value: &mut Value, twofold: &BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(path) if key == "$ref" => {
                        if path.strip_prefix(SCHEMAS).is_some_and(|name| twofold.contains(name)) {
                            *path = asked(path);
                        }
                    }
                    other => refer_to_asked(other, twofold),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| refer_to_asked(value, twofold)),
        _ => {}
    }
}

fn content_of(generator: &mut SchemaGenerator, content: &Content) -> Value {
    let media = match content.schema {
        Some(schema) => json!({ "schema": schema(generator) }),
        // OpenAPI 3.1: bytes as they are have no schema
        None => json!({}),
    };
    json!({ content.media_type: media })
}

/// The errors by their status, each with the codes that it may have.
fn refusals(endpoint: &Endpoint, error: &Value) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for code in codes::ANY.iter().chain(endpoint.refusals).filter_map(|word| codes::of(word)) {
        by_status.entry(code.status).or_default().push(format!("`{}`: {}", code.word, code.meaning));
    }
    let responses = by_status.into_iter().map(|(status, codes)| {
        let response =
            json!({ "description": codes.join("; "), "content": { "application/json": { "schema": error } } });
        (status.to_string(), response)
    });
    responses.collect()
}

/// A name for generated code: `getContainersIdLogs`.
fn operation_id(endpoint: &Endpoint) -> String {
    let words =
        endpoint.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty() && *word != "v1");
    words.fold(endpoint.method.to_owned(), |id, word| id + &word[..1].to_ascii_uppercase() + &word[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Value {
        serde_json::from_str(&PAGE).expect("JSON")
    }

    #[test]
    fn the_page_names_every_request() {
        let page = written();
        let operations = page["paths"].as_object().expect("paths").values();
        let count: usize = operations.map(|path| path.as_object().expect("a path").len()).sum();
        let table = routes::table();
        assert_eq!(count, table.len(), "as many operations as requests");
        let mut ids = BTreeSet::new();
        for endpoint in &table {
            let operation = &page["paths"][path_of(endpoint)][endpoint.method];
            assert!(operation["summary"].is_string(), "{} {}", endpoint.method, endpoint.path);
            assert!(ids.insert(operation_id(endpoint)), "{} is the id of two", operation_id(endpoint));
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_referred_to() {
        let page = written();
        let mut referred = BTreeSet::new();
        references(&page, &mut referred);
        let schemas = page["components"]["schemas"].as_object().expect("schemas");
        let there: BTreeSet<String> = schemas.keys().map(|name| format!("{SCHEMAS}{name}")).collect();
        assert_eq!(referred, there);
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::String(path) if key == "$ref" => drop(found.insert(path.clone())),
                        other => references(other, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn what_is_read_otherwise_than_written_is_told_apart() {
        let page = written();
        let body = &page["paths"]["/v1/services/{name}"]["put"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["$ref"], "#/components/schemas/ServiceSpec");
        let schemas = &page["components"]["schemas"];
        let size = &schemas["ServiceSpec"]["properties"]["size"];
        assert!(size.to_string().contains("ServerSize.asked"), "{size}");
        assert_eq!(schemas["ServerSize.asked"]["required"], Value::Null, "each field has a default");
        assert!(schemas["ServerSize"]["required"].is_array());
    }

    #[test]
    fn queries_are_parameters() {
        let page = written();
        let parameters = page["paths"]["/v1/containers/{id}/stop"]["post"]["parameters"].as_array().expect("some");
        let names: Vec<_> = parameters.iter().map(|parameter| (&parameter["name"], &parameter["in"])).collect();
        assert_eq!(names, [(&json!("id"), &json!("path")), (&json!("timeout_ms"), &json!("query"))]);
        assert!(parameters[1]["description"].as_str().is_some_and(|text| text.starts_with("How long")));
    }

    #[test]
    fn every_code_is_explained() {
        for endpoint in routes::table() {
            for word in codes::ANY.iter().chain(endpoint.refusals) {
                assert!(codes::of(word).is_some(), "{word} of {} is not in codes.rs", endpoint.path);
            }
        }
    }
}
