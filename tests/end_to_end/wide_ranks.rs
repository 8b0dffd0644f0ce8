//! Spans of blocks, guidance and adaptive rules by ranks as threads, against the patched whole.

use crate::equality::{inputs, step};
use crate::guided::sensible;
use crate::program::{fail, shipped_model};
use crate::split::{Found, ONE_THREAD, bindings, difference, exports, find, is_of, mesh, opened};
use ndarray::{Axis, Slice};
use pab_patch::attention::Sites;
use pab_patch::collective::{Communicator, Mesh as Ranks, Rank, World, run_ranks};
use pab_patch::graph::ModelGraph;
use pab_patch::rewrite::split::{RankGraph, SplitOptions, split_wide};
use pab_patch::rewrite::{Patched, SwitchOptions, Wide, select_beside, switch_wide};
use pab_patch::rules::Rules;
use pab_patch::runtime::{self, Denoiser, Session, Tensor};
use pab_patch::shard::{Mesh, Preference, ShardError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SPAN: &str = "{ name: blocks, match: { blocks: '1..' }, residual: { range: 2 } }";
const FORECAST: &str = "{ name: blocks, match: { blocks: '1..' }, residual: { range: 2, order: 2 } }";
const ALL_BLOCKS: &str = "{ name: blocks, match: { blocks: '0..' }, residual: { range: 2 } }";
const GUIDANCE: &str = "{ name: cfg, guidance: { range: 2 } }";

fn parsed(rules: &[&str]) -> Rules {
    let rules = format!("{{ version: 1, rules: [{}] }}", rules.join(", "));
    Rules::parse("test.yaml", &rules).unwrap()
}

fn patched(model: ModelGraph, sites: &Sites, wide: &Wide, rules: &Rules) -> Patched {
    let choices = select_beside(sites, rules, None, wide).unwrap();
    switch_wide(model, &choices, wide, rules, &SwitchOptions::default()).unwrap()
}

/// What ranks are asked for.
struct Case<'c> {
    rules: &'c [&'c str],
    /// A flag for each rule, for each step.
    steps: &'c [&'c [bool]],
    preference: Preference,
}

/// What a loop came to.
struct Run {
    /// Bytes of the rank that sent most, for each step.
    sent: Vec<u64>,
    /// What each step broadcast.
    broadcast: Vec<Vec<bool>>,
}

impl Case<'_> {
    fn wide(&self, found: &Found) -> Wide {
        Wide::select(&found.model, &found.axes, &found.sites, &parsed(self.rules)).unwrap()
    }

    /// The loop by ranks equals that of the patched whole, decides alike, and sends what the formula says.
    fn equals_whole(&self, path: &Path, mesh: Mesh) -> Run {
        let what = format!("{} over {mesh}: {:?}", path.display(), self.rules);
        runtime::ensure().unwrap();
        let (found, rules) = (find(path), parsed(self.rules));
        let wide = self.wide(&found);
        let options = SplitOptions {
            sequence: self.preference,
            ..SplitOptions::default()
        };
        let (axes, sites) = (&found.axes, &found.sites);
        let split = split_wide(found.model.clone(), axes, sites, &wide, &mesh, &options);
        let split = Arc::new(split.unwrap_or_else(|error| panic!("{what}: {error}")));
        assert_eq!(
            split.latents.is_some(),
            self.preference.keep,
            "{what}: {:?}",
            split.gathered
        );
        let plain = Session::open(path, &ONE_THREAD).unwrap();
        let fed: Arc<Vec<_>> = Arc::new(
            (0..self.steps.len())
                .map(|seed| sensible(inputs(&plain, seed as u64)))
                .collect(),
        );
        let mut whole = opened(path, patched(found.model.clone(), &found.sites, &wide, &rules), None);
        let mut expected = Vec::new();
        let (mut broadcast, mut states) = (Vec::new(), Vec::new());
        for (fed, flags) in fed.iter().zip(self.steps) {
            expected.push(step(&mut whole, fed, flags));
            broadcast.push(whole.broadcast().to_vec());
            states.push(states_of(&whole));
        }
        let world = World::new(Ranks::try_from(mesh).unwrap(), Duration::from_secs(60));
        let steps: Vec<Vec<bool>> = self.steps.iter().map(|flags| flags.to_vec()).collect();
        let (owned, shared) = (path.to_owned(), (split.clone(), fed.clone(), steps));
        let results = run_ranks(&world, move |rank: Arc<Rank>| -> Result<_, String> {
            let (split, fed, steps) = &shared;
            let number = rank.rank();
            let RankGraph { model, sites, wide, .. } = split.at_rank(number).map_err(|error| error.to_string())?;
            let patched = patched(model, &sites, &wide, &rules);
            let traffic = split.traffic(&patched.model, Some(&patched.plan), number, &bindings());
            let traffic = traffic.ok_or("a size has no value")?;
            let mut denoiser = opened(&owned, patched, Some(&rank));
            let mut taken = Vec::new();
            for (fed, flags) in fed.iter().zip(steps) {
                let mut fed = fed.clone();
                if let Some(kept) = &split.latents {
                    let latent = fed.iter_mut().find(|(name, _)| *name == kept.input);
                    let (_, latent) = latent.ok_or("no latent")?;
                    *latent = part(latent, kept.axis, kept.range(&split.mesh, number));
                }
                rank.traffic().end_step();
                let outputs = step(&mut denoiser, &fed, flags);
                let did = denoiser.broadcast().to_vec();
                let formula = traffic.step(&did);
                let sent = rank.traffic().end_step().total();
                taken.push((outputs, sent, formula, did, states_of(&denoiser)));
            }
            Ok(taken)
        })
        .unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut most = vec![0; self.steps.len()];
        for (rank, steps) in results.iter().enumerate() {
            for (number, (outputs, sent, formula, did, held)) in steps.iter().enumerate() {
                assert_eq!(
                    *did, broadcast[number],
                    "{what}: what rank {rank} broadcast at step {number}"
                );
                assert_eq!(sent, formula, "{what}: bytes of rank {rank} at step {number}");
                // What a rank decides by is what the whole decides by, and the same on all ranks to the bit.
                assert_eq!(*held, results[0][number].4, "{what}: rank {rank} at step {number}");
                for (held, expected) in held.iter().zip(&states[number]) {
                    assert!(
                        (held - expected).abs() <= 1e-5 * expected.abs(),
                        "{what}: {held} for {expected}"
                    );
                }
                most[number] = most[number].max(*sent);
                for ((name, tensor), (_, expected)) in outputs.iter().zip(&expected[number]) {
                    let expected = match &split.latents {
                        Some(kept) if kept.output == *name => &part(expected, kept.axis, kept.range(&split.mesh, rank)),
                        _ => expected,
                    };
                    let difference = difference(expected, tensor);
                    assert!(
                        difference <= 1e-5,
                        "{what}: `{name}` of rank {rank} differs by {difference} at step {number}"
                    );
                }
            }
        }
        Run { sent: most, broadcast }
    }
}

