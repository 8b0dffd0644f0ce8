//! Branches that are added up before one residual addition, and normalizations that are written out.

use super::super::*;
use super::spellings::{LINEAR, MERGE, PLAIN, PROJECTIONS, build};
use crate::graph::ModelGraph;

const FEED_FORWARD: &[&str] = &["MatMul stream triple -> h", "Gelu h -> a", "MatMul a down -> fed"];

/// The name of each site, and those of its cut and its stream.
fn sites(model: &ModelGraph, sites: &Sites) -> Vec<(String, String, String)> {
    let name = |value| model.graph.value(value).name().to_owned();
    let each = sites.sites.iter().map(|site| {
        (
            site.name.clone(),
            name(site.output.first().value),
            name(site.streams[0]),
        )
    });
    each.collect()
}

fn expect_both(spelling: &str, stream: &str, end: &[&str]) {
    let (model, found) = build(&[PROJECTIONS, PLAIN, MERGE, LINEAR, FEED_FORWARD, end]);
    assert_eq!(found.notes, [], "{spelling}");
    let expected = [("spatial.0", "out", "stream"), ("mlp.0", "fed", stream)];
    let mut found = sites(&model, &found);
    found.sort_by_key(|(name, _, _)| std::cmp::Reverse(name.clone()));
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(found, expected, "{spelling}");
}

#[test]
fn attention_and_feed_forward_side_by_side_are_two_sites() {
    expect_both(
        "added up",
        "stream",
        &["Add out fed -> both", "Add stream both -> next"],
    );
    expect_both(
        "the other way round",
        "stream",
        &["Add fed out -> both", "Add both stream -> next"],
    );
    expect_both(
        "one after the other",
        "half",
        &["Add stream out -> half", "Add half fed -> next"],
    );
    expect_both(
        "a gate for both",
        "stream",
        &[
            "Add out fed -> both",
            "Mul condition both -> gated",
            "Add stream gated -> next",
        ],
    );
}

#[test]
fn branches_that_are_all_computed_before_the_first_is_added_are_told_from_the_stream() {
    let end: &[&str] = &[
        "MatMul stream triple -> h2",
        "Gelu h2 -> a2",
        "MatMul a2 down -> fed2",
        "Add stream fed -> half",
        "Add half fed2 -> more",
        "Add more out -> next",
    ];
    let (model, found) = build(&[PROJECTIONS, PLAIN, MERGE, LINEAR, FEED_FORWARD, end]);
    assert_eq!(found.notes, []);
    let mut found = sites(&model, &found);
    found.sort();
    let expected = [
        ("mlp.0", "fed", "stream"),
        ("mlp.1", "fed2", "half"),
        ("spatial.0", "out", "more"),
    ];
    assert_eq!(
        found,
        expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
    );
}

#[test]
fn something_else_beside_an_attention_is_noted() {
    let other: &[&str] = &[
        "MatMul stream square -> fed",
        "Add out fed -> both",
        "Add stream both -> next",
    ];
    let (_, found) = build(&[PROJECTIONS, PLAIN, MERGE, LINEAR, other]);
    assert_eq!(found.sites.len(), 1);
    let [note] = found.notes.as_slice() else {
        panic!("{:?}", found.notes)
    };
    assert!(note.reason.contains("it has 1 projections"), "{note}");
}

#[test]
fn a_normalization_that_is_written_out_is_a_gate() {
    let root: &[&str] = &[
        "Pow out third -> squares",
        "ReduceMean squares -> mean axes=-1 keepdims=1",
        "Add mean scale -> safe",
        "Sqrt safe -> root",
        "Reciprocal root -> factor",
        "Mul out factor -> normed",
        "Mul normed bias -> added",
        "Add stream added -> next",
    ];
    let deviation: &[&str] = &[
        "ReduceMean out -> mean axes=-1 keepdims=1",
        "Sub out mean -> moved",
        "Mul moved moved -> squares",
        "ReduceMean squares -> variance axes=-1 keepdims=1",
        "Add variance scale -> safe",
        "Sqrt safe -> root",
        "Div moved root -> added",
        "Add stream added -> next",
    ];
    for end in [root, deviation] {
        let (model, found) = build(&[PROJECTIONS, PLAIN, MERGE, LINEAR, end]);
        assert_eq!(found.notes, []);
        let [site] = found.sites.as_slice() else {
            panic!("{:?}", found.sites)
        };
        let name = |cuts: &Cuts| model.graph.value(cuts.first().value).name().to_owned();
        assert_eq!(name(&site.output), "out");
        assert_eq!(site.gated.as_ref().map(name).as_deref(), Some("added"));
    }
    // A mean of something else is none of its own.
    let foreign: &[&str] = &[
        "ReduceMean stream -> mean axes=-1 keepdims=1",
        "Mul out mean -> scaled",
        "Sigmoid out -> part",
        "Mul scaled part -> added",
        "Add stream added -> next",
    ];
    let (_, found) = build(&[PROJECTIONS, PLAIN, MERGE, LINEAR, foreign]);
    assert_eq!(found.sites.len(), 0);
    assert!(found.notes[0].reason.contains("used in several places"));
}
