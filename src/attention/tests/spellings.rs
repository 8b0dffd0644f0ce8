//! One attention in every spelling, in graphs made by hand.

use super::super::*;
use crate::axes::test_graph::{At, input, integers, model, weight};
use crate::axes::{Axes, InputLabels, Label};
use crate::graph::ModelGraph;
use crate::onnx::messages::DataType;

/// From the latent `[2, 8, 3, 4, 4]` to queries, keys and values of two heads.
pub(super) const PROJECTIONS: &[&str] = &[
    "Transpose latent -> last perm=0,2,3,4,1",
    "Reshape last rows -> stream",
    "MatMul stream square -> q",
    "MatMul stream square -> k",
    "MatMul stream square -> v",
    "Reshape q heads -> q4",
    "Reshape k heads -> k4",
    "Reshape v heads -> v4",
    "Transpose q4 -> qh perm=0,2,1,3",
    "Transpose k4 -> kh perm=0,2,1,3",
    "Transpose v4 -> vh perm=0,2,1,3",
    "Transpose k4 -> kt perm=0,2,3,1",
];

pub(super) const PLAIN: &[&str] = &["MatMul qh kt -> s", "Softmax s -> p", "MatMul p vh -> mixed"];

pub(super) const MERGE: &[&str] = &[
    "Transpose mixed -> mixed4 perm=0,2,1,3",
    "Reshape mixed4 rows -> merged",
];

pub(super) const LINEAR: &[&str] = &["MatMul merged square -> projected", "Add projected bias -> out"];

pub(super) const RESIDUAL: &[&str] = &["Add out stream -> next"];

pub(super) fn build(parts: &[&[&str]]) -> (ModelGraph, Sites) {
    let inputs = vec![
        input("latent", &[2, 8, 3, 4, 4].map(At::Number), DataType::Float),
        input("words", &[2, 5, 8].map(At::Number), DataType::Float),
        input("condition", &[1, 1, 8].map(At::Number), DataType::Float),
        input("mask", &[6, 1, 1, 16].map(At::Number), DataType::Float),
    ];
    let weights = vec![
        integers("rows", &[6, 16, 8]),
        integers("heads", &[6, 16, 2, 4]),
        integers("merged3", &[12, 16, 4]),
        integers("apart", &[6, 2, 16, 4]),
        integers("flat", &[96, 8]),
        integers("clip", &[2, 48, 8]),
        integers("end", &[-1]),
        integers("pieces", &[6, 10]),
        integers("seam", &[5, 48]),
        integers("zero", &[0]),
        integers("third", &[2]),
        integers("four", &[4]),
        integers("five", &[5]),
        integers("ones", &[0, 0, 0, 0, 0, 0, 1, 0]),
        weight("codes", &[8, 8]),
        integers("eight", &[8]),
        weight("narrow", &[16, 8]),
        weight("square", &[8, 8]),
        weight("triple", &[8, 24]),
        weight("down", &[24, 8]),
        weight("bias", &[8]),
        weight("scale", &[1]),
        weight("zeros", &[12, 16, 16]),
    ];
    let model = model(inputs, weights, &parts.concat());
    let mut labels = InputLabels::default();
    let mask = [Label::Other; 4];
    labels.inputs.insert("mask".into(), mask.to_vec());
    let condition = [Label::Other, Label::Other, Label::Channels];
    labels.inputs.insert("condition".into(), condition.to_vec());
    let latent = [
        Label::Batch,
        Label::Channels,
        Label::Frames,
        Label::Height,
        Label::Width,
    ];
    labels.inputs.insert("latent".into(), latent.to_vec());
    let axes = Axes::analyse(&model, &labels).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    (model, sites)
}

