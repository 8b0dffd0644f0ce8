//! The ways out of a module: several streams, parts that meet again, another branch beside it.

use super::super::*;
use super::spellings::{LINEAR, MERGE, PLAIN, PROJECTIONS, RESIDUAL, build, expect_note, expect_site};

#[test]
fn parts_that_are_put_together_again_are_one_exit() {
    // Hunyuan's single blocks part the streams behind the core and join them before the projection.
    let parted: &[&str] = &[
        "Split merged pieces -> one,two axis=1",
        "Concat one two -> both axis=1",
        "MatMul both square -> projected",
        "Add projected bias -> out",
    ];
    expect_site("parted and joined", &[PROJECTIONS, PLAIN, MERGE, parted, RESIDUAL]);
    let projected: &[&str] = &[
        "Split merged pieces -> one,two axis=1",
        "MatMul one square -> p1",
        "MatMul two square -> p2",
        "Concat p1 p2 -> out axis=1",
    ];
    expect_site("projected apart", &[PROJECTIONS, PLAIN, MERGE, projected, RESIDUAL]);
    let half: &[&str] = &[
        "Split merged pieces -> one,two axis=1",
        "Concat one text -> both axis=1",
    ];
    let text: &[&str] = &["Slice stream zero eight -> text"];
    expect_note(
        "puts parts of it behind something else",
        &[PROJECTIONS, text, PLAIN, MERGE, half],
    );
}

#[test]
fn parts_with_a_stream_each_have_a_cut_each() {
    let lines: &[&str] = &[
        "Transpose latent -> last0 perm=0,2,3,4,1",
        "Reshape last0 clip -> stream",
        "Concat words stream -> joined axis=1",
        "MatMul joined square -> q",
        "MatMul joined square -> k",
        "MatMul joined square -> v",
        "Transpose k -> kt perm=0,2,1",
        "MatMul q kt -> s",
        "Softmax s -> p",
        "MatMul p v -> merged",
        "Split merged seam -> m1,m2 axis=1",
        "MatMul m1 square -> p1",
        "MatMul m2 square -> p2",
        "Mul p2 condition -> g2",
        "Add words p1 -> n1",
        "Add stream g2 -> n2",
    ];
    let (model, sites) = build(&[lines]);
    let [site] = sites.sites.as_slice() else {
        panic!("{:?}", sites.notes)
    };
    let names = |cuts: &Cuts| -> Vec<String> {
        cuts.iter()
            .map(|cut| format!("{} {}", cut.part, model.graph.value(cut.value).name()))
            .collect()
    };
    assert_eq!(site.name, "joint.0");
    assert_eq!(names(&site.output), ["latent p2", "text p1"]);
    // One exit is gated, so the gated cut holds what is added at both.
    assert_eq!(names(site.gated.as_ref().unwrap()), ["latent g2", "text p1"]);
    assert_eq!(site.streams.len(), 2);
}

#[test]
fn channels_beside_those_of_a_feed_forward_end_the_attention() {
    let beside: &[&str] = &[
        "MatMul stream square -> h",
        "Sigmoid h -> a",
        "Concat merged a -> both axis=2",
        "MatMul both narrow -> projected",
        "Mul projected condition -> gated",
        "Add stream gated -> next",
    ];
    let (model, sites) = build(&[PROJECTIONS, PLAIN, MERGE, beside]);
    let [site] = sites.sites.as_slice() else {
        panic!("{:?}", sites.notes)
    };
    assert_eq!(model.graph.value(site.output.first().value).name(), "merged");
    assert_eq!((site.output.count(), site.gated.as_ref()), (1, None));
    assert_eq!(sites.notes, []);
}

#[test]
fn two_attentions_of_one_place_are_two_sites() {
    // As in SD3.5: the second one is added to the sum of stream and first, and reads the stream.
    let second: Vec<String> = [&PROJECTIONS[2..], PLAIN, MERGE, LINEAR]
        .concat()
        .iter()
        .map(|line| {
            let own = |word: &str| match word {
                "stream" | "square" | "heads" | "rows" | "bias" | "->" => word.to_owned(),
                word if word.contains('=') || word.starts_with(char::is_uppercase) => word.to_owned(),
                word => format!("{word}.second"),
            };
            line.split(' ').map(own).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let second: Vec<&str> = second.iter().map(String::as_str).collect();
    let add: &[&str] = &["Add next out.second -> last2"];
    let (_, sites) = build(&[PROJECTIONS, PLAIN, MERGE, LINEAR, RESIDUAL, &second, add]);
    let names: Vec<&str> = sites.sites.iter().map(|site| site.name.as_str()).collect();
    assert_eq!(names, ["spatial.0", "spatial.1"], "{:?}", sites.notes);
}
