//! What a split writes, on real exports.

use super::{Collective, LATENTS_KEY, RankLatents, Split, SplitOptions, split, split_wide};
use crate::attention::Sites;
use crate::axes::{Axes, Bindings, InputLabels, Size};
use crate::graph::{Graph, ModelGraph};
use crate::onnx::{Model, validate};
use crate::rewrite::{SwitchOptions, Wide, select, select_beside, switch, switch_wide};
use crate::rules::Rules;
use crate::shard::volume::mean_all_to_all;
use crate::shard::{Alternative, Factor, Gathered, Group, Mesh, Preference, ShardError, Units};
use std::path::Path;

const STATIC: &str = "latte.ts17.static.onnx";
const DYNAMIC: &str = "latte.dyn18.dynamic.onnx";
const JOINT: &str = "cogvideox/cogvideox.ts17.static.onnx";

fn found(name: &str) -> (ModelGraph, Axes, Sites) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/corpus")
        .join(name);
    let model = ModelGraph::new(Model::load(&path).unwrap()).unwrap();
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    (model, axes, sites)
}

fn along(name: &str, factor: Option<Factor>, ranks: usize) -> Result<Split, ShardError> {
    let (model, axes, sites) = found(name);
    let options = SplitOptions {
        sequence: Preference {
            factor,
            ..Preference::default()
        },
        ..SplitOptions::default()
    };
    split(model, &axes, &sites, &Mesh::sequence(ranks), &options)
}

fn collectives(graph: &Graph) -> Vec<&str> {
    let nodes = graph.nodes().map(|(_, node)| node);
    let sent = nodes.filter(|node| node.domain() == "ai.pab" && node.operator() != "ShardSlice");
    sent.map(|node| node.operator()).collect()
}

#[test]
fn each_attention_that_mixes_what_is_divided_exchanges_twice() {
    for name in [STATIC, DYNAMIC] {
        for (factor, kind) in [(Factor::Frames, "temporal"), (Factor::Space, "spatial")] {
            let (_, _, sites) = found(name);
            let mixing = sites.sites.iter().filter(|site| site.kind.word() == kind).count();
            let split = along(name, Some(factor), 2).unwrap();
            let sent = collectives(&split.model.graph);
            let exchanges = sent.iter().filter(|operator| **operator == "AllToAll").count();
            assert_eq!(exchanges, 2 * mixing, "{name} along {factor}");
            assert_eq!(sent.len(), exchanges + 1, "the output is gathered");
            validate(&split.model.into_model().unwrap().proto).unwrap();
        }
    }
}

#[test]
fn exchanges_stand_in_the_branches_and_caches_are_parts() {
    let split = along(STATIC, Some(Factor::Frames), 2).unwrap();
    let rules = "version: 1\nrules:\n  - { name: all, match: { kind: [spatial, temporal, cross, mlp] }, broadcast: { range: 2 } }\n";
    let rules = Rules::parse("test.yaml", rules).unwrap();
    let (_, _, whole) = found(STATIC);
    for rank in 0..2 {
        let graph = split.at_rank(rank).unwrap();
        let choices = select(&graph.sites, &rules, None).unwrap();
        let patched = switch(graph.model, &choices, &rules, &SwitchOptions::default()).unwrap();
        assert_eq!(collectives(&patched.model.graph), ["AllGather"]);
        for (_, node) in patched.model.graph.nodes().filter(|(_, node)| node.is("If")) {
            assert_eq!(collectives(node.body("then_branch").unwrap()), Vec::<&str>::new());
            let computing = collectives(node.body("else_branch").unwrap());
            assert!(
                computing.is_empty() || computing == ["AllToAll", "AllToAll"],
                "{computing:?}"
            );
        }
        for (site, original) in graph.sites.sites.iter().zip(&whole.sites) {
            let elements = |cut: &crate::attention::Cut| Size::product(&cut.shape).as_number().unwrap();
            let (part, all) = (elements(site.output.first()), elements(original.output.first()));
            // 3 frames: two for the first rank, one for the second.
            assert_eq!(part * 3, all * (2 - rank as i64), "{}", site.name);
        }
        validate(&patched.model.into_model().unwrap().proto).unwrap();
    }
}