/// The numbers that rules keep from step to step.
fn states_of(denoiser: &Denoiser) -> Vec<f32> {
    let held = denoiser.caches().unwrap().into_iter();
    let states = held.filter(|(name, _)| name.starts_with("pab.state."));
    states.flat_map(|(_, state)| state.into_f32()).collect()
}

fn part(tensor: &Tensor, axis: usize, range: std::ops::Range<usize>) -> Tensor {
    let whole = tensor.clone().into_f32();
    Tensor::from_array(whole.slice_axis(Axis(axis), Slice::from(range)).to_owned())
}

fn named(names: &[&str]) -> Vec<PathBuf> {
    let mut exports = exports();
    exports.retain(|path| is_of(path, names));
    assert_eq!(exports.len(), names.len(), "{names:?}");
    exports
}

/// Streams of frames and space, of tokens, and of text and latent that a span puts together.
const FEW: [&str; 4] = [
    "latte.ts17.static.onnx",
    "stdit3.dyn18.dynamic.onnx",
    "cogvideox.ts17.static.onnx",
    "flux.ts17.static.onnx",
];

#[test]
fn spans_by_ranks_equal_the_patched_whole_and_send_what_the_formula_says() {
    let steps: &[&[bool]] = &[&[false], &[true], &[true], &[false], &[false], &[true]];
    for path in named(&FEW) {
        for rules in [SPAN, FORECAST] {
            let case = Case {
                rules: &[rules],
                steps,
                preference: Preference::default(),
            };
            let mut meshes = vec![Mesh::sequence(2), Mesh::sequence(3)];
            // Flux' single blocks cannot be divided along tokens behind weights.
            if !is_of(&path, &["flux"]) {
                meshes.extend([mesh(1, 2, 2), mesh(2, 1, 1)]);
            }
            for mesh in meshes {
                let sent = case.equals_whole(&path, mesh).sent;
                assert!(sent[1] < sent[0] || mesh.guidance > 1, "{}: {sent:?}", path.display());
                assert_eq!((sent[3], sent[5]), (sent[0], sent[1]), "{sent:?}");
            }
        }
    }
}

#[test]
fn a_span_that_is_broadcast_sends_nothing_where_ranks_keep_their_latents() {
    let keep = Preference {
        keep: true,
        ..Preference::default()
    };
    for path in named(&["latte.ts17.static.onnx", "flux.ts17.static.onnx"]) {
        for ranks in [2, 3] {
            let case = Case {
                rules: &[ALL_BLOCKS],
                steps: &[&[false], &[true], &[false]],
                preference: keep,
            };
            let sent = case.equals_whole(&path, Mesh::sequence(ranks)).sent;
            assert!(sent[0] > 0 && sent[1] == 0 && sent[2] == sent[0], "{sent:?}");
        }
    }
}

