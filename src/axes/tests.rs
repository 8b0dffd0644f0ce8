//! Axes of small graphs made by hand. Whole models are in the tests of `attention`.

mod hostile;
mod inputs;
mod nested;

use super::Label::{Batch, Channels, Frames, Height, Width};
use super::test_graph::{At, input, integers, model, weight};
use super::*;
use crate::onnx::messages::ValueInfoProto;

fn latent() -> ValueInfoProto {
    let dims = [
        At::Name("batch"),
        At::Number(4),
        At::Number(3),
        At::Name("h"),
        At::Name("w"),
    ];
    input("latent", &dims, DataType::Float)
}

fn text() -> ValueInfoProto {
    input(
        "words",
        &[At::Name("batch"), At::Name("length"), At::Number(24)],
        DataType::Float,
    )
}

fn shape(model: &ModelGraph, axes: &Axes, value: &str) -> String {
    display_shape(axes.dimensions(model.graph.find(value).unwrap()).unwrap())
}

fn analysed(model: &ModelGraph) -> Axes {
    Axes::analyse(model, &InputLabels::default()).unwrap()
}

/// With the layout of the latent, which only a convolution tells otherwise.
fn told(model: &ModelGraph) -> Axes {
    let layout = vec![Batch, Channels, Frames, Height, Width];
    let inputs = BTreeMap::from([("latent".to_owned(), layout)]);
    Axes::analyse(model, &InputLabels { inputs }).unwrap()
}

#[test]
fn patches_keep_height_and_width_at_a_symbolic_size() {
    let model = model(
        vec![latent(), text()],
        vec![
            integers("last", &[3, 4]),
            integers("open", &[-1, 4]),
            weight("patch", &[16, 4, 2, 2]),
            integers("flat", &[0, 0, -1]),
        ],
        &[
            "Transpose latent -> swapped perm=0,2,1,3,4",
            "Shape latent -> sizes",
            "Gather sizes last -> spatial axis=0",
            "Concat open spatial -> target axis=0",
            "Reshape swapped target -> images",
            "Conv images patch -> patched strides=2,2",
            "Reshape patched flat -> tokens",
            "Transpose tokens -> sequence perm=0,2,1",
        ],
    );
    let axes = analysed(&model);
    assert_eq!(
        shape(&model, &axes, "images"),
        "[batch·frames, channels, height, width]"
    );
    assert_eq!(
        shape(&model, &axes, "sequence"),
        "[batch·frames, height·width, channels]"
    );
    let sizes = axes.sizes(model.graph.find("patched").unwrap()).unwrap();
    let sizes: Vec<String> = sizes.iter().map(Size::to_string).collect();
    assert_eq!(sizes, ["3*batch", "16", "floor(h/2)", "floor(w/2)"]);
    assert_eq!(axes.opaque(), []);
}

#[test]
fn text_repeated_over_frames_keeps_its_axis_in_every_spelling() {
    let model = model(
        vec![latent(), text()],
        vec![
            integers("one", &[1]),
            integers("place", &[1]),
            integers("expanded", &[1, 3, 1, 1]),
            integers("depth", &[4]),
            integers("offon", &[1, 3]),
            integers("list", &[-1]),
            integers("merged", &[-1, 0, 24]),
            integers("zero", &[0]),
            integers("minus", &[-1]),
            integers("two", &[2]),
            integers("four", &[4]),
        ],
        &[
            "Unsqueeze words one -> single",
            "Expand single expanded -> expand",
            "OneHot place depth offon -> hot",
            "Reshape hot list -> repeats",
            "Tile single repeats -> tile",
            "Shape tile -> tiled",
            "Slice tiled two four zero -> inner",
            "Concat minus inner -> target axis=0",
            "Reshape tile target -> rows",
        ],
    );
    let axes = analysed(&model);
    assert_eq!(shape(&model, &axes, "expand"), "[batch, 3, text, channels]");
    assert_eq!(shape(&model, &axes, "tile"), "[batch, 3, text, channels]");
    assert_eq!(shape(&model, &axes, "rows"), "[batch·3, text, channels]");
}

