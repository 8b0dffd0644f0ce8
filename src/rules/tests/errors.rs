//! What is said against wrong rules.

use super::EXAMPLE;
use crate::rules::{LARGEST, Rules, RulesError};

/// A file with one rule of the given lines.
pub(super) fn one(rule: &str) -> String {
    format!("version: 1\nrules:\n  - name: r\n{rule}")
}

/// What `Rules::parse` says against a text.
pub(super) fn errors(text: &str) -> String {
    Rules::parse("rules.yaml", text).unwrap_err().to_string()
}

#[test]
fn all_errors_of_a_file_at_once() {
    let text = "\
version: 2
rule: []
rules:
  - name: Spatial
    match: { kind: spacial, block: 0..6 }
    broadcast: { rnage: 2, window: [100, 800] }
  - name: cross
    match: { kind: cross, blocks: 6..2 }
    cut: outptu
    broadcast: { range: 2.5, window: { timesteps: [800, 100] } }
  - name: cross
    match: { kind: cross, kind: temporal, name: *attn }
    broadcast: { range: \"6\", window: { fraction: [0.15, 85] } }
";
    insta::assert_snapshot!(errors(text), @r#"
    error: version 2 of the rules is not known; this program reads 1
     --> rules.yaml:1:10
      |
    1 | version: 2
      |          ^
      = help: write `version: 1`, or use a program that reads version 2

    error: unknown key `rule` in a rules file
     --> rules.yaml:2:1
      |
    2 | rule: []
      | ^^^^
      = help: did you mean `rules`? Keys here are version, description, memory, parallel, inputs, rules

    error: `Spatial` is no name for a rule
     --> rules.yaml:4:11
      |
    4 |   - name: Spatial
      |           ^^^^^^^
      = help: names become part of tensor names: 1 to 64 of the characters a-z, 0-9, `_` and `-`

    error: `spacial` is no kind of site
     --> rules.yaml:5:20
      |
    5 |     match: { kind: spacial, block: 0..6 }
      |                    ^^^^^^^
      = help: did you mean `spatial`? Kinds are spatial, temporal, cross, full, joint, text, mlp, other

    error: unknown key `block` in `match`
     --> rules.yaml:5:29
      |
    5 |     match: { kind: spacial, block: 0..6 }
      |                             ^^^^^
      = help: did you mean `blocks`? Keys here are kind, blocks, name, cache, share

    error: unknown key `rnage` in `broadcast`
     --> rules.yaml:6:18
      |
    6 |     broadcast: { rnage: 2, window: [100, 800] }
      |                  ^^^^^
      = help: did you mean `range`? Keys here are range, window, windows, steps, after, skip, adaptive

    error: `window` is keys and values, but here is a list of 2
     --> rules.yaml:6:36
      |
    6 |     broadcast: { rnage: 2, window: [100, 800] }
      |                                    ^^^^^^^^^^
      = help: write `{ timesteps: [100, 800] }`, `{ fraction: [0.15, 0.85] }` or `{ steps: [8, 42] }`; without a window it is the whole run

    error: the range `6..2` is empty: its first number has to stand before its end
     --> rules.yaml:8:35
      |
    8 |     match: { kind: cross, blocks: 6..2 }
      |                                   ^^^^
      = help: blocks count from 0, or from the last as -1: `3`, `0..6` (without 6), `0..=5` (with 5), `4..`, `..4`, `-1`, `1..-1`, or a list

    error: `outptu` is no place to cut
     --> rules.yaml:9:10
      |
    9 |     cut: outptu
      |          ^^^^^^
      = help: did you mean `output`? Write `output` (after the output projection) or `gated` (after the gate too)

    error: expected a range, found `2.5`
      --> rules.yaml:10:25
       |
    10 |     broadcast: { range: 2.5, window: { timesteps: [800, 100] } }
       |                         ^^^
       = help: write a whole number, without quotes

    error: the window [800, 100] is empty: its first number has to be below its second
      --> rules.yaml:10:51
       |
    10 |     broadcast: { range: 2.5, window: { timesteps: [800, 100] } }
       |                                                   ^^^^^^^^^^
       = help: did you mean `[100, 800]`?

    error: the name `cross` is taken by the rule in line 7
      --> rules.yaml:11:11
       |
    11 |   - name: cross
       |           ^^^^^
       = help: give each rule a name of its own

    error: the key `kind` stands here twice, first in line 12
      --> rules.yaml:12:27
       |
    12 |     match: { kind: cross, kind: temporal, name: *attn }
       |                           ^^^^
       = help: keep one of the two

    error: `*attn` refers to an anchor that is not defined above
      --> rules.yaml:12:49
       |
    12 |     match: { kind: cross, kind: temporal, name: *attn }
       |                                                 ^^^^^
       = help: a text that begins with `*` has to stand in quotes: "*attn"

    error: expected a range, found the text "6"
      --> rules.yaml:13:25
       |
    13 |     broadcast: { range: "6", window: { fraction: [0.15, 85] } }
       |                         ^^^
       = help: write a whole number, without quotes

    error: 85 is no fraction of a run: fractions are 0 to 1
      --> rules.yaml:13:57
       |
    13 |     broadcast: { range: "6", window: { fraction: [0.15, 85] } }
       |                                                         ^^
       = help: write 0.15 for 15 %; ends in the scheduler's unit belong under `timesteps`

    16 errors in rules.yaml
    "#);
}

#[test]
fn files_that_hold_no_rules() {
    insta::assert_snapshot!(errors(""), @r"
    error: the file is empty
     --> rules.yaml:1:1
      |
    1 |
      | ^
      = help: begin with `version: 1` and a list `rules:`

    1 error in rules.yaml
    ");
    insta::assert_snapshot!(errors("rules: []\n"), @r"
    error: a rules file has no `version`
     --> rules.yaml:1:1
      |
    1 | rules: []
      | ^^^^^
      = help: write `version: 1` in the first line

    error: there are no rules
     --> rules.yaml:1:8
      |
    1 | rules: []
      |        ^^
      = help: add a rule, or use a preset; a rule that leaves sites alone has `broadcast: never`

    2 errors in rules.yaml
    ");
    insta::assert_snapshot!(errors("- spatial\n"), @r"
    error: a rules file is keys and values, but here is a list of 1
     --> rules.yaml:1:3
      |
    1 | - spatial
      |   ^^^^^^^
      = help: begin with `version: 1` and a list `rules:`

    1 error in rules.yaml
    ");
    insta::assert_snapshot!(errors("version: 1\nrules:\n\t- name: a\n"), @r"
    error: this is no YAML: tabs disallowed within this context (block indentation)
     --> rules.yaml:3:2
      |
    3 |  - name: a
      |  ^
      = help: check the indentation (spaces, no tabs), the quotes and the brackets before this place

    1 error in rules.yaml
    ");
}

#[test]
fn range_one() {
    let text = one("    match: { kind: spatial }\n    broadcast: { range: 1 }\n");
    insta::assert_snapshot!(errors(&text), @r"
    error: range 1 computes at every step and broadcasts nothing
     --> rules.yaml:5:25
      |
    5 |     broadcast: { range: 1 }
      |                         ^
      = help: write `broadcast: never` to leave these sites alone, or a range of 2 or more

    1 error in rules.yaml
    ");
}

#[test]
fn ranges_in_timesteps() {
    for (range, place, said, help) in [
        (
            "{ timesteps: 0 }",
            "5:38",
            "0 timesteps are no range",
            "`{ timesteps: 50 }`",
        ),
        (
            "{ timesteps: -60.5 }",
            "5:38",
            "-60.5 timesteps are no range",
            "`{ timesteps: 50 }`",
        ),
        ("{ timesteps: [100, 800] }", "5:38", "a range", "number"),
        (
            "{ timestep: 60 }",
            "5:27",
            "unknown key `timestep`",
            "did you mean `timesteps`?",
        ),
        ("{}", "5:25", "timesteps", "`{ timesteps: 50 }`"),
        ("[60]", "5:25", "expected a range", "whole number"),
    ] {
        let text = one(&format!(
            "    match: {{ kind: spatial }}\n    broadcast: {{ range: {range} }}\n"
        ));
        let errors = errors(&text);
        for part in [place, said, help] {
            assert!(errors.contains(part), "{range}: {part} is not in\n{errors}");
        }
    }
}

#[test]
fn unreachable_and_contradictory_rules() {
    let text = "\
version: 1
rules:
  - { name: low, match: { kind: [spatial, temporal], blocks: 0..6 }, broadcast: { range: 2 } }
  - { name: high, match: { kind: spatial, blocks: 6.. }, broadcast: { range: 3 } }
  - { name: covered, match: { kind: spatial, blocks: 3..9 }, broadcast: { range: 4 } }
  - { name: contradiction, match: { kind: [temporal, spatial], blocks: [0..3, 3..6] }, broadcast: never }
  - { name: repeat, match: { kind: spatial, blocks: 6.. }, broadcast: { range: 3 } }
  - { name: named, match: { kind: cross, name: \"*.attn2\" }, broadcast: { range: 6 } }
  - { name: fine, match: { kind: cross }, broadcast: { range: 5 } }
  - { name: late, match: { kind: cross, name: \"*.attn3\" }, broadcast: { range: 6 } }
";
    insta::assert_snapshot!(errors(text), @r#"
    error: rule `covered` in line 5 matches sites that are claimed by `low` (line 3), `high` (line 4)
     --> rules.yaml:5:29
      |
    5 |   - { name: covered, match: { kind: spatial, blocks: 3..9 }, broadcast: { range: 4 } }
      |                             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: let them match different kinds, blocks or names; `broadcast: never` before both takes sites out

    error: rule `contradiction` contradicts rule `low` in line 3: both match the same sites and treat them differently
     --> rules.yaml:6:35
      |
    6 |   - { name: contradiction, match: { kind: [temporal, spatial], blocks: [0..3, 3..6] }, broadcast: ne…
      |                                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: keep one of the two, or let them match different kinds, blocks or names

    error: rule `repeat` repeats rule `high` in line 4
     --> rules.yaml:7:28
      |
    7 |   - { name: repeat, match: { kind: spatial, blocks: 6.. }, broadcast: { range: 3 } }
      |                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: keep one of the two, or let them match different kinds, blocks or names

    error: rule `fine` in line 9 matches sites that are claimed by `named` (line 8)
     --> rules.yaml:9:26
      |
    9 |   - { name: fine, match: { kind: cross }, broadcast: { range: 5 } }
      |                          ^^^^^^^^^^^^^^^
      = help: let them match different kinds, blocks or names; `broadcast: never` before both takes sites out

    error: rule `late` in line 10 matches sites that are claimed by `fine` (line 9)
      --> rules.yaml:10:26
       |
    10 |   - { name: late, match: { kind: cross, name: "*.attn3" }, broadcast: { range: 6 } }
       |                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = help: let them match different kinds, blocks or names; `broadcast: never` before both takes sites out

    5 errors in rules.yaml
    "#);
}

#[test]
fn rules_that_can_never_apply_and_second_rules_for_one_thing() {
    let text = "\
version: 1
memory: 0B
rules:
  - { name: ends, match: { kind: spatial, blocks: [0, -1] }, broadcast: never }
  - { name: last, match: { kind: spatial, blocks: -1 }, broadcast: { range: 2 } }
  - { name: middle, match: { kind: spatial, blocks: 0..6 }, forecast: { range: 2 } }
  - { name: late, match: { kind: spatial, blocks: 3 }, broadcast: never }
  - { name: small, match: { kind: cross, cache: \"< 1MiB\" }, broadcast: { range: 2 } }
  - { name: large, match: { kind: cross, cache: \">= 1MiB\" }, broadcast: { range: 3 } }
  - { name: span, residual: { range: 2 } }
  - { name: more, match: { kind: mlp, blocks: 5..9 }, residual: { range: 2 } }
  - { name: guidance, guidance: { range: 2 } }
  - { name: again, guidance: { range: 3 } }
";
    insta::assert_snapshot!(errors(text), @r#"
    error: without memory nothing can be broadcast
     --> rules.yaml:2:9
      |
    2 | memory: 0B
      |         ^^
      = help: use the original model, or remove `memory`

    error: rule `last` can never apply: all its sites are taken out before, by `ends` (line 4)
     --> rules.yaml:5:26
      |
    5 |   - { name: last, match: { kind: spatial, blocks: -1 }, broadcast: { range: 2 } }
      |                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: a rule with `broadcast: never` keeps its sites from those that follow: narrow it, or remove this rule

    error: rule `late` in line 7 matches sites that are claimed by `middle` (line 6)
     --> rules.yaml:7:26
      |
    7 |   - { name: late, match: { kind: spatial, blocks: 3 }, broadcast: never }
      |                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: move this rule up: `broadcast: never` takes sites out for the rules that follow it

    error: rule `more` in line 11 matches sites that are claimed by `span` (line 10)
      --> rules.yaml:11:26
       |
    11 |   - { name: more, match: { kind: mlp, blocks: 5..9 }, residual: { range: 2 } }
       |                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = help: let them match different kinds, blocks or names; `broadcast: never` before both takes sites out

    error: rule `guidance` in line 12 and rule `again` in line 13 are both for guidance, of which a model has one
      --> rules.yaml:13:5
       |
    13 |   - { name: again, guidance: { range: 3 } }
       |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = help: write one rule, with several `windows` where they differ

    5 errors in rules.yaml
    "#);
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    let message = Rules::load(&path).unwrap_err().to_string();
    assert!(
        message.contains("rules.yaml") && message.contains("pab, latte"),
        "{message}"
    );

    std::fs::write(&path, b"version: 1\n# \xe4\nrules: []\n").unwrap();
    let error = Rules::load(&path).unwrap_err();
    let [found] = error.diagnostics() else {
        panic!("{error}")
    };
    assert_eq!(
        (found.line, found.column, found.message.as_str()),
        (2, 3, "the byte 0xe4 is no UTF-8 text")
    );

    std::fs::write(&path, vec![b'#'; LARGEST + 1]).unwrap();
    assert!(matches!(Rules::load(&path), Err(RulesError::TooLarge { .. })));
    std::fs::write(&path, vec![0xff; LARGEST + 1]).unwrap();
    assert!(matches!(Rules::load(&path), Err(RulesError::TooLarge { .. })));

    std::fs::write(&path, EXAMPLE).unwrap();
    assert_eq!(Rules::load(&path).unwrap().rules.len(), 3);
    assert_eq!(Rules::find(path.to_str().unwrap()).unwrap().rules.len(), 3);
    assert_eq!(Rules::find("latte").unwrap(), Rules::preset("latte").unwrap());
    assert!(matches!(Rules::find("no such rules"), Err(RulesError::Read { .. })));
}
