//! Spans of blocks and guidance.

use super::super::{SiteKind, Wide, WideKind, select_beside, switch_wide};
use super::*;
use crate::attention::SpanError;
use crate::graph::NewNode;
use crate::rewrite::{CacheRole, GuidanceError};

const FLUX: &str = "flux/flux.dyn23.dynamic.onnx";

fn widely_patched(model: ModelGraph, rules: &str) -> Result<(ModelGraph, Plan), RewriteError> {
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    let rules = Rules::parse("test.yaml", rules).unwrap();
    let wide = Wide::select(&model, &axes, &sites, &rules)?;
    let choices = select_beside(&sites, &rules, None, &wide)?;
    let result = switch_wide(model, &choices, &wide, &rules, &super::super::SwitchOptions::default())?;
    Ok((result.model, result.plan))
}

fn rules(list: &str) -> String {
    format!("{{ version: 1, rules: [{list}] }}")
}

/// Branches in full but for the modules' own nodes, which a snapshot of counts has.
fn shown_with_ends(model: &ModelGraph) -> String {
    let mut text = shown(model);
    for (_, node) in model.graph.nodes().filter(|(_, node)| node.is("If")) {
        for branch in ["then_branch", "else_branch"] {
            let body = node.body(branch).unwrap();
            writeln!(text, "{} {branch}", node.name()).unwrap();
            for (_, inner) in body.nodes().filter(|(_, inner)| inner.name().starts_with("pab.")) {
                let name = |value: Option<crate::graph::ValueId>| value.map_or("", |value| body.value(value).name());
                let inputs: Vec<_> = inner.inputs().map(name).collect();
                let (output, inputs) = (name(inner.output(0)), inputs.join(", "));
                writeln!(text, "  {output} = {}({inputs})", inner.operator()).unwrap();
            }
        }
    }
    text
}

#[test]
fn the_switch_form_of_spans() {
    let spans = "{ name: b, match: { blocks: [1, 2] }, residual: { range: 2 } }";
    let (model, plan) = widely_patched(load(FLUX), &rules(spans)).unwrap();
    insta::assert_snapshot!("span", shown_with_ends(&model));
    assert_eq!(Plan::parse(&plan.to_json().unwrap()).unwrap(), plan);
    let site = &plan.sites[0];
    assert_eq!(
        (site.kind, site.block, site.last_block),
        (SiteKind::Wide(WideKind::Span), 1, Some(2))
    );
    assert!(
        site.caches
            .iter()
            .all(|cache| cache.in_place && cache.role == CacheRole::Residual)
    );
    validate(&model.into_model().unwrap().proto).unwrap();
    // One `If` for each run of blocks, beside the sites of other rules.
    let apart = "{ name: b, match: { blocks: [0, 2..] }, residual: { range: 2 } }, \
                 { name: joint, match: { kind: joint, blocks: 1 }, broadcast: { range: 3 } }";
    let (model, plan) = widely_patched(load(FLUX), &rules(apart)).unwrap();
    let names: Vec<_> = plan.sites.iter().map(|site| (site.name.as_str(), site.rule)).collect();
    assert_eq!(names, [("span.b.0", 0), ("span.b.1", 0), ("joint.1", 1)]);
    let caches: Vec<_> = plan.caches().map(|(_, cache)| cache.input.as_str()).collect();
    assert_eq!(
        caches,
        [
            "pab.cache.span.b.0.latent",
            "pab.cache.span.b.0.text",
            "pab.cache.span.b.1",
            "pab.cache.joint.1.latent",
            "pab.cache.joint.1.text"
        ]
    );
    validate(&model.into_model().unwrap().proto).unwrap();
}

#[test]
fn the_switch_form_of_guidance() {
    let (model, plan) = widely_patched(load(FLUX), &rules("{ name: g, guidance: { range: 2 } }")).unwrap();
    insta::assert_snapshot!("guidance", shown_with_ends(&model));
    assert_eq!(plan.sites[0].kind, SiteKind::Wide(WideKind::Guidance));
    assert_eq!(Plan::parse(&plan.to_json().unwrap()).unwrap(), plan);
    validate(&model.into_model().unwrap().proto).unwrap();
}