#[test]
fn a_joint_sequence_comes_apart_where_it_was_joined() {
    let model = model(
        vec![latent(), text()],
        vec![
            integers("flat", &[0, 0, -1]),
            weight("mix", &[4, 24]),
            integers("one", &[1]),
            integers("most", &[i64::MAX]),
            integers("second", &[1]),
        ],
        &[
            "Reshape latent flat -> pixels",
            "Transpose pixels -> rows perm=0,2,1",
            "MatMul rows mix -> tokens",
            "Concat words tokens -> joint axis=1",
            "Softmax joint -> mixed axis=-1",
            "Shape words -> sizes",
            "Gather sizes second -> length axis=0",
            "Slice mixed length most one -> video",
        ],
    );
    let axes = analysed(&model);
    assert_eq!(
        shape(&model, &axes, "joint"),
        "[batch, (text+frames·height·width), channels]"
    );
    assert_eq!(shape(&model, &axes, "video"), "[batch, frames·height·width, channels]");
}

#[test]
fn a_squeeze_of_a_long_axis_is_read_as_pytorch_means_it() {
    let model = model(
        vec![latent()],
        vec![integers("third", &[2])],
        &["Squeeze latent third -> kept"],
    );
    let axes = told(&model);
    let expected = "[batch, channels, frames, height, width]";
    assert_eq!(shape(&model, &axes, "kept"), expected);
    let said = axes
        .notes()
        .iter()
        .any(|note| note.reason.contains("drops an axis of size 3"));
    assert!(said, "{:?}", axes.notes());
}

#[test]
fn a_sum_that_is_normalized_at_once_has_the_type_of_what_it_adds() {
    let model = model(
        vec![latent()],
        vec![weight("scale", &[1])],
        &["com.microsoft:SkipLayerNormalization latent latent scale -> normed,mean,deviation,sum"],
    );
    let sum = model.graph.find("sum").unwrap();
    assert_eq!(told(&model).element_type(sum), Some(DataType::Float));
}

#[test]
fn what_is_cut_off_from_the_back_is_followed() {
    let model = model(
        vec![latent(), text()],
        vec![
            integers("zero", &[0]),
            integers("one", &[1]),
            weight("prefix", &[2, 226, 24]),
        ],
        &[
            "Concat prefix words -> joint axis=1",
            "Shape words -> length start=1 end=2",
            "Neg length -> end",
            "Slice joint zero end one -> head",
        ],
    );
    let axes = told(&model);
    assert_eq!(shape(&model, &axes, "head"), "[batch, 226, channels]");
}

#[test]
fn operators_without_a_rule_are_listed_and_leave_no_labels() {
    let model = model(
        vec![latent()],
        vec![],
        &[
            "Mystery latent -> odd",
            "custom.ai:Mystery latent -> other",
            "Relu odd -> after",
            "MatMul latent odd -> p",
        ],
    );
    let axes = analysed(&model);
    assert_eq!(axes.dimensions(model.graph.find("odd").unwrap()), None);
    let listed: Vec<(&str, &str, bool)> = axes
        .opaque()
        .iter()
        .map(|entry| (entry.domain.as_str(), entry.operator.as_str(), entry.has_rule))
        .collect();
    assert_eq!(
        listed,
        [
            ("", "MatMul", true),
            ("", "Mystery", false),
            ("", "Relu", true),
            ("custom.ai", "Mystery", false)
        ]
    );
}

#[test]
fn declared_sizes_that_differ_are_reported() {
    let mut model = model(vec![latent()], vec![], &["Relu latent -> after"]);
    let value = model.graph.find("after").unwrap();
    let dims = [
        At::Name("batch"),
        At::Number(4),
        At::Number(5),
        At::Name("h"),
        At::Name("w"),
    ];
    model.graph.add_output(value, input("after", &dims, DataType::Float));
    let axes = told(&model);
    let [note] = axes.notes() else {
        panic!("{:?}", axes.notes())
    };
    assert_eq!(note.subject, "value `after` of Relu");
}

