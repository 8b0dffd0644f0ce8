//! Small graphs, one line a node.

use super::*;
use crate::axes::InputLabels;
use crate::axes::test_graph::{At, input, integers, model};
use crate::graph::ModelGraph;
use crate::onnx::messages::ValueInfoProto;

/// What a model computes that reads its latent `x`, `[batch, 8, frames, height, 16]`, and is left after the rewrite: a
/// line a node, in order.
fn rewritten(constants: Vec<TensorProto>, nodes: &[&str], outputs: &[&str]) -> (Vec<String>, ModelGraph) {
    let sizes = [
        At::Name("batch"),
        At::Number(8),
        At::Name("frames"),
        At::Name("height"),
        At::Number(16),
    ];
    let latent = input("x", &sizes, DataType::Float);
    let mut model = model(vec![latent], constants, nodes);
    for output in outputs {
        let value = model.graph.find(output).unwrap();
        model.graph.add_output(value, ValueInfoProto::default());
    }
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    write_known_sizes(&mut model.graph, &axes).unwrap();
    let order = model.graph.topological_order().unwrap();
    let line = |id: &crate::graph::NodeId| {
        let node = model.graph.node(*id);
        let read = |value: ValueId| match model.graph.constant(value) {
            Some(tensor) => format!("{:?}", [&tensor.int64_data[..], &[]].concat()),
            None => model.graph.value(value).name().to_owned(),
        };
        let reads: Vec<String> = node.reads().map(read).collect();
        format!("{} {}", node.operator(), reads.join(" "))
    };
    (order.iter().map(line).collect(), model)
}

#[test]
fn sizes_are_stored_or_read_from_the_inputs_once() {
    let constants = vec![
        integers("zero", &[0]),
        integers("three", &[3]),
        integers("rest", &[-1, 128]),
        integers("many", &[8, 16]),
    ];
    let nodes = [
        "Relu x -> a",
        "Shape a -> a_shape",
        "Gather a_shape zero -> a_batch axis=0",
        "Gather a_shape three -> a_height axis=0",
        "Mul a_batch a_height -> a_tokens",
        "Concat a_tokens rest -> a_target axis=0",
        "Reshape a a_target -> y",
        "Sigmoid x -> b",
        "Shape b -> b_shape",
        "Gather b_shape three -> b_height axis=0",
        "Gather b_shape zero -> b_batch axis=0",
        "Mul b_height b_batch -> b_tokens",
        "Concat b_tokens rest -> b_target axis=0",
        "Reshape b b_target -> z",
        "Slice b_shape zero three -> front",
        "Concat front many -> whole axis=0",
        "Reshape b whole -> w",
    ];
    let (lines, _) = rewritten(constants, &nodes, &["y", "z", "w"]);
    let count = |operator: &str| lines.iter().filter(|line| line.starts_with(operator)).count();
    // Batch, frames and height are read once each, and multiplied once.
    assert_eq!(
        (count("Shape x"), count("Shape"), count("Gather")),
        (3, 3, 3),
        "{lines:#?}"
    );
    assert_eq!((count("Mul"), count("Concat")), (1, 2), "{lines:#?}");
    assert_eq!(count("Reshape"), 3);
}

#[test]
fn what_is_all_numbers_is_stored() {
    let constants = vec![integers("one", &[1]), integers("four", &[4]), integers("rest", &[-1])];
    let nodes = [
        "Shape x -> shape",
        "Gather shape one -> channels axis=0",
        "Gather shape four -> width axis=0",
        "Mul channels width -> both",
        "Concat rest both -> target axis=0",
        "Reshape x target -> y",
    ];
    let (lines, _) = rewritten(constants, &nodes, &["y"]);
    assert_eq!(lines, ["Reshape x [-1, 128]"]);
}

#[test]
fn scales_that_are_computed_from_a_size_stay_computed_and_are_shared() {
    let constants = vec![integers("four", &[4]), integers("zero", &[0])];
    let nodes = [
        "Shape x -> shape",
        "Gather shape four -> width axis=0",
        "Cast width -> number to=1",
        "Sqrt number -> scale",
        "Mul x scale -> y",
        "Relu x -> r",
        "Shape r -> other_shape",
        "Gather other_shape four -> other_width axis=0",
        "Cast other_width -> other_number to=1",
        "Sqrt other_number -> other_scale",
        "Mul r other_scale -> z",
        "Cast other_width -> wide to=11",
        "Gather shape zero -> batch axis=0",
        "Cast batch -> open to=1",
    ];
    let (lines, _) = rewritten(constants, &nodes, &["y", "z", "wide", "open"]);
    let count = |operator: &str| lines.iter().filter(|line| line.starts_with(operator)).count();
    assert_eq!((count("Sqrt number"), count("Sqrt")), (1, 1), "{lines:#?}");
    assert!(
        lines.contains(&"Mul x scale".to_owned()) && lines.contains(&"Mul r scale".to_owned()),
        "{lines:#?}"
    );
    // Of another type, and of an open size.
    assert_eq!(count("Cast"), 3, "{lines:#?}");
    assert_eq!((count("Sub"), count("Add")), (1, 1), "{lines:#?}");
}

#[test]
fn what_onnx_runtime_computes_ahead_is_left_alone() {
    let constants = vec![integers("one", &[1]), integers("fixed", &[4, 16])];
    let nodes = [
        "ConstantOfShape fixed -> ones",
        "Shape ones -> shape",
        "Gather shape one -> width axis=0",
        "Cast width -> number to=1",
        "Mul x number -> y",
    ];
    let (lines, _) = rewritten(constants, &nodes, &["y"]);
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("Sub")).count(),
        0,
        "{lines:#?}"
    );
    assert!(lines.iter().any(|line| line.starts_with("Shape ones")), "{lines:#?}");
}

#[test]
fn outputs_and_what_is_not_known_stay() {
    let constants = vec![integers("zero", &[0]), integers("rest", &[-1])];
    let nodes = [
        "Shape x -> shape",
        "Gather shape zero -> batch axis=0",
        "NonZero x -> places",
        "Shape places -> found",
        "Concat batch found -> target axis=0",
        "Reshape places target -> y",
        "Concat batch rest -> flat axis=0",
        "Reshape x flat -> z",
    ];
    let (lines, model) = rewritten(constants, &nodes, &["batch", "y", "z"]);
    let names: Vec<&str> = model
        .graph
        .outputs()
        .map(|value| model.graph.value(value).name())
        .collect();
    assert_eq!(names, ["batch", "y", "z"]);
    assert!(lines.iter().any(|line| line == "Shape places"), "{lines:#?}");
    assert!(lines.iter().any(|line| line == "Concat batch found"), "{lines:#?}");
}
