//! The schema for editors agrees with the checker.

use crate::rules::{Rules, presets, schema};
use serde_json::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.schema.json");

fn validator() -> jsonschema::Validator {
    jsonschema::draft7::new(&schema()).unwrap()
}

/// YAML as editors hand it to a schema.
fn json(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

/// The examples of the reference that are whole files.
fn examples() -> Vec<String> {
    let reference = include_str!("../../../rules/README.md");
    let blocks = reference.split("```yaml\n").skip(1);
    let texts = blocks.filter_map(|block| block.split("```").next());
    texts.map(str::to_owned).collect()
}

/// To write the file anew: `UPDATE_SCHEMA=1 cargo test --lib schema`.
#[test]
fn the_file_is_current() {
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(FILE).unwrap().replace("\r\n", "\n") == text,
        "{FILE} is not what the code makes: UPDATE_SCHEMA=1 cargo test --lib schema"
    );
}

#[test]
fn presets_and_examples_follow_it() {
    let validator = validator();
    let line = "# yaml-language-server: $schema=../docs/rules.schema.json\n";
    for preset in presets() {
        assert!(preset.text.starts_with(line), "{}", preset.name);
        let faults: Vec<_> = validator
            .iter_errors(&json(preset.text))
            .map(|fault| fault.to_string())
            .collect();
        assert!(faults.is_empty(), "{}: {faults:?}", preset.name);
    }
    assert!(examples().len() >= 3);
    for example in examples() {
        let faults: Vec<_> = validator
            .iter_errors(&json(&example))
            .map(|fault| fault.to_string())
            .collect();
        assert!(faults.is_empty(), "{example}: {faults:?}");
        Rules::parse("rules/README.md", &example).unwrap();
    }
}

#[test]
fn what_the_checker_refuses_by_form_it_refuses() {
    let validator = validator();
    let rule = |rest: &str| format!("version: 1\nrules: [{{ name: r, {rest} }}]");
    for good in [
        "match: { kind: mlp, blocks: [0, -1, 2..4, ..-2], cache: \"<= 8MiB\", share: [\"> 0.1\", \"< 1\"] }, broadcast: never",
        "match: { kind: [mlp, full] }, broadcast: { windows: [{ range: 2, window: { steps: [8, 42] } }] }",
        "match: { kind: mlp }, forecast: { order: 2, steps: [9, 11, 13..20, \"30..=31\"] }",
        "match: { kind: mlp }, broadcast: { after: 864, skip: 2 }",
        "residual: { range: 2, window: whole }",
        "residual: { order: 2, range: 2 }",
        "match: { blocks: 1..-1 }, residual: { range: 2 }",
        "guidance: { range: 2, window: { fraction: [0.4, 1] } }",
        "residual: { range: 9, adaptive: { threshold: 0.1 } }",
        "residual: { order: 1, range: { timesteps: 50 }, window: { fraction: [0.1, 0.9] } }",
        "match: { kind: mlp }, broadcast: { windows: [{ range: { timesteps: 62.5 }, window: { steps: [8, 42] } }] }",
        "guidance: { range: { timesteps: 60 } }",
        "match: { kind: mlp }, broadcast: { steps: [1..9], adaptive: { threshold: 0, rescale: [1.5, -2, 0.1] } }",
    ] {
        let text = rule(good);
        Rules::parse("rules.yaml", &text).unwrap();
        let faults: Vec<_> = validator
            .iter_errors(&json(&text))
            .map(|fault| fault.to_string())
            .collect();
        assert!(faults.is_empty(), "{good}: {faults:?}");
    }
    for bad in [
        "broadcast: never",
        "match: { kind: mlp }",
        "match: { kind: mlp }, broadcast: never, forecast: { range: 2 }",
        "match: { kind: nlp }, broadcast: never",
        "match: { kind: [] }, broadcast: never",
        "match: { kind: mlp, blocks: 1...2 }, broadcast: never",
        "match: { kind: mlp, cache: 8MiB }, broadcast: never",
        "match: { kind: mlp, share: \"> 2\" }, broadcast: never",
        "match: { kind: mlp }, broadcast: { range: 1 }",
        "match: { kind: mlp }, broadcast: { window: whole }",
        "match: { kind: mlp }, broadcast: { range: { timesteps: 0 } }",
        "match: { kind: mlp }, broadcast: { range: { timesteps: [100, 800] } }",
        "match: { kind: mlp }, broadcast: { range: { steps: 2 } }",
        "match: { kind: mlp }, broadcast: { range: {} }",
        "match: { kind: mlp }, broadcast: { range: 2, steps: [3] }",
        "match: { kind: mlp }, broadcast: { after: [864] }",
        "match: { kind: mlp }, broadcast: { after: [864], skip: 0 }",
        "match: { kind: mlp }, broadcast: { steps: [0] }",
        "match: { kind: mlp }, broadcast: { range: 2, window: { timesteps: [1, 2], steps: [1, 2] } }",
        "match: { kind: mlp }, forecast: { order: 3, range: 2 }",
        "match: { kind: mlp }, broadcast: { order: 1, range: 2 }",
        "match: { kind: mlp }, broadcast: { adaptive: { threshold: 0.1 } }",
        "match: { kind: mlp }, broadcast: { range: 2, adaptive: { rescale: [1] } }",
        "match: { kind: mlp }, broadcast: { range: 2, adaptive: { threshold: -1 } }",
        "match: { kind: mlp }, broadcast: { range: 2, adaptive: 0.1 }",
        "match: { kind: mlp }, forecast: { range: 2, adaptive: { threshold: 0.1 } }",
        "residual: { order: 1, range: 2, adaptive: { threshold: 0.1 } }",
        "guidance: { range: 2, adaptive: { threshold: 0.1 } }",
    ] {
        let text = rule(bad);
        assert!(Rules::parse("rules.yaml", &text).is_err(), "{bad}");
        assert!(!validator.is_valid(&json(&text)), "{bad}");
    }
}