#[test]
fn static_graphs_of_spans_and_guidance_have_no_switch() {
    for list in [
        "{ name: b, residual: { range: 2 } }",
        "{ name: g, guidance: { range: 2 } }",
    ] {
        for flag in [false, true] {
            let (model, plan) = widely_patched(load(FLUX), &rules(list)).unwrap();
            let model = without(model, &plan, &[flag]).unwrap();
            assert!(model.graph.nodes().all(|(_, node)| !node.is("If")), "{list} {flag}");
            let inputs = model.graph.inputs().map(|value| model.graph.value(value).name());
            let caches = inputs.filter(|name| name.starts_with("pab."));
            assert_eq!(
                caches.count(),
                usize::from(flag) * plan.caches().count(),
                "{list} {flag}"
            );
            validate(&model.into_model().unwrap().proto).unwrap();
        }
    }
}

/// A stream that is an output of the model keeps the output's name.
#[test]
fn an_output_keeps_its_name() {
    let mut model = load("dit/dit.ts17.static.onnx");
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let span = Sites::find(&model, &axes).unwrap().span(&model, &axes, 0..=0).unwrap();
    let exit = span.streams[0].exit.value;
    let name = model.graph.value(exit).name().to_owned();
    model.graph.add_output(
        exit,
        super::super::build::described("", crate::onnx::messages::DataType::Float, &[]),
    );
    let (model, _) = widely_patched(
        model,
        &rules("{ name: b, match: { blocks: 0 }, residual: { range: 2 } }"),
    )
    .unwrap();
    let outputs: Vec<_> = model
        .graph
        .outputs()
        .map(|value| model.graph.value(value).name())
        .collect();
    assert_eq!(outputs[1], name);
    validate(&model.into_model().unwrap().proto).unwrap();
}