#[test]
fn what_a_span_adds_is_cached_in_parts_and_exchanged_within() {
    let (model, axes, sites) = found(STATIC);
    let rules = "{ version: 1, rules: [{ name: blocks, match: { blocks: '0..' }, residual: { range: 2, order: 1 } }] }";
    let rules = Rules::parse("test.yaml", rules).unwrap();
    let whole = Wide::select(&model, &axes, &sites, &rules).unwrap();
    let preference = Preference {
        factor: Some(Factor::Frames),
        ..Preference::default()
    };
    let options = SplitOptions {
        sequence: preference,
        ..SplitOptions::default()
    };
    let split = split_wide(model, &axes, &sites, &whole, &Mesh::sequence(2), &options).unwrap();
    for rank in 0..2 {
        let graph = split.at_rank(rank).unwrap();
        let bytes = |wide: &Wide| wide.cache_bytes(0, &SwitchOptions::default()).as_number().unwrap();
        // 3 frames: two for the first rank, one for the second.
        assert_eq!(bytes(&graph.wide) * 3, bytes(&whole) * (2 - rank as i64));
        let choices = select_beside(&graph.sites, &rules, None, &graph.wide).unwrap();
        let options = SwitchOptions::default();
        let patched = switch_wide(graph.model, &choices, &graph.wide, &rules, &options).unwrap();
        assert_eq!(collectives(&patched.model.graph), ["AllGather"], "the output");
        let nodes = patched.model.graph.nodes().map(|(_, node)| node);
        let spans: Vec<_> = nodes.filter(|node| node.is("If")).collect();
        assert_eq!(spans.len(), 1);
        assert_eq!(collectives(spans[0].body("then_branch").unwrap()), Vec::<&str>::new());
        assert_eq!(collectives(spans[0].body("else_branch").unwrap()), ["AllToAll"; 4]);
        validate(&patched.model.into_model().unwrap().proto).unwrap();
    }
}

/// Where a mesh divides nothing of what an adaptive rule looks at, its ranks agree all the same.
#[test]
fn ranks_agree_along_every_axis_before_they_decide() {
    let (model, axes, sites) = found(STATIC);
    let rules = "{ version: 1, rules: [{ name: blocks, match: { blocks: '1..' }, residual: { range: 2, adaptive: { threshold: 0.1 } } }] }";
    let rules = Rules::parse("test.yaml", rules).unwrap();
    let whole = Wide::select(&model, &axes, &sites, &rules).unwrap();
    let mesh = Mesh {
        sequence: 2,
        tensor: 3,
        ..Mesh::ONE
    };
    let split = split_wide(model, &axes, &sites, &whole, &mesh, &SplitOptions::default()).unwrap();
    let graph = split.at_rank(5).unwrap();
    let patched = switch_wide(graph.model, &[], &graph.wide, &rules, &SwitchOptions::default()).unwrap();
    let nodes = patched.model.graph.nodes().map(|(_, node)| node);
    let agreed: Vec<&str> = nodes
        .filter(|node| node.name().starts_with("pab.drift.blocks.agreed."))
        .map(|node| node.text("group").unwrap())
        .collect();
    assert_eq!(agreed, ["sequence", "tensor"]);
    let traffic = |plan| split.traffic(&patched.model, plan, 5, &Bindings::default()).unwrap();
    let (known, unknown) = (traffic(Some(&patched.plan)), traffic(None));
    // Of two numbers the last of two ranks sums one and sends two, the last of three sums none and sends two.
    assert_eq!(known.step(&[false]), unknown.always + 4 * 2 + 4 * 2);
}

#[test]
fn what_cannot_be_split_is_refused_with_a_reason() {
    assert!(matches!(
        along(STATIC, Some(Factor::Frames), 8),
        Err(ShardError::TooFew { ranks: 8, .. })
    ));
    assert!(matches!(
        along(STATIC, Some(Factor::Tokens), 2),
        Err(ShardError::NoFactor { .. })
    ));
    let (model, axes, sites) = found(STATIC);
    let none = Mesh {
        sequence: 0,
        ..Mesh::ONE
    };
    let options = SplitOptions::default();
    assert!(matches!(
        split(model.clone(), &axes, &sites, &none, &options),
        Err(ShardError::Mesh { .. })
    ));
    let once = split(model, &axes, &sites, &Mesh::sequence(2), &options).unwrap();
    assert!(matches!(once.at_rank(2), Err(ShardError::Rank { rank: 2, ranks: 2 })));
    let again = split(once.model, &axes, &sites, &Mesh::sequence(2), &options);
    assert!(matches!(again, Err(ShardError::AlreadySplit)));
}