/// Every export that can be split: no exchange is left outside of the span but that of the output.
#[test]
fn all_exchanges_of_a_span_stand_within_it() {
    let mut seen = 0;
    for path in exports() {
        if is_of(&path, &["sana", "mochi"]) {
            continue;
        }
        let case = Case {
            rules: &[ALL_BLOCKS],
            steps: &[],
            preference: Preference::default(),
        };
        let found = find(&path);
        let Ok(wide) = Wide::select(&found.model, &found.axes, &found.sites, &parsed(case.rules)) else {
            continue;
        };
        let (axes, sites) = (&found.axes, &found.sites);
        let mesh = Mesh::sequence(2);
        let split = split_wide(found.model, axes, sites, &wide, &mesh, &SplitOptions::default());
        let split = split.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let graph = split.at_rank(0).unwrap();
        let outputs = graph.model.graph.outputs().count();
        let patched = patched(graph.model, &graph.sites, &graph.wide, &parsed(case.rules));
        let nodes = patched.model.graph.nodes().map(|(_, node)| node);
        let sends = |operator: &str| matches!(operator, "AllGather" | "AllToAll" | "AllReduce");
        let outside: Vec<String> = nodes
            .filter(|node| node.domain() == "ai.pab" && sends(node.operator()))
            .map(|node| node.operator().to_owned())
            .collect();
        assert!(
            outside.len() <= outputs && outside.iter().all(|operator| operator == "AllGather"),
            "{}: {outside:?}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn adaptive_rules_decide_alike_on_all_ranks_and_as_the_whole_does() {
    let rules = [
        "{ name: blocks, match: { blocks: '1..' }, residual: { range: 9, adaptive: { threshold: 3 } } }",
        "{ name: sites, match: { kind: [spatial, temporal, cross, joint, mlp] }, broadcast: { range: 9, adaptive: { threshold: 3 } } }",
    ];
    for path in named(&[
        "latte.ts17.static.onnx",
        "stdit3.dyn18.dynamic.onnx",
        "cogvideox.ts17.static.onnx",
    ]) {
        for rule in rules {
            let case = Case {
                rules: &[rule],
                steps: &[&[false], &[true], &[true], &[true], &[true], &[true]],
                preference: Preference::default(),
            };
            for mesh in [Mesh::sequence(2), Mesh::sequence(3), mesh(2, 2, 1), mesh(1, 1, 2)] {
                let run = case.equals_whole(&path, mesh);
                let broadcast: Vec<bool> = run.broadcast.iter().map(|flags| flags[0]).collect();
                assert!(
                    broadcast.contains(&true) && broadcast[1..].contains(&false),
                    "{}: {broadcast:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn guidance_is_left_out_by_ranks_that_divide_tokens_or_weights() {
    let steps: &[&[bool]] = &[
        &[false, false],
        &[true, false],
        &[true, true],
        &[false, true],
        &[false, false],
        &[true, true],
    ];
    let names = [
        "latte.dyn18.dynamic.onnx",
        "stdit3.dyn18.dynamic.onnx",
        "flux.dyn23.dynamic.onnx",
    ];
    for path in named(&names) {
        for beside in [
            SPAN,
            "{ name: sites, match: { kind: [spatial, temporal, cross, joint] }, broadcast: { range: 2 } }",
        ] {
            let case = Case {
                rules: &[GUIDANCE, beside],
                steps,
                preference: Preference::default(),
            };
            for mesh in [Mesh::sequence(2), Mesh::sequence(3), mesh(1, 1, 2)] {
                let sent = case.equals_whole(&path, mesh).sent;
                // Half of the batch sends half as much.
                assert_eq!(2 * sent[1], sent[0], "{}: {sent:?}", path.display());
            }
        }
    }
    let found = find(&named(&names[..1])[0]);
    let wide = Wide::select(&found.model, &found.axes, &found.sites, &parsed(&[GUIDANCE])).unwrap();
    let (axes, sites) = (&found.axes, &found.sites);
    let refused = split_wide(
        found.model,
        axes,
        sites,
        &wide,
        &mesh(2, 1, 1),
        &SplitOptions::default(),
    );
    assert!(matches!(refused, Err(ShardError::Halves { ranks: 2, .. })));
}

#[test]
fn guidance_over_ranks_is_no_half_to_leave_out() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, format!("{{ version: 1, rules: [{GUIDANCE}] }}")).unwrap();
    let model = shipped_model();
    let refused = fail(
        2,
        [
            "split".as_ref(),
            model.as_os_str(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "--guidance-ranks".as_ref(),
            "2".as_ref(),
        ],
    );
    assert!(refused.contains("leave out --guidance-ranks"), "{refused}");
}