/// As in a U-shaped model: what one block computes is added again behind another.
#[test]
fn skip_connections_that_leave_a_span_are_refused() {
    let file = "pixart/pixart.ts17.static.onnx";
    let mut model = load(file);
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    let within = sites.sites[0].additions[0].after.unwrap();
    let behind = sites.span(&model, &axes, 1..=1).unwrap().streams[0].exit.value;
    let skip = model.graph.add_node(NewNode {
        operator: "Add".to_owned(),
        name: "skip".to_owned(),
        inputs: vec![None, Some(within)],
        outputs: vec!["skipped".to_owned()],
        ..NewNode::default()
    });
    let skip = skip.unwrap();
    let skipped = model.graph.node(skip).output(0).unwrap();
    model.graph.replace_uses(behind, skipped);
    model.graph.set_input(skip, 0, behind);
    let error = widely_patched(
        model,
        &rules("{ name: b, match: { blocks: 0 }, residual: { range: 2 } }"),
    )
    .map(|_| ())
    .unwrap_err();
    let RewriteError::Span {
        first: 0,
        last: 0,
        error: SpanError::UsedOutside { user, .. },
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(user, "Add `skip`");
}

#[test]
fn what_cannot_be_left_out_is_refused() {
    let refused = |file: &str, list: &str| widely_patched(load(file), &rules(list)).map(|_| ()).unwrap_err();
    let error = refused("dit/dit.ts17.static.onnx", "{ name: b, residual: { range: 2 } }");
    assert!(matches!(error, RewriteError::NoBlocks { count: 2, .. }), "{error}");
    let error = refused(
        TORCHSCRIPT,
        "{ name: b, residual: { range: 2 } }, { name: s, match: { kind: spatial }, broadcast: { range: 2 } }",
    );
    assert!(error.to_string().contains("both claim site `spatial.1`"), "{error}");
    let error = refused(
        TORCHSCRIPT,
        "{ name: s, match: { kind: spatial }, broadcast: never }, { name: b, residual: { range: 2 } }",
    );
    assert!(
        matches!(&error, RewriteError::Kept { site, .. } if site == "spatial.1"),
        "{error}"
    );
    let error = refused(DYNAMO, "{ name: g, guidance: { range: 2 } }");
    let RewriteError::Guidance {
        error: GuidanceError::StaticBatch { batch: 2, .. },
        ..
    } = error
    else {
        panic!("{error}")
    };
    let error = refused(
        FLUX,
        "{ name: g, guidance: { range: 2 } }, { name: s, match: { kind: joint }, forecast: { range: 2 } }",
    );
    assert!(
        matches!(&error, RewriteError::GuidanceBeside { other, .. } if other == "s"),
        "{error}"
    );
    assert!(error.to_string().contains("write `broadcast` or `residual`"), "{error}");
}

const BESIDE_GUIDANCE: &str = "{ name: joint, match: { kind: joint, blocks: [0, 1] }, broadcast: { range: 2 } }, \
     { name: blocks, match: { blocks: 2 }, residual: { range: 2 } }, { name: g, guidance: { range: 2 } }";

#[test]
fn the_switch_form_of_guidance_beside_others() {
    let (model, plan) = widely_patched(load(FLUX), &rules(BESIDE_GUIDANCE)).unwrap();
    insta::assert_snapshot!("guidance_beside", shown_with_ends(&model));
    // A step of one half reads the caches that it computes; the difference of guidance is one half itself.
    for (site, cache) in plan.caches() {
        assert_eq!(
            cache.in_place,
            site.kind == SiteKind::Wide(WideKind::Guidance),
            "{}",
            cache.input
        );
    }
    assert_eq!(Plan::parse(&plan.to_json().unwrap()).unwrap(), plan);
    validate(&model.clone().into_model().unwrap().proto).unwrap();
    let mut names = Vec::new();
    for bits in 0..8 {
        let flags = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
        let fixed = crate::rewrite::variant(model.clone(), &plan, &flags).unwrap();
        assert!(fixed.graph.nodes().all(|(_, node)| !node.is("If")), "{flags:?}");
        let inputs = fixed.graph.inputs().map(|value| fixed.graph.value(value).name());
        names.push(inputs.filter(|name| name.starts_with("pab.")).count());
        validate(&fixed.into_model().unwrap().proto).unwrap();
    }
    // A computing step of one half takes all caches, one of both halves none.
    let all = plan.caches().count();
    assert_eq!((names[0], names[4], names[7]), (0, all, all));
}

/// A value in which the batch stands behind another axis has no halves one behind the other.
#[test]
fn a_batch_within_an_axis_is_refused_with_the_site() {
    use crate::axes::{Dimension, Factor, Label, Origin, Size};
    use crate::rewrite::BatchAxis;
    let batch = Size::symbol("batch");
    let factor = |label, size: &Size| Factor {
        origin: Origin::Axis(label),
        size: size.clone(),
    };
    let frames = factor(Label::Frames, &Size::number(8));
    let both = factor(Label::Batch, &batch);
    let channels = Dimension::axis(Label::Channels, Size::number(4));
    let of = |dimensions: &[Dimension]| BatchAxis::of(dimensions, &batch);
    let outer = Dimension::of([both.clone(), frames.clone()]);
    let inner = Dimension::of([frames, both.clone()]);
    assert_eq!(of(&[channels.clone(), outer.clone()]), Some(BatchAxis::Outermost(1)));
    assert_eq!(
        of(&[Dimension::of([both]), channels.clone()]),
        Some(BatchAxis::Outermost(0))
    );
    assert_eq!(of(std::slice::from_ref(&channels)), Some(BatchAxis::Absent));
    assert_eq!(of(&[inner, channels.clone()]), None);
    assert_eq!(of(&[outer.clone(), outer]), None);
    // Without labels the size tells, where it is the batch alone.
    let unlabelled = |size: Size| Dimension::unlabelled(size);
    assert_eq!(of(&[unlabelled(batch.clone())]), Some(BatchAxis::Outermost(0)));
    assert_eq!(of(&[unlabelled(&batch * &Size::number(8))]), None);

    let mut model = load(FLUX);
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    let list =
        rules("{ name: joint, match: { kind: joint }, broadcast: { range: 2 } }, { name: g, guidance: { range: 2 } }");
    let list = Rules::parse("test.yaml", &list).unwrap();
    let mut wide = Wide::select(&model, &axes, &sites, &list).unwrap();
    let choices = select_beside(&sites, &list, None, &wide).unwrap();
    wide.guidance.as_mut().unwrap().batch_axes = crate::rewrite::BatchAxes::default();
    model.declare_runtime_operators();
    let error = switch_wide(model, &choices, &wide, &list, &super::super::SwitchOptions::default());
    let error = error.map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, RewriteError::GuidanceSite { site, .. } if site == "joint.0"),
        "{error}"
    );
}