#[test]
fn axes_of_a_mesh_divide_one_after_the_other() {
    let (model, axes, sites) = found(STATIC);
    let mesh = Mesh {
        guidance: 2,
        sequence: 2,
        tensor: 2,
    };
    let split = split(model, &axes, &sites, &mesh, &SplitOptions::default()).unwrap();
    let divided: Vec<Group> = split.axes.iter().map(|axis| axis.group).collect();
    assert_eq!(divided, [Group::Guidance, Group::Tensor, Group::Sequence]);
    for rank in 0..8 {
        validate(&split.at_rank(rank).unwrap().model.into_model().unwrap().proto).unwrap();
    }
}

/// On sizes that divide, what the graph's collectives send is what is published for each method: two all-to-alls of the
/// stream around an attention that mixes what is divided, or four, each `M / N · (N - 1) / N`.
#[test]
fn the_switch_and_heads_for_tokens_send_what_is_published() {
    let (model, axes, sites) = found(STATIC);
    let mixing = sites.sites.iter().filter(|site| site.kind.word() == "spatial").count();
    // 2 clips, 3 frames, 4 places, 16 channels.
    let bytes = (2 * 3 * 4 * 16 * 4) as f64;
    for (attention, exchanges) in [(Alternative::Tokens, 2), (Alternative::Heads, 4)] {
        let ranks = 2;
        let preference = Preference {
            factor: Some(Factor::Space),
            attention: Some(attention),
            ..Preference::default()
        };
        let options = SplitOptions {
            sequence: preference,
            ..SplitOptions::default()
        };
        let split = split(model.clone(), &axes, &sites, &Mesh::sequence(ranks), &options).unwrap();
        let published = mean_all_to_all(bytes, ranks) * (exchanges * mixing) as f64;
        let switched = split
            .exchanges
            .iter()
            .filter(|exchange| exchange.collective == Collective::AllToAll);
        let of = |rank| {
            let sent = switched
                .clone()
                .map(|exchange| split.bytes_sent(exchange, rank, &Bindings::default()).unwrap());
            sent.sum::<u64>() as f64
        };
        let mean = (0..ranks).map(of).sum::<f64>() / ranks as f64;
        // Each of 3 frames over 2 ranks: one has more, together they send the mean.
        assert!((mean - published).abs() < 1e-6, "{mean} for {published}");
    }
}

/// A split of an export along `factor` in which ranks keep their latents where they can.
fn keeping(name: &str, factor: Factor, ranks: usize) -> Split {
    let (model, axes, sites) = found(name);
    let sequence = Preference {
        factor: Some(factor),
        keep: true,
        ..Preference::default()
    };
    let options = SplitOptions {
        sequence,
        ..SplitOptions::default()
    };
    split(model, &axes, &sites, &Mesh::sequence(ranks), &options).unwrap()
}

#[test]
fn what_everybody_broadcasts_sends_nothing_where_ranks_keep_their_latents() {
    let split = keeping(STATIC, Factor::Frames, 2);
    let latents = split.latents.clone().unwrap();
    assert_eq!(
        (latents.input.as_str(), latents.output.as_str()),
        ("hidden_states", "sample")
    );
    assert_eq!((latents.axis, latents.size, latents.unit), (2, 3, 1));
    let sent = collectives(&split.model.graph);
    assert!(sent.iter().all(|operator| *operator == "AllToAll"), "{sent:?}");
    for (rank, range) in [(0, 0..2), (1, 2..3)] {
        let graph = split.at_rank(rank).unwrap().model;
        let told: RankLatents = serde_json::from_str(graph.metadata(LATENTS_KEY).unwrap()).unwrap();
        assert_eq!((told.start..told.end, told.latents), (range.clone(), latents.clone()));
        for name in ["hidden_states", "sample"] {
            let value = graph.graph.find(name).unwrap();
            let shape = graph.graph.tensor_type(value).unwrap().shape.as_ref().unwrap();
            assert_eq!(
                shape.dim[2].dim_value,
                Some(range.len() as i64),
                "{name} of rank {rank}"
            );
        }
        validate(&graph.into_model().unwrap().proto).unwrap();
    }
}

