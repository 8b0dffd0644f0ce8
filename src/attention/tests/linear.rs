//! Linear attention, in graphs made by hand.

use super::super::*;
use super::spellings::{LINEAR, MERGE, PROJECTIONS, RESIDUAL, build, expect_site, only_note};

#[test]
fn keys_and_values_are_multiplied_first() {
    let spellings: &[(&str, &[&str])] = &[
        (
            "ReLU kernel",
            &[
                "Relu qh -> qr",
                "Relu kt -> kr",
                "MatMul kr vh -> state",
                "MatMul qr state -> mixed",
            ],
        ),
        (
            "a scale on the state, a normalizer of its own",
            &[
                "Relu qh -> qr",
                "Relu kt -> kr",
                "MatMul kr vh -> state0",
                "Mul scale state0 -> state",
                "MatMul qr state -> weighed",
                "ReduceSum kr end -> keys",
                "MatMul qr keys -> norm",
                "Div weighed norm -> mixed",
            ],
        ),
        (
            "the other way round, as Einsum",
            &[
                "Relu qh -> qr",
                "Relu kh -> kr",
                "Einsum kr vh -> state equation=bhnd,bhne->bhde",
                "Einsum qr state -> mixed equation=bhnd,bhde->bhne",
            ],
        ),
    ];
    for (spelling, core) in spellings {
        expect_site(spelling, &[PROJECTIONS, core, MERGE, LINEAR, RESIDUAL]);
    }
}

#[test]
fn a_row_of_ones_behind_the_values_comes_apart_again() {
    let core: &[&str] = &[
        "Relu qh -> qr",
        "Transpose qr -> qt perm=0,1,3,2",
        "Relu kh -> kr",
        "Transpose vh -> vt perm=0,1,3,2",
        "Pad vt ones -> v1",
        "MatMul v1 kr -> state",
        "MatMul state qt -> both",
        "Slice both zero four third -> weighed",
        "Slice both four five third -> sum",
        "Add sum scale -> safe",
        "Div weighed safe -> turned",
        "Transpose turned -> mixed perm=0,1,3,2",
    ];
    expect_site("Sana", &[PROJECTIONS, core, MERGE, LINEAR, RESIDUAL]);
}

#[test]
fn a_state_that_nobody_asks_is_no_core() {
    let lost: &[&str] = &["MatMul kt vh -> state", "Softplus state -> lost"];
    let (_, sites) = build(&[PROJECTIONS, lost]);
    assert!(sites.sites.is_empty() && sites.notes.is_empty(), "{:?}", sites.notes);
    // Attention over channels: its scores count no tokens, and neither do its keys.
    let channels: &[&str] = &["MatMul kt vh -> s", "Softmax s -> p", "MatMul p kt -> mixed"];
    let (_, sites) = build(&[PROJECTIONS, channels]);
    only_note(&sites, "its key axis mixes channels");
}

#[test]
fn text_and_latent_that_ask_the_text_are_cross_attention() {
    let lines: &[&str] = &[
        "Transpose latent -> last perm=0,2,3,4,1",
        "Reshape last clip -> video",
        "Concat words video -> stream axis=1",
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
