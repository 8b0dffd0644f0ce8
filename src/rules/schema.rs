//! The JSON Schema of the rules language, for editors.
//!
//! It is made from the tables that the checker goes by, and written to `docs/rules.schema.json`. It allows all that the
//! checker allows; what a schema cannot say (windows that overlap, rules that claim the same sites) is left to the
//! checker.

use super::CutPoint;
use super::check::timing::{ADAPTIVE, BROADCAST, FORECAST, GUIDANCE, RANGE, RANGED, RESIDUAL, WINDOW};
use super::check::{ACTIONS, FILE, LONGEST_NAME, MATCH, PARALLEL, RULE, VERSION};
use super::read::Shape;
use crate::attention::Kind;
use crate::axes::Label;
use serde_json::{Map, Value, json};

/// The schema, draft 7, which is what editors know best.
pub fn schema() -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/definitions/{name}") });
    let by_site = ["broadcast", "forecast"];
    let rule = {
        let mut rule = object(&RULE, |key| match key {
            "name" => json!({
                "description": "Unique; part of tensor names",
                "type": "string",
                "pattern": format!("^[a-z0-9_-]{{1,{LONGEST_NAME}}}$"),
            }),
            "description" => text("What the rule is for"),
            "match" => reference("match"),
            "cut" => one_of("Which value is cached", CutPoint::ALL.map(CutPoint::word)),
            "broadcast" => json!({
                "description": "Reuse what was computed last; `never` leaves the sites alone",
                "anyOf": [{ "const": "never" }, reference("broadcast")],
            }),
            other => reference(other),
        });
        let has = |key: &&str| json!({ "required": [key] });
        let others = ACTIONS.iter().filter(|key| !by_site.contains(key));
        let mut forms: Vec<Value> = by_site
            .iter()
            .map(|key| json!({ "required": [key, "match"] }))
            .collect();
        forms.extend(others.map(has));
        extend(&mut rule, json!({ "required": ["name"], "oneOf": forms }));
        rule
    };
    let timings = [&BROADCAST, &FORECAST, &RESIDUAL, &GUIDANCE].into_iter().zip([
        "Reuse what was computed last",
        "Forecast from what was computed last",
        "Add what a span of blocks added when it was computed last; without `match` all blocks but the first and last",
        "Reuse the difference that guidance made when it was computed last",
    ]);
    let mut definitions = Map::new();
    for (shape, description) in timings {
        let mut timing = timing(shape);
        extend(&mut timing, json!({ "description": description }));
        definitions.insert(shape.what.trim_matches('`').to_owned(), timing);
    }
    definitions.insert("match".to_owned(), select());
    definitions.insert("range".to_owned(), range());
    definitions.insert("window".to_owned(), window());
    definitions.insert("rule".to_owned(), rule);
    let mut file = object(&FILE, |key| match key {
        "version" => json!({ "description": "Of the language", "const": VERSION }),
        "description" => text("What the rules are for"),
        "memory" => json!({
            "description": "Ceiling for all caches together, such as 2GiB",
            "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": format!("^ *{BYTES} *$") }],
        }),
        "parallel" => {
            let ranks = |_: &str| json!({ "type": "integer", "minimum": 1, "maximum": 4096 });
            let mut mesh = object(&PARALLEL, ranks);
            extend(
                &mut mesh,
                json!({ "description": "Ranks that the model is split over, along each axis" }),
            );
            mesh
        }
        "inputs" => json!({
            "description": "What the axes of the model's inputs count",
            "type": "object",
            "additionalProperties": {
                "type": "array",
                "minItems": 1,
                "items": { "enum": Label::ALL.map(Label::word) },
            },
        }),
        _ => json!({ "type": "array", "minItems": 1, "items": reference("rule") }),
    });
    extend(
        &mut file,
        json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "Rules of pab-patch",
            "description": "Which modules of a model are broadcast, how often they compute, and when",
            "required": ["version", "rules"],
            "definitions": definitions,
        }),
    );
    file
}

/// A number of bytes.
const BYTES: &str = r"[0-9]+(\.[0-9]+)? *([kMG]?B|[KMG]iB)?";
/// A block, or an end of a range of blocks.
const BLOCK: &str = r"(0|-?[1-9][0-9]*)";

fn select() -> Value {
    let kinds = Kind::ALL.map(Kind::word);
    object(&MATCH, |key| match key {
        "kind" => one_or_more(json!({ "enum": kinds }), "What the site mixes"),
        "blocks" => one_or_more(
            json!({
                "anyOf": [
                    { "type": "integer" },
                    { "type": "string", "pattern": format!(r"^ *({BLOCK}|{BLOCK}? *\.\. *(={BLOCK}|{BLOCK})?) *$") },
                ],
            }),
            "Blocks per kind, counted from 0 or from the last as -1: 3, 0..6, 0..=5, 4.., ..-2",
        ),
        "name" => json!({
            "description": "Pattern of the exporter's whole module name: * is any characters, ? exactly one",
            "type": "string",
            "minLength": 1,
        }),
        "cache" => one_or_more(bound(BYTES), "Bound on the bytes of the cache, such as <= 8MiB"),
        _ => one_or_more(
            bound(r"(0|1|[01]?\.[0-9]+|[01]\.)"),
            "Bound on the share of a step's operations that broadcasting the site saves, such as >= 0.01",
        ),
    })
}