#[test]
fn a_number_cuts_a_symbolic_axis_only_where_the_axis_surely_reaches_it() {
    let model = model(
        vec![latent(), text()],
        vec![
            integers("zero", &[0]),
            integers("one", &[1]),
            integers("four", &[4]),
            integers("minus", &[-1]),
            integers("most", &[i64::MAX]),
            integers("second", &[1]),
            weight("prefix", &[2, 226, 24]),
            weight("table", &[300, 24]),
            integers("long", &[226]),
        ],
        &[
            "Slice latent zero four zero -> first",
            "Slice latent one most zero -> behind",
            "Slice latent zero minus zero -> before",
            "Slice latent four most zero -> far",
            "Concat prefix words -> joint axis=1",
            "Slice joint long most one -> text",
            "Slice joint zero long one -> head",
            "Shape words -> sizes",
            "Gather sizes second -> length axis=0",
            "Slice table zero length zero -> positions",
            "Neg length -> negative",
            "Sub zero length -> negated",
            "Slice joint negated most one -> tail",
        ],
    );
    let axes = analysed(&model);
    let size = |value: &str, place: usize| axes.sizes(model.graph.find(value).unwrap()).unwrap()[place].to_string();
    assert_eq!(size("first", 0), "?");
    assert_eq!(size("behind", 0), "batch-1");
    assert_eq!(size("before", 0), "batch-1");
    assert_eq!(size("far", 0), "batch-?");
    assert_eq!(
        (size("text", 1), size("head", 1)),
        ("length".to_owned(), "226".to_owned())
    );
    assert_eq!(size("positions", 0), "length");
    assert_eq!(size("tail", 1), "length");
    assert!(shape(&model, &axes, "first").starts_with("[batch,"));
}

#[test]
fn a_transpose_is_undone_by_its_inverse() {
    let model = model(
        vec![latent()],
        vec![],
        &[
            "Transpose latent -> there perm=3,0,4,2,1",
            "Transpose there -> back perm=1,4,3,0,2",
            "Transpose latent -> turned",
        ],
    );
    let axes = analysed(&model);
    assert_eq!(
        shape(&model, &axes, "there"),
        "[height, batch, width, frames, channels]"
    );
    assert_eq!(shape(&model, &axes, "back"), shape(&model, &axes, "latent"));
    assert_eq!(
        shape(&model, &axes, "turned"),
        "[width, height, frames, channels, batch]"
    );
}

#[test]
fn what_is_written_into_a_constant_tells_its_axes() {
    // A rotary embedding: even and odd channels are written into a constant one after the other.
    let model = model(
        vec![latent()],
        vec![
            weight("zeros", &[2, 3, 4]),
            weight("other", &[2, 5, 4]),
            integers("even", &[2, 3, 2, 3]),
            integers("zero", &[0]),
            integers("two", &[2]),
            integers("last", &[2]),
        ],
        &[
            "ReduceMean latent -> frames4 axes=3,4 keepdims=0",
            "Transpose frames4 -> frames perm=0,2,1",
            "Slice frames zero two last -> half",
            "ScatterND zeros even half -> turned",
            "ScatterND other even half -> apart",
        ],
    );
    let axes = told(&model);
    let labels = |value: &str| -> Vec<Labels> {
        let dims = axes.dimensions(model.graph.find(value).unwrap()).unwrap();
        dims.iter().map(Dimension::labels).collect()
    };
    assert!(labels("turned")[1].contains(Frames));
    // Five are not the three frames.
    assert!(labels("apart")[1].is_empty());
}

#[test]
fn pads_that_are_turned_from_axes_to_sides_are_followed() {
    // TorchScript has pads from the last axis to the first, before and after each.
    let model = model(
        vec![latent()],
        vec![
            integers("given", &[0, 2]),
            integers("four", &[4]),
            integers("table", &[-1, 2]),
            integers("from", &[-1]),
            integers("to", &[-9223372036854775807]),
            integers("first", &[0]),
            integers("list", &[-1]),
            integers("flat", &[0, 12, -1]),
        ],
        &[
            "Reshape latent flat -> tokens",
            "ConstantOfShape four -> zeros",
            "Concat given zeros -> pads axis=0",
            "Reshape pads table -> pairs",
            "Slice pairs from to first from -> turned",
            "Transpose turned -> sides perm=1,0",
            "Reshape sides list -> all",
            "Cast all -> cast to=7",
            "Pad tokens cast -> padded",
        ],
    );
    let axes = told(&model);
    assert_eq!(axes.opaque(), []);
    assert_eq!(shape(&model, &axes, "padded"), "[batch, channels·frames, h*w+2]");
}
