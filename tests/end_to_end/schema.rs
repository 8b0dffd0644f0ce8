//! The part of JSON Schema (draft 2020-12) that the schemas in `docs/` use.
//!
//! A keyword that is not checked here is an error, so that no schema can say more than is tested.

use serde_json::Value;

/// What is wrong with `value`, each with its place; empty where it follows `schema`.
pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(schema, schema, value, "$", &mut faults);
    faults
}

fn check(root: &Value, schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
    for (keyword, wanted) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(pointer).unwrap(), value, place, faults);
            }
            "type" => {
                let one = std::slice::from_ref(wanted);
                let types = wanted.as_array().map_or(one, Vec::as_slice);
                if !types.iter().any(|wanted| is(value, wanted.as_str().unwrap())) {
                    faults.push(format!("{place}: {value} is no {wanted}"));
                }
            }
            "enum" if !wanted.as_array().unwrap().contains(value) => {
                faults.push(format!("{place}: {value} is none of {wanted}"));
            }
            "enum" => {}
            "minimum" => {
                if value.as_f64().is_some_and(|number| number < wanted.as_f64().unwrap()) {
                    faults.push(format!("{place}: {value} is below {wanted}"));
                }
            }
            "anyOf" => {
                let fits = |schema: &Value| {
                    let mut faults = Vec::new();
                    check(root, schema, value, place, &mut faults);
                    faults.is_empty()
                };
                if !wanted.as_array().unwrap().iter().any(fits) {
                    faults.push(format!("{place}: {value} is nothing of {wanted}"));
                }
            }
            "required" => {
                for key in wanted.as_array().unwrap() {
                    if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                        faults.push(format!("{place}: there is no {key}"));
                    }
                }
            }
            "properties" => {
                for (key, schema) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(key) {
                        check(root, schema, value, &format!("{place}.{key}"), faults);
                    }
                }
            }
            "additionalProperties" => {
                assert_eq!(*wanted, Value::Bool(false));
                for key in value.as_object().into_iter().flat_map(|object| object.keys()) {
                    if schema["properties"].get(key).is_none() {
                        faults.push(format!("{place}: `{key}` is not in the schema"));
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wanted, item, &format!("{place}[{index}]"), faults);
                }
            }
            other => panic!("the schema has the keyword `{other}`, which is not checked"),
        }
    }
}

fn is(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the schema has the type `{other}`"),
    }
}

#[test]
fn faults_are_found() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "$ref": "#/$defs/n" }, "b": { "type": ["array", "null"], "items": { "enum": ["x"] } } },
        "$defs": { "n": { "anyOf": [{ "type": "null" }, { "type": "integer", "minimum": 1 }] } }
    });
    let wrong = |value: Value| faults(&schema, &value).len();
    assert_eq!(wrong(serde_json::json!({ "a": 1, "b": ["x"] })), 0);
    assert_eq!(wrong(serde_json::json!({ "a": null, "b": null })), 0);
    for value in [
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!({ "a": 0 }),
        serde_json::json!({ "a": "1" }),
        serde_json::json!({ "a": 1, "c": 2 }),
        serde_json::json!({ "a": 1, "b": ["y"] }),
        serde_json::json!({ "a": 1, "b": "x" }),
    ] {
        assert_eq!(faults(&schema, &value).len(), 1, "{value}");
    }
}
