//! Rules with one mistake each.

use super::errors::one;
use crate::rules::Rules;

/// Rules of one error each, with `§` before the place that is meant, and a part of what is said.
const BROKEN: [(&str, &str); 51] = [
    (
        "match: { kind: mlp, blocks: §-1..-3 }\n    broadcast: never",
        "is empty",
    ),
    (
        "match: { kind: mlp, cache: §8MiB }\n    broadcast: never",
        "does not begin with",
    ),
    (
        "match: { kind: mlp, cache: §'<= 8 miles' }\n    broadcast: never",
        "is no bound",
    ),
    (
        "match: { kind: mlp, share: §'>= 1.5' }\n    broadcast: never",
        "is no bound",
    ),
    (
        "match: { kind: mlp, share: ['> 0.5', §'< 0.5'] }\n    broadcast: never",
        "no number keeps",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: 2, window: { steps: §[42, 8] } }",
        "is empty",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: 2, window: { steps: [§0.5, 8] } }",
        "0.5 is no step",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: 2, window: §{ steps: [4, 4] } }",
        "computes step 4",
    ),
    ("match: { kind: mlp }\n    broadcast: { windows: §[] }", "is empty"),
    (
        "match: { kind: mlp }\n    broadcast: { windows: [§{ window: whole }] }",
        "has no `range`",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { windows: [{ range: 2 }, §{ range: 3, window: { steps: [1, 9] } }] }",
        "overlap",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { windows: [{ range: 2, window: { steps: [1, 5] } }, §{ range: 3, window: { \
         steps: [5, 9] } }] }",
        "the windows steps 1 to 5 and steps 5 to 9 overlap; the other window is in line 5",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { windows: [{ range: 2, window: { steps: [1, 5] } }, §{ range: 3, window: { \
         fraction: [0.5, 0.9] } }] }",
        "depends on the run",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: §2, steps: [3] }",
        "`steps` and `range` do not go together",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { steps: [3, §0] }",
        "step 0 always computes",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { steps: [3..6, §5] }",
        "listed twice",
    ),
    ("match: { kind: mlp }\n    broadcast: { steps: §-1 }", "names no steps"),
    (
        "match: { kind: mlp }\n    broadcast: §{ after: [864] }",
        "`broadcast` has no `skip`",
    ),
    ("match: { kind: mlp }\n    broadcast: §{ skip: 2 }", "has no `after`"),
    (
        "match: { kind: mlp }\n    broadcast: { after: [864], skip: §0 }",
        "`skip: 0` broadcasts nothing",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { after: [864, 5, §864], skip: 1 }",
        "864 is listed twice",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { after: [§864.5], skip: 1 }",
        "expected a timestep",
    ),
    (
        "match: { kind: mlp }\n    forecast: { order: §3, range: 2 }",
        "3 is no order",
    ),
    (
        "match: { kind: mlp }\n    broadcast: never\n    forecast: §{ range: 2 }",
        "this has `broadcast` too",
    ),
    ("match: §{ kind: mlp }\n    guidance: { range: 2 }", "matches no sites"),
    (
        "match: { blocks: 1..-1 }\n    cut: §gated\n    residual: { range: 2 }",
        "only rules with",
    ),
    ("match: §{}\n    broadcast: never", "`match` has no `kind`"),
    (
        "match: { kind: [spatial, §spatial] }\n    broadcast: never",
        "named twice",
    ),
    ("match: { kind: §[] }\n    broadcast: never", "is empty"),
    (
        "match: { kind: §3 }\n    broadcast: never",
        "expected a kind, found `3`",
    ),
    (
        "match: { kind: mlp, blocks: §-0 }\n    broadcast: never",
        "names no blocks",
    ),
    (
        "match: { kind: mlp, blocks: §{ a: 1 } }\n    broadcast: never",
        "expected blocks, found a mapping",
    ),
    (
        "match: { kind: mlp, name: §'' }\n    broadcast: never",
        "an empty pattern",
    ),
    (
        "match: { kind: mlp, name: §'a[0]' }\n    broadcast: never",
        "`[` has no meaning",
    ),
    (
        "match: §spatial\n    broadcast: never",
        "`match` is keys and values, but here is `spatial`",
    ),
    (
        "match: { kind: mlp }\n    broadcast: §2",
        "expected how to broadcast, found `2`",
    ),
    ("match: { kind: mlp }\n    broadcast§:", "found nothing"),
    ("match: { kind: mlp }\n    broadcast: { range: §-2 }", "-2 is no range"),
    (
        "match: { kind: mlp }\n    broadcast: { range: §99999999999 }",
        "99999999999 is no range",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: §1e999 }",
        "expected a range",
    ),
    (
        "match: { kind: mlp }\n    broadcast: §{ window: whole }",
        "has no `range`",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: 2, window: §{} }",
        "no ends",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: 2, window: { timesteps: §[1] } }",
        "two ends",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: 2, window: { timesteps: §[5, 5] } }",
        "is empty",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: 2, window: { timesteps: [§.inf, 5] } }",
        "expected an end",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: 2, window: { fraction: [§-0.1, 1] } }",
        "-0.1 is no fraction",
    ),
    (
        "match: { kind: mlp }\n    broadcast: { range: 2, window: { timesteps: [1, 2], fraction: §[0, 1] } }",
        "this is several",
    ),
    (
        "match: { kind: mlp }\n    cut: §gated\n    broadcast: never",
        "nothing to cut",
    ),
    (
        "match: { kind: mlp }\n    broadcast: never\n    §<<: { cut: gated }",
        "merge keys",
    ),
    (
        "match: { kind: mlp }\n    broadcast: never\n    §[1, 2]: 3",
        "cannot be a key",
    ),
    ("match: { kind: mlp }\n    broadcast: §!never x", "no tags"),
];

#[test]
fn single_errors() {
    for (rule, said) in BROKEN {
        let marked = one(&format!("    {rule}\n"));
        let place = marked.lines().zip(1..).find_map(|(text, line)| {
            let before = text.split_once('§')?.0;
            Some((line, before.chars().count() + 1))
        });
        let error = Rules::parse("rules.yaml", &marked.replace('§', "")).unwrap_err();
        let [found, ..] = error.diagnostics() else {
            panic!("{rule}: {error}")
        };
        assert!(found.message.contains(said), "{rule}: {error}");
        assert_eq!(Some((found.line, found.column)), place, "{rule}: {error}");
    }
}