fn bound(number: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^ *(<=|>=|<|>) *{number} *$") })
}

fn window() -> Value {
    let ends = |items: Value, description: &str| json!({ "description": description, "type": "array", "items": items, "minItems": 2, "maxItems": 2 });
    let mut one = object(&WINDOW, |key| match key {
        "timesteps" => ends(json!({ "type": "number" }), "Timesteps between these, both excluded"),
        "fraction" => ends(
            json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            "Between these fractions of the run, both excluded",
        ),
        _ => ends(
            json!({ "type": "integer", "minimum": 0 }),
            "From the first to the last of these steps, both included",
        ),
    });
    extend(&mut one, json!({ "minProperties": 1, "maxProperties": 1 }));
    json!({ "description": "Where broadcasting is allowed", "anyOf": [{ "const": "whole" }, one] })
}

fn range() -> Value {
    let mut timesteps = object(&RANGE, |_| {
        json!({
            "description": "Reuse while the timestep is less than this away from the one at which it was computed last",
            "type": "number", "exclusiveMinimum": 0,
        })
    });
    extend(&mut timesteps, json!({ "required": RANGE.keys }));
    let steps = json!({ "description": "Compute once in so many steps", "type": "integer", "minimum": 2 });
    json!({ "description": "How far to go on what was computed last", "anyOf": [steps, timesteps] })
}

fn timing(shape: &'static Shape) -> Value {
    let range = || json!({ "$ref": "#/definitions/range" });
    let window = || json!({ "$ref": "#/definitions/window" });
    let timestep = json!({ "type": "integer", "minimum": 0 });
    let step = json!({
        "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": r"^ *[0-9]+ *(\.\. *(=? *[0-9]+)?)? *$" },
        ],
    });
    let mut timing = object(shape, |key| match key {
        "order" => json!({ "description": "1 along a line, 2 along a parabola", "enum": [1, 2] }),
        "range" => range(),
        "window" => window(),
        "windows" => {
            let mut ranged = object(&RANGED, |key| if key == "range" { range() } else { window() });
            extend(&mut ranged, json!({ "required": ["range"] }));
            json!({
                "description": "Windows that do not overlap, each with its range",
                "type": "array", "minItems": 1, "items": ranged,
            })
        }
        "steps" => one_or_more(step.clone(), "Exactly these steps broadcast"),
        "after" => one_or_more(timestep.clone(), "Compute at these timesteps"),
        "adaptive" => adaptive(),
        _ => json!({
            "description": "How many steps broadcast after each of these timesteps",
            "type": "integer", "minimum": 1,
        }),
    });
    let forms = [&["range"][..], &["windows"], &["steps"], &["after", "skip"]];
    let forms: Vec<Value> = forms.iter().map(|keys| json!({ "required": keys })).collect();
    let mut dependencies = json!({ "window": ["range"], "skip": ["after"] });
    if shape.keys.contains(&"order") && shape.keys.contains(&"adaptive") {
        extend(
            &mut dependencies,
            json!({ "adaptive": { "not": { "required": ["order"] } } }),
        );
    }
    extend(&mut timing, json!({ "oneOf": forms, "dependencies": dependencies }));
    timing
}

fn adaptive() -> Value {
    let mut adaptive = object(&ADAPTIVE, |key| match key {
        "threshold" => json!({
            "description": "Compute from this drift on; 0 broadcasts nothing",
            "type": "number", "minimum": 0,
        }),
        _ => one_or_more(
            json!({ "type": "number" }),
            "Polynomial of each step's change, the highest power first",
        ),
    });
    extend(
        &mut adaptive,
        json!({
            "description": "Broadcast only while the drift since the last computed step stays below a threshold",
            "required": ["threshold"],
        }),
    );
    adaptive
}

/// A mapping with the keys of a shape and no others.
fn object(shape: &'static Shape, of_key: impl Fn(&str) -> Value) -> Value {
    let properties: Map<String, Value> = shape.keys.iter().map(|key| ((*key).to_owned(), of_key(key))).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn text(description: &str) -> Value {
    json!({ "description": description, "type": "string" })
}

fn one_of<const N: usize>(description: &str, words: [&str; N]) -> Value {
    json!({ "description": description, "enum": words.as_slice() })
}

/// One such value, or a list of them.
fn one_or_more(value: Value, description: &str) -> Value {
    let list = json!({ "type": "array", "minItems": 1, "items": value });
    json!({ "description": description, "anyOf": [value, list] })
}

/// Adds the entries of one mapping to another.
fn extend(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}