#[test]
fn where_latents_cannot_be_kept_they_are_gathered_and_that_is_said() {
    // Two rows of patches.
    let split = keeping(STATIC, Factor::Space, 3);
    let few = Gathered::Few {
        units: Units::Rows,
        count: 2,
        ranks: 3,
    };
    assert_eq!((split.latents, split.gathered), (None, Some(few)));
    assert!(collectives(&split.model.graph).contains(&"AllGather"));
    // Three frames, whose tokens attend together with those of a text.
    let split = keeping(JOINT, Factor::Tokens, 4);
    let few = Gathered::Few {
        units: Units::Frames,
        count: 3,
        ranks: 4,
    };
    assert_eq!((split.latents, split.gathered), (None, Some(few)));
}

/// Text and latent stand one behind the other in the attentions: of one each rank has single tokens, of the other whole frames.
#[test]
fn frames_of_a_joint_attention_are_kept_as_a_range_of_the_latent() {
    for ranks in [2, 3] {
        let split = keeping(JOINT, Factor::Tokens, ranks);
        let latents = split.latents.clone().unwrap_or_else(|| panic!("{:?}", split.gathered));
        assert_eq!((latents.axis, latents.size, latents.unit), (1, 3, 1));
        // There are two heads, so three ranks gather keys and values, in the attentions.
        let gathers = collectives(&split.model.graph).contains(&"AllGather");
        assert_eq!(gathers, ranks == 3);
        for rank in 0..ranks {
            validate(&split.at_rank(rank).unwrap().model.into_model().unwrap().proto).unwrap();
        }
    }
}

/// Along space parts are whole rows of patches then, of which the latent has two entries each.
#[test]
fn rows_of_patches_are_kept_as_a_range_of_the_latent() {
    for (name, axis) in [
        (STATIC, 3),
        ("dit/dit.ts17.static.onnx", 2),
        ("pixart/pixart.ts17.static.onnx", 2),
    ] {
        let split = keeping(name, Factor::Space, 2);
        let latents = split
            .latents
            .clone()
            .unwrap_or_else(|| panic!("{name}: {:?}", split.gathered));
        assert_eq!((latents.axis, latents.unit), (axis, 2), "{name}");
        assert!(!collectives(&split.model.graph).contains(&"AllGather"), "{name}");
        for rank in 0..2 {
            validate(&split.at_rank(rank).unwrap().model.into_model().unwrap().proto).unwrap();
        }
    }
}

/// What attention over time exchanges counts a quarter where it is broadcast at three of four steps.
#[test]
fn the_factor_whose_exchanges_are_broadcast_longest_is_divided() {
    let (model, axes, sites) = found(STATIC);
    let factor = |kind: &str| {
        let rules =
            format!("version: 1\nrules:\n  - {{ name: one, match: {{ kind: {kind} }}, broadcast: {{ range: 4 }} }}\n");
        let rules = Rules::parse("test.yaml", &rules).unwrap();
        let choices = select(&sites, &rules, None).unwrap();
        let timesteps: Vec<f64> = (0..50).map(|step| f64::from(1000 - 20 * step)).collect();
        let shares = super::shares(&sites, &choices, &Wide::default(), &rules, &timesteps);
        let place = sites.sites.iter().position(|site| site.kind.word() == kind).unwrap();
        assert!((shares.of(place) - 13.0 / 50.0).abs() < 1e-9);
        let options = SplitOptions {
            shares,
            ..SplitOptions::default()
        };
        let split = split(model.clone(), &axes, &sites, &Mesh::sequence(2), &options).unwrap();
        let [axis] = split.axes.as_slice() else {
            panic!("one axis is divided")
        };
        let chosen = axis.chosen().unwrap();
        assert!(axis.candidates.len() == 2 && axis.candidates.iter().all(|other| chosen.bytes <= other.bytes));
        axis.factor
    };
    assert_eq!(factor("temporal"), Some(Factor::Frames));
    assert_eq!(factor("spatial"), Some(Factor::Space));
}

/// Seven tokens of text for eight ranks: the text is whole on every rank, and nothing is refused.
#[test]
fn few_tokens_of_text_are_whole_on_every_rank() {
    let split = along(JOINT, None, 8).unwrap();
    assert_eq!(split.axes[0].factor, Some(Factor::Tokens));
    for rank in [0, 7] {
        validate(&split.at_rank(rank).unwrap().model.into_model().unwrap().proto).unwrap();
    }
}
