//! What valid rules mean.

mod errors;
mod hostile;
mod schema;
mod single;
mod timings;

use super::*;
use crate::attention::Kind;
use proptest::prelude::*;

/// The example of the language's reference.
const EXAMPLE: &str = "\
version: 1
rules:
  - name: spatial
    match: { kind: spatial }
    broadcast: { range: 2, window: { timesteps: [100, 800] } }
  - name: temporal
    match: { kind: temporal, blocks: 0..6 }
    broadcast: { range: 3, window: { fraction: [0.15, 0.85] } }
  - name: cross
    match: { kind: cross }
    broadcast: { range: 6, window: { timesteps: [100, 800] } }
";

fn reuse(range: u32, window: Window) -> Action {
    Action {
        strategy: crate::rules::Strategy::Reuse,
        timing: Broadcast::new(range, window).unwrap().into(),
        adaptive: None,
    }
}

#[test]
fn the_example() {
    let rules = Rules::parse("rules.yaml", EXAMPLE).unwrap();
    let [spatial, temporal, cross] = rules.rules.as_slice() else {
        panic!("three rules")
    };
    assert_eq!((spatial.name.as_str(), spatial.line, spatial.column), ("spatial", 3, 5));
    assert_eq!(spatial.select.kinds, [Kind::Spatial]);
    assert!(spatial.select.blocks.is_all());
    assert_eq!(temporal.select.blocks.to_string(), "0..6");
    assert_eq!(temporal.action, Some(reuse(3, Window::fraction(0.15, 0.85).unwrap())));
    assert_eq!(cross.action, Some(reuse(6, Window::timesteps(100.0, 800.0).unwrap())));
    assert_eq!(cross.cut, CutPoint::Output);
}

#[test]
fn the_reference_tells_what_there_is() {
    let reference = include_str!("../../../rules/README.md");
    assert!(reference.contains(EXAMPLE));
    for word in Kind::ALL
        .map(Kind::word)
        .into_iter()
        .chain(CutPoint::ALL.map(CutPoint::word))
    {
        assert!(reference.contains(&format!("`{word}`")), "{word}");
    }
    for preset in presets() {
        assert!(
            reference.contains(&format!("`--rules {}`", preset.name)),
            "{}",
            preset.name
        );
    }
}

#[test]
fn every_key() {
    let text = "\
version: 1
description: All that version 1 knows
rules:
  - name: keep-ends
    description: The first and last blocks always compute
    match: { kind: [spatial, temporal], blocks: [0, 11..] }
    broadcast: never
  - name: middle_2
    match:
      kind: spatial
      blocks: 1..=10
      name: '*.attn1'
    cut: gated
    broadcast:
      range: 2
      window: whole
";
    let rules = Rules::parse("rules.yaml", text).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&rules).unwrap(), @r#"
    {
      "file": "rules.yaml",
      "description": "All that version 1 knows",
      "rules": [
        {
          "name": "keep-ends",
          "description": "The first and last blocks always compute",
          "match": {
            "kind": [
              "spatial",
              "temporal"
            ],
            "blocks": [
              "0",
              "11.."
            ]
          },
          "broadcast": "never"
        },
        {
          "name": "middle_2",
          "match": {
            "kind": [
              "spatial"
            ],
            "blocks": [
              "1..11"
            ],
            "name": "*.attn1"
          },
          "cut": "gated",
          "broadcast": {
            "range": 2
          }
        }
      ]
    }
    "#);
}

#[test]
fn anchors_and_json() {
    let text = "\
version: 1
rules:
  - { name: a, match: { kind: spatial }, broadcast: &b { range: 2, window: { timesteps: [100, 800] } } }
  - { name: b, match: { kind: cross }, broadcast: *b }
";
    let rules = Rules::parse("rules.yaml", text).unwrap();
    assert_eq!(rules.rules[0].action, rules.rules[1].action);
    let json = r#"{"version": 1, "rules": [{"name": "a", "match": {"kind": "full"}, "broadcast": {"range": 2}}]}"#;
    assert!(Rules::parse("rules.json", json).is_ok());
    assert!(Rules::parse("rules.yaml", &EXAMPLE.replace('\n', "\r\n")).is_ok());
    assert!(Rules::parse("rules.yaml", &format!("\u{feff}{EXAMPLE}")).is_ok());
}

