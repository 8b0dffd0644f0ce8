//! One feed-forward in every spelling, and residual branches that are none, in graphs made by hand.

use super::super::*;
use super::spellings::only_note;
use crate::axes::test_graph::{At, input, integers, model, weight};
use crate::axes::{Axes, InputLabels, Label};
use crate::graph::ModelGraph;
use crate::onnx::messages::DataType;

const STREAM: &[&str] = &["Transpose latent -> last perm=0,2,3,4,1", "Reshape last rows -> stream"];

fn build(parts: &[&[&str]]) -> (ModelGraph, Sites) {
    let inputs = vec![
        input("latent", &[2, 8, 3, 4, 4].map(At::Number), DataType::Float),
        input("condition", &[1, 1, 8].map(At::Number), DataType::Float),
    ];
    let weights = vec![
        integers("rows", &[6, 16, 8]),
        integers("flat", &[96, 8]),
        integers("halves", &[16, 16]),
        integers("plane", &[6, 8, 4, 4]),
        integers("planes", &[6, 32, 4, 4]),
        integers("tokens", &[6, 8, 16]),
        weight("square", &[8, 8]),
        weight("up", &[8, 32]),
        weight("down", &[32, 8]),
        weight("half", &[16, 8]),
        weight("mix", &[16, 16]),
        weight("wide", &[32]),
        weight("bias", &[8]),
        weight("scale", &[1]),
        weight("pointwise", &[32, 8, 1, 1]),
        weight("depthwise", &[32, 1, 3, 3]),
        weight("narrow", &[8, 32, 1, 1]),
        weight("full", &[8, 8, 3, 3]),
    ];
    let model = model(inputs, weights, &parts.concat());
    let mut labels = InputLabels::default();
    let latent = [
        Label::Batch,
        Label::Channels,
        Label::Frames,
        Label::Height,
        Label::Width,
    ];
    labels.inputs.insert("latent".into(), latent.to_vec());
    labels
        .inputs
        .insert("condition".into(), vec![Label::Other, Label::Other, Label::Channels]);
    let axes = Axes::analyse(&model, &labels).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    (model, sites)
}

fn expect_site(spelling: &str, parts: &[&[&str]], output: &str, gated: Option<&str>) {
    let (model, sites) = build(parts);
    assert_eq!(sites.notes, [], "{spelling}");
    let [site] = sites.sites.as_slice() else {
        panic!("{spelling}: {:?}", sites.sites)
    };
    let name = |cuts: &Cuts| model.graph.value(cuts.first().value).name().to_owned();
    assert_eq!(site.name, "mlp.0", "{spelling}");
    assert_eq!(name(&site.output), output, "{spelling}");
    assert_eq!(site.gated.as_ref().map(name).as_deref(), gated, "{spelling}");
    assert_eq!(model.graph.value(site.streams[0]).name(), "stream", "{spelling}");
}

#[test]
fn every_activation_makes_a_feed_forward() {
    let activations: &[(&str, &[&str])] = &[
        ("relu", &["Relu h -> a"]),
        ("gelu", &["Gelu h -> a"]),
        (
            "gelu by erf",
            &[
                "Div h scale -> d",
                "Erf d -> e",
                "Add e scale -> o",
                "Mul h o -> m",
                "Mul m scale -> a",
            ],
        ),
        (
            "gelu by tanh, with a sum of its own",
            &[
                "Mul h h -> q",
                "Mul q h -> c",
                "Mul c scale -> cs",
                "Add h cs -> inner",
                "Tanh inner -> t",
                "Add t scale -> o",
                "Mul h o -> a",
            ],
        ),
        (
            "quick gelu, silu",
            &["Mul h scale -> hs", "Sigmoid hs -> g", "Mul h g -> a"],
        ),
        ("fused with the bias", &["com.microsoft:BiasGelu h wide -> a"]),
        ("fast gelu", &["com.microsoft:FastGelu h wide -> a"]),
        ("squared relu", &["Relu h -> r", "Mul r r -> a"]),
    ];
    let before: &[&str] = &[
        "LayerNormalization stream bias bias -> n",
        "MatMul n up -> p",
        "Add p wide -> h",
    ];
    let behind: &[&str] = &["MatMul a down -> q2", "Add q2 bias -> out", "Add out stream -> next"];
    for (name, activation) in activations {
        expect_site(name, &[STREAM, before, activation, behind], "out", None);
    }
}

