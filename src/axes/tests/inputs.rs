//! What the axes of the inputs are taken for.

use super::super::Label::{Batch, Channels, Frames, Height, Text, Width};
use super::super::test_graph::{At, input, integers, model, weight};
use super::super::*;
use super::{analysed, latent, shape, text, told};

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
    assert!(note.advice.ends_with("inputs: { odd: [batch, text] }"), "{note}");
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
    let none = super::super::test_graph::model(
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
    // The nearest input that has one of the two labels gets the other one.
    let advice = &axes.notes()[1].advice;
    assert!(
        advice.ends_with("inputs: { pose: [batch, frames, channels] }"),
        "{advice}"
    );
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
    for line in [
        "inputs: { latent: [batch, channels, frames, height, width] }",
        "inputs: { latent: [batch, frames, channels, height, width] }",
    ] {
        assert!(note.advice.contains(line), "{note}");
    }
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
