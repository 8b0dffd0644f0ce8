//! Axes of small graphs made by hand. Whole models are in the tests of `attention`.

mod hostile;

use super::Label::{Batch, Channels, Frames, Height, Text, Width};
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
fn a_latent_with_frames_before_channels_is_told_by_what_the_convolution_sums_over() {
    let dims = [
        At::Number(2),
        At::Number(3),
        At::Number(4),
        At::Number(8),
        At::Number(12),
    ];
    let model = model(
        vec![input("latent", &dims, DataType::Float)],
        vec![integers("images", &[6, 4, 8, 12]), weight("patch", &[16, 4, 2, 2])],
        &[
            "Reshape latent images -> flat",
            "Conv flat patch -> patched strides=2,2",
        ],
    );
    let axes = analysed(&model);
    assert_eq!(
        shape(&model, &axes, "patched"),
        "[batch·frames, channels, height, width]"
    );
    assert_eq!(axes.notes(), []);
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
fn equal_sizes_are_not_taken_for_the_same_axis() {
    let four = || At::Number(4);
    let model = model(
        vec![
            input("latent", &[four(), four(), four(), four(), four()], DataType::Float),
            input("words", &[four(), four(), four()], DataType::Float),
        ],
        vec![integers("merged", &[16, 4, 4, 4])],
        &[
            "Transpose latent -> swapped perm=0,2,1,3,4",
            "Reshape swapped merged -> images",
            "Relu words -> text",
        ],
    );
    let axes = analysed(&model);
    assert_eq!(
        shape(&model, &axes, "images"),
        "[batch·frames, channels, height, width]"
    );
    assert_eq!(shape(&model, &axes, "text"), "[batch, text, channels]");
}

#[test]
fn masks_and_timesteps_are_told_by_the_sizes_that_they_share() {
    let model = model(
        vec![
            latent(),
            text(),
            input("when", &[At::Name("batch")], DataType::Int64),
            input("mask", &[At::Name("batch"), At::Name("length")], DataType::Bool),
            input("odd", &[At::Name("batch"), At::Number(77)], DataType::Int64),
        ],
        vec![],
        &["Identity when -> a", "Identity mask -> b", "Identity odd -> c"],
    );
    let axes = told(&model);
    assert_eq!(shape(&model, &axes, "a"), "[batch]");
    assert_eq!(shape(&model, &axes, "b"), "[batch, text]");
    assert_eq!(shape(&model, &axes, "c"), "[?, 77]".replace('?', "batch"));
    let [note] = axes.notes() else {
        panic!("{:?}", axes.notes())
    };
    assert_eq!(note.subject, "input `odd`");
    assert!(note.advice.contains("--axes odd=batch,text"), "{note}");
}

#[test]
fn labels_can_be_given_and_must_fit() {
    let model = model(vec![latent()], vec![], &["Relu latent -> after"]);
    let given = |name: &str, labels: &[Label]| {
        let labels = InputLabels {
            inputs: BTreeMap::from([(name.to_owned(), labels.to_vec())]),
        };
        Axes::analyse(&model, &labels)
    };
    let axes = given("latent", &[Batch, Frames, Channels, Height, Width]).unwrap();
    assert_eq!(
        shape(&model, &axes, "after"),
        "[batch, frames, channels, height, width]"
    );
    assert_eq!(
        given("latent", &[Batch, Text]).unwrap_err(),
        AxesError::Rank {
            name: "latent".into(),
            rank: 5,
            labels: 2
        }
    );
    assert!(matches!(
        given("latents", &[Batch]),
        Err(AxesError::UnknownInput { .. })
    ));
    let none = super::test_graph::model(
        vec![input("v", &[At::Number(3)], DataType::Float)],
        vec![],
        &["Relu v -> w"],
    );
    let error = Axes::analyse(&none, &InputLabels::default()).unwrap_err();
    assert!(
        matches!(&error, AxesError::NoLatent { example, .. } if example == "v"),
        "{error}"
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
fn an_input_by_frame_is_not_taken_for_text_where_it_meets_frames() {
    let latent = input("latent", &[2, 4, 6, 8, 8].map(At::Number), DataType::Float);
    let pose = input("pose", &[2, 6, 4].map(At::Number), DataType::Float);
    let nodes = [
        "Transpose latent -> last perm=0,2,3,4,1",
        "Unsqueeze pose places -> by_frame",
        "Add by_frame last -> posed",
        "Add posed by_frame -> twice",
    ];
    let model = model(vec![latent, pose], vec![integers("places", &[2, 3])], &nodes);
    let given = |pose: Option<[Label; 3]>| {
        let mut labels = InputLabels::default();
        labels
            .inputs
            .insert("latent".into(), vec![Batch, Channels, Frames, Height, Width]);
        labels
            .inputs
            .extend(pose.map(|pose| ("pose".to_owned(), pose.to_vec())));
        Axes::analyse(&model, &labels).unwrap()
    };
    let axes = given(None);
    assert_eq!(
        shape(&model, &axes, "twice"),
        "[batch, frames|text?, height, width, channels]"
    );
    let subjects: Vec<&str> = axes.notes().iter().map(|note| note.subject.as_str()).collect();
    assert_eq!(subjects, ["input `pose`", "Add `posed`"]);
    assert!(
        axes.notes()[0].advice.contains("--axes pose=batch,frames,channels"),
        "{}",
        axes.notes()[0]
    );
    assert!(axes.notes()[1].reason.contains("frames, text"), "{}", axes.notes()[1]);
    let axes = given(Some([Batch, Frames, Channels]));
    assert_eq!(
        shape(&model, &axes, "twice"),
        "[batch, frames, height, width, channels]"
    );
    assert_eq!(axes.notes(), []);
}

#[test]
fn a_layout_that_no_convolution_tells_is_noted_as_assumed() {
    let latent = || input("latent", &[2, 3, 8, 8, 4].map(At::Number), DataType::Float);
    let weights = || {
        vec![
            integers("rows", &[6, 64, 4]),
            integers("images", &[6, 4, 8, 8]),
            weight("patch", &[16, 4, 2, 2]),
        ]
    };
    let linear = model(vec![latent()], weights(), &["Reshape latent rows -> tokens"]);
    let axes = analysed(&linear);
    let [note] = axes.notes() else {
        panic!("{:?}", axes.notes())
    };
    assert_eq!(note.subject, "input `latent`");
    assert!(
        note.reason.contains("assumed to be batch,channels,frames,height,width"),
        "{note}"
    );
    assert!(
        note.advice.contains("--axes latent=batch,frames,channels,height,width"),
        "{note}"
    );
    for convolution in ["Conv", "com.microsoft:FusedConv"] {
        let nodes = [
            "Transpose latent -> first perm=0,1,4,2,3",
            "Reshape first images -> flat",
            &format!("{convolution} flat patch -> patched strides=2,2"),
        ];
        let model = model(vec![latent()], weights(), &nodes);
        let axes = analysed(&model);
        assert_eq!(axes.notes(), [], "{convolution}");
        assert_eq!(
            shape(&model, &axes, "latent"),
            "[batch, frames, height, width, channels]",
            "{convolution}"
        );
    }
    // An operator of the same name and another domain says nothing.
    let nodes = [
        "Transpose latent -> first perm=0,1,4,2,3",
        "custom:Conv first patch -> patched",
    ];
    assert_eq!(analysed(&model(vec![latent()], weights(), &nodes)).notes().len(), 1);
}

#[test]
fn text_beside_a_latent_that_was_given_stays_text() {
    let words = input("y", &[2, 1, 7, 24].map(At::Number), DataType::Float);
    let model = model(vec![latent(), words], vec![], &["Relu y -> after"]);
    let axes = told(&model);
    assert_eq!(shape(&model, &axes, "after"), "[batch, 1, text, channels]");
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