#[test]
fn names_are_fit_for_tensor_names() {
    let name = |name: &str| Rules::parse("r", &EXAMPLE.replace("name: spatial", &format!("name: {name}")));
    for good in ["a", "a-b_9", "9a"] {
        assert!(name(good).is_ok(), "{good}");
    }
    for bad in ["", "A", "a b", "a.b", "ä", "7", "true", "[]", &"a".repeat(65)] {
        assert!(name(bad).is_err(), "{bad}");
    }
}

#[test]
fn presets_are_what_was_published() {
    let facts = |name| -> Vec<(String, Vec<Kind>, String)> {
        let rules = Rules::preset(name).unwrap().rules;
        rules
            .into_iter()
            .map(|rule| (rule.name, rule.select.kinds, rule.action.unwrap().to_string()))
            .collect()
    };
    let row = |name: &str, kind, broadcast: &str| (name.to_owned(), vec![kind], broadcast.to_owned());
    assert_eq!(
        facts("latte"),
        [
            row("spatial", Kind::Spatial, "range 2, timesteps 100 to 800"),
            row("temporal", Kind::Temporal, "range 3, timesteps 100 to 800"),
            row("cross", Kind::Cross, "range 6, timesteps 100 to 800"),
            row("mlp", Kind::Mlp, "2 steps after timesteps 720, 640, 560, 480, 400"),
        ]
    );
    assert_eq!(
        facts("pab"),
        [
            row("spatial", Kind::Spatial, "range 2, fraction 0.15 to 0.85 of the run"),
            row("temporal", Kind::Temporal, "range 4, fraction 0.15 to 0.85 of the run"),
            row("cross", Kind::Cross, "range 6, fraction 0.15 to 0.85 of the run"),
        ]
    );
}

proptest! {
    /// What a rule serialises to is what YAML reads.
    #[test]
    fn serialised_rules_read_back(
        kinds in proptest::sample::subsequence(Kind::ALL.to_vec(), 1..4),
        start in 0usize..9, width in proptest::option::of(1usize..9), range in 2u32..99, low in -9i32..999,
    ) {
        let rule = Rule {
            name: "a-rule".to_owned(),
            description: None,
            select: Match {
                kinds,
                blocks: Blocks::union([BlockRange {
                    start: BlockEnd::FromFirst(start),
                    end: width.map_or(BlockEnd::FromLast(0), |width| BlockEnd::FromFirst(start + width)),
                }]),
                name: "*.attn?".parse().ok(),
                cache: Some(Limits::new(vec!["<= 3MiB".parse().unwrap()])),
                share: Some(Limits::new(vec![">= 0.25".parse().unwrap(), "< 1".parse().unwrap()])),
            },
            cut: CutPoint::Gated,
            action: Some(reuse(range, Window::timesteps(f64::from(low), 1000.0).unwrap())),
            line: 1,
            column: 26,
        };
        let text = format!(r#"{{"version": 1, "rules": [{}]}}"#, serde_json::to_string(&rule).unwrap());
        prop_assert_eq!(Rules::parse("r", &text).unwrap().rules, vec![rule]);
    }
}

#[test]
fn a_mesh_of_ranks_is_read_and_checked() {
    let with = |mesh: &str| {
        let text = format!(
            "version: 1\nparallel: {mesh}\nrules:\n  - {{ name: a, match: {{ kind: spatial }}, broadcast: {{ range: 2 }} }}\n"
        );
        Rules::parse("rules.yaml", &text)
    };
    let mesh = with("{ guidance: 2, sequence: 4 }").unwrap().parallel.unwrap();
    assert_eq!((mesh.guidance, mesh.sequence, mesh.tensor), (2, 4, 1));
    assert_eq!(mesh.ranks(), Some(8));
    for wrong in [
        "{ sequence: 0 }",
        "{ sequences: 2 }",
        "{ tensor: 5000 }",
        "{ tensor: two }",
        "2",
    ] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}