#[test]
fn gated_units_are_feed_forwards() {
    let packed: &[&str] = &[
        "MatMul stream up -> p",
        "Split p halves -> x,g axis=2",
        "Gelu g -> a",
        "Mul x a -> u",
        "MatMul u half -> out",
        "Add stream out -> next",
    ];
    expect_site("GEGLU, packed", &[STREAM, packed], "out", None);
    let separate: &[&str] = &[
        "MatMul stream up -> x",
        "MatMul stream up -> g",
        "Sigmoid g -> s",
        "Mul g s -> a",
        "Mul x a -> u",
        "MatMul u down -> out",
        "Add stream out -> next",
    ];
    expect_site("SwiGLU, separate", &[STREAM, separate], "out", None);
}

#[test]
fn gates_norms_and_layouts_stand_behind_the_output() {
    let body: &[&str] = &[
        "MatMul stream up -> h",
        "Relu h -> a",
        "MatMul a down -> q",
        "Add q bias -> out",
    ];
    let gate: &[&str] = &["Mul condition out -> gated", "Add stream gated -> next"];
    expect_site("adaLN gate", &[STREAM, body, gate], "out", Some("gated"));
    let norm: &[&str] = &[
        "LayerNormalization out bias bias -> normed",
        "Add stream normed -> next",
    ];
    expect_site("norm behind", &[STREAM, body, norm], "out", Some("normed"));
    let flat: &[&str] = &[
        "Reshape stream flat -> f",
        "Gemm f up wide -> h",
        "Relu h -> a",
        "Gemm a down bias -> g",
        "Reshape g rows -> out",
        "Add stream out -> next",
    ];
    expect_site("flattened by an optimizer", &[STREAM, flat], "out", None);
    let fused: &[&str] = &["com.microsoft:SkipLayerNormalization out stream bias bias -> n,_,_,next"];
    expect_site("norm fused with the addition", &[STREAM, body, fused], "out", None);
}

#[test]
fn a_feed_forward_behind_a_fused_addition_is_found() {
    let first: &[&str] = &[
        "MatMul stream up -> h",
        "Relu h -> a",
        "MatMul a down -> out",
        "com.microsoft:SkipLayerNormalization out stream bias bias -> n,_,_,next",
        "MatMul n up -> h2",
        "Relu h2 -> a2",
        "MatMul a2 down -> out2",
        "Add next out2 -> last2",
    ];
    let (_, sites) = build(&[STREAM, first]);
    let names: Vec<&str> = sites.sites.iter().map(|site| site.name.as_str()).collect();
    assert_eq!(names, ["mlp.0", "mlp.1"], "{:?}", sites.notes);
}

#[test]
fn a_feed_forward_within_a_longer_residual_is_found() {
    // The sum of stream and attention is normalized, and the stream goes around both (AuraFlow).
    let nested: &[&str] = &[
        "MatMul stream up -> h",
        "Relu h -> a",
        "MatMul a down -> first",
        "Add stream first -> sum",
        "LayerNormalization sum bias bias -> n",
        "MatMul n up -> h2",
        "Relu h2 -> a2",
        "MatMul a2 down -> second",
        "Add stream second -> next",
    ];
    let (model, sites) = build(&[STREAM, nested]);
    let cuts: Vec<&str> = sites
        .sites
        .iter()
        .map(|site| model.graph.value(site.output.first().value).name())
        .collect();
    assert_eq!(cuts, ["first", "second"], "{:?}", sites.notes);
    assert_eq!(sites.notes, []);
    // Around whole blocks there is nothing else to find.
    let around: &[&str] = &["Add stream next -> last2"];
    let (_, sites) = build(&[STREAM, nested, around]);
    assert_eq!((sites.sites.len(), sites.notes.len()), (2, 0), "{:?}", sites.notes);
}