pub(super) fn expect_site(spelling: &str, parts: &[&[&str]]) {
    let (model, sites) = build(parts);
    assert_eq!(sites.notes, [], "{spelling}");
    let [site] = sites.sites.as_slice() else {
        panic!("{spelling}: {:?}", sites.sites)
    };
    assert_eq!(site.name, "spatial.0", "{spelling}");
    assert_eq!(model.graph.value(site.output.first().value).name(), "out", "{spelling}");
    assert_eq!(model.graph.value(site.streams[0]).name(), "stream", "{spelling}");
    assert_eq!(site.heads, Some(2), "{spelling}");
}

#[test]
fn cores_are_found_in_every_spelling() {
    let cores: &[(&str, &[&str])] = &[
        ("plain", PLAIN),
        (
            "scale on the queries",
            &[
                "Mul scale qh -> qs",
                "MatMul qs kt -> s",
                "Softmax s -> p",
                "MatMul p vh -> mixed",
            ],
        ),
        (
            "scale, mask and casts",
            &[
                "MatMul qh kt -> s0",
                "Div s0 scale -> s1",
                "Add mask s1 -> s2",
                "Cast s2 -> s3 to=1",
                "Softmax s3 -> p0",
                "Cast p0 -> p",
                "MatMul p vh -> mixed",
            ],
        ),
        (
            "mask by Where, and rows that are masked throughout",
            &[
                "MatMul qh kt -> s0",
                "Cast mask -> seen to=9",
                "Where seen s0 scale -> s",
                "Softmax s -> p0",
                "IsNaN p0 -> nan",
                "Where nan scale p0 -> p",
                "MatMul p vh -> mixed",
            ],
        ),
        (
            "softmax written out",
            &[
                "MatMul qh kt -> s",
                "ReduceMax s -> most axes=-1 keepdims=1",
                "Sub s most -> less",
                "Exp less -> e",
                "ReduceSum e end -> sum keepdims=1",
                "Div e sum -> p",
                "MatMul p vh -> mixed",
            ],
        ),
        (
            "Einsum",
            &[
                "Einsum qh kh -> s equation=bhqd,bhkd->bhqk",
                "Mul s scale -> s1",
                "Softmax s1 -> p axis=-1",
                "Einsum p vh -> mixed equation=bhqk,bhkd->bhqd",
            ],
        ),
        (
            "FusedMatMul",
            &[
                "com.microsoft:FusedMatMul qh kh -> s transB=1",
                "Softmax s -> p axis=3",
                "MatMul p vh -> mixed",
            ],
        ),
        (
            "heads in the batch, with zeros where a mask would stand",
            &[
                "Reshape qh merged3 -> q3",
                "Reshape kh merged3 -> k3",
                "Reshape vh merged3 -> v3",
                "Transpose k3 -> kt3 perm=0,2,1",
                "MatMul q3 kt3 -> s0",
                "Mul s0 scale -> s1",
                "Add s1 zeros -> s",
                "Softmax s -> p",
                "MatMul p v3 -> mixed3",
                "Reshape mixed3 apart -> mixed",
            ],
        ),
        ("Attention", &["Attention qh kh vh -> mixed"]),
    ];
    for (spelling, core) in cores {
        expect_site(spelling, &[PROJECTIONS, core, MERGE, LINEAR, RESIDUAL]);
    }
    let fused: &[&str] = &["com.microsoft:MultiHeadAttention q k v -> merged num_heads=2"];
    expect_site("MultiHeadAttention", &[PROJECTIONS, fused, LINEAR, RESIDUAL]);
}

#[test]
fn packed_projections_come_apart() {
    let packed: &[&str] = &[
        "Transpose latent -> last0 perm=0,2,3,4,1",
        "Reshape last0 rows -> stream",
        "MatMul stream triple -> qkv",
        "Split qkv -> q,k,v axis=2",
    ];
    expect_site("packed", &[packed, &PROJECTIONS[5..], PLAIN, MERGE, LINEAR, RESIDUAL]);
}

