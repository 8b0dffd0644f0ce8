//! Graphs that no exporter writes, made to keep the search busy: what is looked at grows as the nodes do.

use super::super::*;
use crate::axes::test_graph::{At, input, integers, model, weight};
use crate::axes::{Axes, InputLabels, Label};
use crate::onnx::messages::DataType;

/// A stream, a feed-forward branch of it, scores and probabilities of it.
const BEGIN: &[&str] = &[
    "Transpose latent -> last perm=0,2,3,4,1",
    "Reshape last rows -> stream",
    "MatMul stream up -> h",
    "Gelu h -> a",
    "MatMul a down -> branch",
    "Transpose stream -> turned perm=0,2,1",
    "MatMul stream turned -> scores",
    "Softmax scores -> p",
    "MatMul p stream -> weighed",
    "MatMul weighed square -> attended",
];

/// Nodes and steps of the search.
fn looked_at(lines: &[String]) -> (u64, u64) {
    let nodes: Vec<&str> = BEGIN.iter().copied().chain(lines.iter().map(String::as_str)).collect();
    let model = model(
        vec![input("latent", &[2, 8, 3, 4, 4].map(At::Number), DataType::Float)],
        vec![
            integers("rows", &[6, 16, 8]),
            weight("up", &[8, 32]),
            weight("down", &[32, 8]),
            weight("square", &[8, 8]),
        ],
        &nodes,
    );
    let mut labels = InputLabels::default();
    let latent = [
        Label::Batch,
        Label::Channels,
        Label::Frames,
        Label::Height,
        Label::Width,
    ];
    labels.inputs.insert("latent".into(), latent.to_vec());
    let axes = Axes::analyse(&model, &labels).unwrap();
    let (sites, steps) = Sites::find_counted(&model, &axes).unwrap();
    let text: usize = sites.notes.iter().map(|note| note.reason.len()).sum();
    (nodes.len() as u64, steps + text as u64 / 64)
}

/// Fails where the work for twice as many lines is more than twice as much, or more than `most` steps a node.
fn expect_linear(what: &str, most: u64, lines: impl Fn(usize) -> Vec<String>) {
    let (_, small) = looked_at(&lines(400));
    let (nodes, large) = looked_at(&lines(800));
    assert!(large <= 2 * small + 4096, "{what}: {small} steps, then {large}");
    assert!(large <= most * nodes, "{what}: {large} steps for {nodes} nodes");
}

/// Fails where the work is more than what a graph of so many nodes may take in all.
fn expect_bounded(what: &str, lines: Vec<String>) {
    let (nodes, steps) = looked_at(&lines);
    assert!(
        steps <= (64 * nodes).max(1 << 20) + 8192,
        "{what}: {steps} steps for {nodes} nodes"
    );
}

#[test]
fn many_additions_of_one_branch_to_one_value() {
    expect_linear("of the feed-forward", 64, |count| {
        (0..count).map(|at| format!("Add stream branch -> sum{at}")).collect()
    });
    expect_linear("of the attention", 64, |count| {
        (0..count).map(|at| format!("Add stream attended -> sum{at}")).collect()
    });
    expect_linear("of the value itself", 64, |count| {
        (0..count).map(|at| format!("Add stream stream -> sum{at}")).collect()
    });
}

#[test]
fn many_additions_onto_one_value_that_all_read_the_same_value() {
    for same in ["stream", "branch", "attended"] {
        expect_linear(same, 64, |count| {
            let sum = |at: usize| match at {
                0 => format!("Add stream {same} -> sum0"),
                _ => format!("Add sum{} {same} -> sum{at}", at - 1),
            };
            (0..count).map(sum).collect()
        });
    }
}

#[test]
fn many_projections_onto_one_value_that_all_read_it() {
    let line = |at: usize| match at {
        0 => "Add stream branch -> sum0".to_owned(),
        at if at % 2 == 0 => format!("Add m{} stream -> sum{at}", at - 1),
        at => format!("MatMul sum{} square -> m{at}", at - 1),
    };
    expect_bounded("a chain", (0..6000).map(line).collect());
}

#[test]
fn many_branches_of_one_value_put_together() {
    let sums = |count: usize| -> Vec<String> {
        let branches = (0..count).map(|at| format!("MatMul a down -> b{at}"));
        let all: Vec<String> = (0..count).map(|at| format!("b{at}")).collect();
        let sums = (0..count).map(|at| format!("Add together b{at} -> sum{at}"));
        branches
            .chain([format!("Sum {} -> together", all.join(" "))])
            .chain(sums)
            .collect()
    };
    expect_bounded("a sum of all", sums(4000));
    let copies = |count: usize| {
        let all = vec!["branch"; count];
        let sums = (0..count).map(|at| format!("Add together stream -> sum{at}"));
        std::iter::once(format!("Sum {} -> together", all.join(" ")))
            .chain(sums)
            .collect()
    };
    expect_bounded("one value over and over", copies(4000));
}

#[test]
fn many_attentions_whose_results_meet_before_many_readers() {
    expect_linear("probabilities", 512, |count| {
        let mut lines: Vec<String> = (0..count).map(|at| format!("Softmax scores -> p0.{at}")).collect();
        let (mut level, mut width) = (0, count);
        while width > 1 {
            width /= 2;
            lines.extend((0..width).map(|at| {
                let (left, right) = (2 * at, 2 * at + 1);
                format!("Mul p{level}.{left} p{level}.{right} -> p{}.{at}", level + 1)
            }));
            level += 1;
        }
        lines.extend((0..count).map(|at| format!("Relu p{level}.0 -> r{at}")));
        lines
    });
    expect_linear("outputs", 2048, |count| {
        let mut lines: Vec<String> = (0..count)
            .flat_map(|at| {
                [
                    format!("Softmax scores -> p{at}"),
                    format!("MatMul p{at} stream -> o0.{at}"),
                ]
            })
            .collect();
        let (mut level, mut width) = (0, count);
        while width > 1 {
            width /= 2;
            lines.extend((0..width).map(|at| {
                let (left, right) = (2 * at, 2 * at + 1);
                format!("Add o{level}.{left} o{level}.{right} -> o{}.{at}", level + 1)
            }));
            level += 1;
        }
        let parts: Vec<String> = (0..count).map(|at| format!("part{at}")).collect();
        lines.push(format!("Split o{level}.0 -> {} axis=1", parts.join(",")));
        lines
    });
}

#[test]
fn long_names_are_shown_by_their_beginning() {
    let long = "x".repeat(100_000);
    let lines: Vec<String> = (0..20).map(|_| "Softmax scores -> _".to_owned()).collect();
    let (_, few) = looked_at(&lines);
    let named: Vec<String> = (0..20).map(|at| format!("custom:{long} stream -> y{at}")).collect();
    let both: Vec<String> = named
        .into_iter()
        .chain((0..20).flat_map(|at| [format!("Mul y{at} scores -> z{at}"), format!("Softmax z{at} -> q{at}")]))
        .collect();
    let (_, many) = looked_at(&both);
    assert!(many < few + 4000, "{few} {many}");
}