#[test]
fn mixtures_and_pointwise_convolutions_are_feed_forwards() {
    let experts: &[&str] = &[
        "MatMul stream square -> r",
        "Softmax r -> weights",
        "ReduceMax weights -> w axes=-1 keepdims=1",
        "MatMul stream up -> h1",
        "Relu h1 -> a1",
        "MatMul a1 down -> e1",
        "Mul e1 w -> m1",
        "MatMul stream up -> h2",
        "Relu h2 -> a2",
        "MatMul a2 down -> e2",
        "Mul e2 w -> m2",
        "Add m1 m2 -> out",
        "Add stream out -> next",
    ];
    let (model, sites) = build(&[STREAM, experts]);
    // The softmax of the router has its note.
    assert_eq!(sites.notes.len(), 1, "{:?}", sites.notes);
    let cut = sites.get("mlp.0").unwrap().output.first().value;
    assert_eq!(model.graph.value(cut).name(), "out");
    let convolutions: &[&str] = &[
        "Transpose stream -> turned perm=0,2,1",
        "Reshape turned plane -> image",
        "Conv image pointwise -> c1",
        "Conv c1 depthwise -> c2 group=32 pads=1,1,1,1",
        "Relu c2 -> a",
        "Conv a narrow -> c3",
        "Reshape c3 tokens -> t",
        "Transpose t -> back perm=0,2,1",
        "Add stream back -> next",
    ];
    expect_site("inverted bottleneck", &[STREAM, convolutions], "c3", None);
    // Sana Video adds a convolution over frames to it.
    let over_frames: &[&str] = &[
        "Transpose stream -> turned perm=0,2,1",
        "Reshape turned plane -> image",
        "Conv image pointwise -> c1",
        "Relu c1 -> a",
        "Conv a narrow -> c2",
        "Conv c2 full -> c3 pads=1,1,1,1",
        "Add c2 c3 -> both",
        "Reshape both tokens -> t",
        "Transpose t -> back perm=0,2,1",
        "Add stream back -> next",
    ];
    expect_site("with a convolution at the end", &[STREAM, over_frames], "both", None);
}

fn expect_note(reason: &str, parts: &[&[&str]]) {
    only_note(&build(parts).1, reason);
}

#[test]
fn residual_branches_that_are_no_feed_forwards_are_noted() {
    let one: &[&str] = &["MatMul stream square -> p", "Relu p -> out", "Add stream out -> next"];
    expect_note("1 projections, but not two", &[STREAM, one]);
    let linear: &[&str] = &[
        "MatMul stream up -> p",
        "MatMul p down -> out",
        "Add stream out -> next",
    ];
    expect_note("2 projections, but not two around a nonlinearity", &[STREAM, linear]);
    let mixer: &[&str] = &[
        "Transpose stream -> turned perm=0,2,1",
        "MatMul turned mix -> h",
        "Relu h -> a",
        "MatMul a mix -> m",
        "Transpose m -> out perm=0,2,1",
        "Add stream out -> next",
    ];
    expect_note("sums over height, width", &[STREAM, mixer]);
    let pooled: &[&str] = &[
        "MatMul stream up -> h",
        "Relu h -> a",
        "ReduceMean a -> m axes=1 keepdims=1",
        "Mul a m -> e",
        "MatMul e down -> out",
        "Add stream out -> next",
    ];
    expect_note("ReduceMean sums over height, width", &[STREAM, pooled]);
    let convolution: &[&str] = &[
        "Transpose stream -> turned perm=0,2,1",
        "Reshape turned plane -> image",
        "Conv image full -> c1 pads=1,1,1,1",
        "Relu c1 -> a",
        "Conv a full -> c2 pads=1,1,1,1",
        "Add image c2 -> next",
    ];
    expect_note("mixes neighbours", &[STREAM, convolution]);
    let conditioning: &[&str] = &[
        "MatMul condition up -> h",
        "Relu h -> a",
        "MatMul a down -> out",
        "Add condition out -> next",
        "Mul last scale -> unused",
    ];
    expect_note("neither latent nor text", &[&STREAM[..1], conditioning]);
}

#[test]
fn sums_that_are_no_residual_additions_are_passed_over() {
    let sums: &[&str] = &[
        // Two projections of one value: a low-rank adapter, for example.
        "MatMul stream square -> a",
        "MatMul stream up -> b0",
        "MatMul b0 down -> b",
        "Add a b -> sum",
        // Modulation.
        "Mul sum condition -> scaled",
        "Add scaled condition -> shifted",
    ];
    let (_, sites) = build(&[STREAM, sums]);
    assert_eq!(sites.sites.len(), 0);
    assert_eq!(sites.notes, []);
}