#[test]
fn branches_are_followed_in_every_spelling() {
    let gemm: &[&str] = &[
        "Reshape merged flat -> wide",
        "Gemm wide square bias -> product",
        "Reshape product rows -> out",
    ];
    expect_site(
        "linear layer as Reshape > Gemm > Reshape",
        &[PROJECTIONS, PLAIN, MERGE, gemm, RESIDUAL],
    );
    let skip: &[&str] = &["com.microsoft:SkipLayerNormalization out stream bias -> normed,_,_,next"];
    expect_site(
        "residual addition in the next normalization",
        &[PROJECTIONS, PLAIN, MERGE, LINEAR, skip],
    );
    let other_way: &[&str] = &["Add stream out -> next"];
    expect_site(
        "operands the other way round",
        &[PROJECTIONS, PLAIN, MERGE, LINEAR, other_way],
    );
    let scaled: &[&str] = &[
        "MatMul merged square -> projected",
        "Add bias projected -> sum",
        "Div sum scale -> out",
    ];
    expect_site("division by a constant", &[PROJECTIONS, PLAIN, MERGE, scaled, RESIDUAL]);
}

#[test]
fn a_gate_and_a_regrouping_stand_behind_the_modules_output() {
    let gated: &[&str] = &[
        "ReduceMean words -> gate axes=0,1,2 keepdims=1",
        "Reshape out heads -> regrouped",
        "Mul gate regrouped -> gated",
        "Reshape stream heads -> streamed",
        "Add gated streamed -> next",
    ];
    let (model, sites) = build(&[PROJECTIONS, PLAIN, MERGE, LINEAR, gated]);
    let [site] = sites.sites.as_slice() else {
        panic!("{:?}", sites.notes)
    };
    assert_eq!(model.graph.value(site.output.first().value).name(), "out");
    assert_eq!(
        model.graph.value(site.gated.as_ref().unwrap().first().value).name(),
        "gated"
    );
    assert_eq!(model.graph.value(site.streams[0]).name(), "streamed");
}

pub(super) fn expect_note(reason: &str, parts: &[&[&str]]) {
    only_note(&build(parts).1, reason);
}

/// There is no site, and one note with `reason`.
pub(super) fn only_note(sites: &Sites, reason: &str) {
    assert_eq!(sites.sites.len(), 0, "{reason}");
    let [note] = sites.notes.as_slice() else {
        panic!("{reason}: {:?}", sites.notes)
    };
    assert!(note.reason.contains(reason), "{note}");
    assert!(!note.advice.is_empty());
}

#[test]
fn what_is_no_site_is_noted_with_the_reason() {
    let unrelated: &[&str] = &[
        "Reshape words end -> w",
        "ReduceMean w -> one axes=0 keepdims=1",
        "Add out one -> next",
    ];
    expect_note("not computed from", &[PROJECTIONS, PLAIN, MERGE, LINEAR, unrelated]);
    let bare: &[&str] = &["Add merged stream -> next"];
    expect_note("no output projection", &[PROJECTIONS, PLAIN, MERGE, bare]);
    let lost: &[&str] = &["Softplus out -> next"];
    expect_note(
        "not understood as part of a residual branch",
        &[PROJECTIONS, PLAIN, MERGE, LINEAR, lost],
    );
    expect_note("nothing uses its result", &[PROJECTIONS, PLAIN, MERGE, LINEAR]);
    let two: &[&str] = &["Relu out -> a", "Sigmoid out -> b"];
    expect_note("used in several places", &[PROJECTIONS, PLAIN, MERGE, LINEAR, two]);
    let weights: &[&str] = &["MatMul stream square -> s", "Softmax s -> p", "MatMul p square -> z"];
    expect_note("no product of queries and keys", &[&PROJECTIONS[..2], weights]);
    let across: &[&str] = &["MatMul qh kt -> s", "Softmax s -> p axis=1", "MatMul p vh -> mixed"];
    expect_note(
        "not over the last axis",
        &[PROJECTIONS, across, MERGE, LINEAR, RESIDUAL],
    );
    let quantized: &[&str] = &["com.microsoft:PackedAttention stream square -> merged"];
    expect_note("not understood yet", &[&PROJECTIONS[..2], quantized]);
}

#[test]
fn text_keys_make_cross_attention() {
    let lines: &[&str] = &[
        "Transpose latent -> last0 perm=0,2,3,4,1",
        "Reshape last0 clip -> stream",
        "MatMul stream square -> q",
        "MatMul words square -> k",
        "MatMul words square -> v",
        "Transpose k -> kt perm=0,2,1",
        "MatMul q kt -> s",
        "Softmax s -> p",
        "MatMul p v -> merged",
    ];
    let (_, sites) = build(&[lines, LINEAR, RESIDUAL]);
    assert_eq!(sites.sites.len(), 1, "{:?}", sites.notes);
    assert_eq!(sites.sites[0].kind, Kind::Cross);
}

#[test]
fn two_softmaxes_of_one_module_are_one_site() {
    let multiplied: &[&str] = &[
        "MatMul qh kt -> s",
        "Softmax s -> p1",
        "MatMul kh kt -> s2",
        "Softmax s2 -> p2",
        "Mul p1 p2 -> p",
        "MatMul p vh -> mixed",
    ];
    let (_, sites) = build(&[PROJECTIONS, multiplied, MERGE, LINEAR, RESIDUAL]);
    assert_eq!(
        sites.sites.iter().map(|site| site.name.as_str()).collect::<Vec<_>>(),
        ["spatial.0"]
    );
    let [note] = sites.notes.as_slice() else {
        panic!("{:?}", sites.notes)
    };
    assert!(note.reason.contains("output in common with Softmax"), "{note}");
}

#[test]
fn sites_stand_in_the_order_of_their_cuts() {
    // The softmax of the first cut stands behind that of the second.
    let late: &[&str] = &[
        "MatMul qh kt -> s",
        "Softmax s -> p",
        "MatMul p vh -> mixed",
        "Transpose mixed -> mixed4 perm=0,2,1,3",
        "Reshape mixed4 rows -> merged",
    ];
    let early: &[&str] = &[
        "MatMul kh kt -> earlys",
        "Softmax earlys -> earlyp",
        "MatMul earlyp kh -> earlymixed",
        "Transpose earlymixed -> earlymixed4 perm=0,2,1,3",
        "Reshape earlymixed4 rows -> earlymerged",
        "MatMul earlymerged square -> earlyout",
        "Add earlyout stream -> earlynext",
    ];
    let (model, sites) = build(&[PROJECTIONS, late, early, LINEAR, RESIDUAL]);
    let named = |site: &Site| {
        (
            site.name.clone(),
            model.graph.value(site.output.first().value).name().to_owned(),
        )
    };
    let found: Vec<(String, String)> = sites.sites.iter().map(named).collect();
    let expected =
        [("spatial.0", "earlyout"), ("spatial.1", "out")].map(|(name, cut)| (name.to_owned(), cut.to_owned()));
    assert_eq!(found, expected, "{:?}", sites.notes);
}

#[test]
fn operators_that_hide_the_axes_are_named() {
    let hidden: &[&str] = &[
        "custom:Mystery qh -> odd",
        "Relu odd -> odder",
        "MatMul odder kt -> s",
        "Softmax s -> p",
        "MatMul p vh -> mixed",
    ];
    let (_, sites) = build(&[PROJECTIONS, hidden, MERGE, LINEAR, RESIDUAL]);
    let [note] = sites.notes.as_slice() else {
        panic!("{:?}", sites.notes)
    };
    assert!(
        note.reason.ends_with("whose axes are not understood: custom:Mystery"),
        "{note}"
    );
    assert!(note.advice.contains("pab-patch inspect --json"), "{note}");
}
