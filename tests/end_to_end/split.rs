//! Split graphs against the whole: all ranks in one graph, and ranks as threads with the collectives.

use crate::equality::{inputs, sizes};
use crate::guided::sensible;
use crate::program::{architectures, corpus, fail, json, runs};
use pab_patch::attention::Sites;
use pab_patch::axes::{Axes, Bindings, InputLabels};
use pab_patch::collective::{Communicator, Mesh as Ranks, Rank, World, run_ranks};
use pab_patch::graph::{ModelGraph, flatten};
use pab_patch::onnx::{Model, validate};
use pab_patch::rewrite::split::{KeptLatents, Split, SplitOptions, split, unroll};
use pab_patch::rewrite::{Patched, SwitchOptions, select, switch};
use pab_patch::rules::Rules;
use pab_patch::runtime::{self, Denoiser, Feedback, Options, Provider, Session, Tensor};
use pab_patch::shard::{Factor, Group, Mesh, Preference, ShardError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub struct Found {
    pub model: ModelGraph,
    pub axes: Axes,
    pub sites: Sites,
}

pub fn find(path: &Path) -> Found {
    let mut model = Model::load(path).unwrap();
    flatten(&mut model.proto).unwrap();
    let model = ModelGraph::new(model).unwrap();
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    Found { model, axes, sites }
}

impl Found {
    fn split(&self, mesh: &Mesh) -> Result<Split, ShardError> {
        self.split_by(mesh, Preference::default())
    }

    fn split_by(&self, mesh: &Mesh, sequence: Preference) -> Result<Split, ShardError> {
        let options = SplitOptions {
            sequence,
            ..SplitOptions::default()
        };
        split(self.model.clone(), &self.axes, &self.sites, mesh, &options)
    }
}

pub const ONE_THREAD: Options = Options {
    provider: Provider::Cpu,
    threads: Some(1),
    device_index: 0,
    optimization: runtime::Optimization::Basic,
    cuda_graph: false,
};

pub fn bindings() -> Bindings {
    let sizes = sizes();
    Bindings::of(sizes.iter().map(|(name, size)| (name.as_str(), *size as i64)))
}

pub fn mesh(guidance: usize, sequence: usize, tensor: usize) -> Mesh {
    Mesh {
        guidance,
        sequence,
        tensor,
    }
}

/// The largest difference, as a share of the largest value.
pub fn difference(one: &Tensor, other: &Tensor) -> f32 {
    assert_eq!(one.shape(), other.shape());
    let (one, other) = (one.clone().into_f32(), other.clone().into_f32());
    let largest = one.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    assert!(largest > 0.0, "nothing is compared");
    let worst = one.iter().zip(&other).fold(0.0f32, |worst, (a, b)| {
        if (a - b).is_nan() {
            f32::INFINITY
        } else {
            worst.max((a - b).abs())
        }
    });
    worst / largest
}

fn step(denoiser: &mut Denoiser, inputs: &[(String, Tensor)], flags: &[bool]) -> Vec<(String, Tensor)> {
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    denoiser.step(&inputs, flags).unwrap_or_else(|error| panic!("{error}"))
}

/// Every export of a float32 model that ONNX Runtime takes.
pub fn exports() -> Vec<PathBuf> {
    let mut models = corpus();
    models.extend(architectures());
    models.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
        runs(path) && !name.contains("fp16") && folder != "processed" && folder != "pixart_quantized"
    });
    models
}

pub fn is_of(path: &Path, names: &[&str]) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    names.iter().any(|prefix| name.starts_with(prefix))
}

/// Runs all ranks in one graph and compares each rank's outputs with those of the whole.
fn unrolled_equals_whole(path: &Path, found: &Found, mesh: &Mesh) {
    let what = format!("{} over {mesh}", path.display());
    let split = found.split(mesh).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut protos = Vec::new();
    let mut weights = None;
    for rank in 0..mesh.ranks().unwrap() {
        let model = split.at_rank(rank).unwrap().model.into_model().unwrap();
        validate(&model.proto).unwrap_or_else(|error| panic!("{what}: {error}"));
        weights = Some(model.weights().clone());
        protos.push(model.proto);
    }
    let proto = unroll(protos, mesh, &|_| false).unwrap_or_else(|error| panic!("{what}: {error}"));
    validate(&proto).unwrap_or_else(|error| panic!("{what}: {error}"));
    let bytes = Model::with_weights(proto, weights.unwrap()).to_bytes();
    runtime::ensure().unwrap();
    let session = Session::open(path, &ONE_THREAD).unwrap();
    let inputs = sensible(inputs(&session, 1));
    let whole = step(&mut Denoiser::plain(session), &inputs, &[]);
    let session = Session::open_bytes(path, &bytes, &ONE_THREAD).unwrap_or_else(|error| panic!("{what}: {error}"));
    let known: Vec<String> = session.inputs().iter().map(|port| port.name.clone()).collect();
    let inputs: Vec<_> = inputs.into_iter().filter(|(name, _)| known.contains(name)).collect();
    let ranks = step(&mut Denoiser::plain(session), &inputs, &[]);
    assert_eq!(ranks.len(), whole.len() * mesh.ranks().unwrap());
    for (name, tensor) in &ranks {
        let (_, plain) = name.split_once('/').unwrap();
        let (_, expected) = whole.iter().find(|(name, _)| name == plain).unwrap();
        let difference = difference(expected, tensor);
        assert!(difference <= 1e-5, "{what}: `{name}` differs by {difference}");
    }
}

#[test]
fn tokens_over_ranks_equal_the_whole() {
    for path in exports() {
        // Both are refused: Sana's convolutions mix rows and columns, and of Mochi a projection is found without tokens.
        if is_of(&path, &["sana", "mochi"]) {
            continue;
        }
        let found = find(&path);
        // 3 divides neither the tokens nor the heads of most.
        for ranks in [2, 3] {
            match found.split(&Mesh::sequence(ranks)) {
                Err(ShardError::TooFew { .. }) if ranks > 2 => {}
                _ => unrolled_equals_whole(&path, &found, &Mesh::sequence(ranks)),
            }
        }
    }
}

/// Eight ranks have more to divide of the latent, but not of five tokens of text: those are whole on every rank.
#[test]
fn more_ranks_than_tokens_of_text_equal_the_whole() {
    for path in exports() {
        if is_of(
            &path,
            &[
                "cogvideox.ts17.static.onnx",
                "flux.ts17.static.onnx",
                "sd3.ts17.static.onnx",
            ],
        ) {
            unrolled_equals_whole(&path, &find(&path), &Mesh::sequence(8));
        }
    }
}

#[test]
fn more_ranks_than_heads_gather_keys_and_values() {
    for path in exports() {
        if is_of(&path, &["dit.ts17.static.onnx", "cogvideox.ts17.static.onnx"]) {
            unrolled_equals_whole(&path, &find(&path), &Mesh::sequence(4));
        }
    }
}

#[test]
fn guidance_and_weights_over_ranks_equal_the_whole_alone_and_together() {
    let meshes = [mesh(2, 1, 1), mesh(1, 1, 2), mesh(1, 2, 2), mesh(2, 2, 1)];
    for path in exports() {
        if !is_of(
            &path,
            &[
                "latte.ts17.static.onnx",
                "latte.dyn18",
                "stdit3",
                "cogvideox.ts17",
                "sd3.ts17",
            ],
        ) {
            continue;
        }
        let found = find(&path);
        for mesh in &meshes {
            unrolled_equals_whole(&path, &found, mesh);
        }
    }
}

const RULES: &str = "
version: 1
rules:
  - { name: attention, match: { kind: [spatial, temporal, cross, joint] }, broadcast: { range: 2 } }
  - { name: mlp, match: { kind: mlp }, broadcast: { range: 3 } }
";

fn patched(model: ModelGraph, sites: &Sites) -> Patched {
    let rules = Rules::parse("test.yaml", RULES).unwrap();
    let choices = select(sites, &rules, None).unwrap();
    switch(model, &choices, &rules, &SwitchOptions::default()).unwrap()
}

pub fn opened(path: &Path, patched: Patched, rank: Option<&Arc<Rank>>) -> Denoiser {
    let feedback = Feedback::try_from(&patched.plan).unwrap();
    let model = patched.model.into_model().unwrap();
    validate(&model.proto).unwrap();
    let bytes = model.to_bytes();
    let session = match rank {
        Some(rank) => {
            let communicator: Arc<dyn Communicator> = rank.clone();
            Session::open_rank_bytes(path, &bytes, &ONE_THREAD, &communicator)
        }
        None => Session::open_bytes(path, &bytes, &ONE_THREAD),
    };
    Denoiser::patched(session.unwrap_or_else(|error| panic!("{error}")), feedback).unwrap()
}

/// Steps that compute, broadcast attention, broadcast all, and compute again.
const STEPS: [[bool; 2]; 5] = [
    [false, false],
    [true, false],
    [true, true],
    [false, true],
    [false, false],
];

/// What of the latent a rank has.
fn part_of(tensor: &Tensor, latents: &KeptLatents, mesh: &Mesh, rank: usize) -> Tensor {
    let range = latents.range(mesh, rank);
    let whole = tensor.clone().into_f32();
    let part = whole.slice_axis(ndarray::Axis(latents.axis), ndarray::Slice::from(range));
    Tensor::from_array(part.to_owned())
}

/// The latent after a step of the simplest sampler, on however much of it there is.
fn sampled(latent: &Tensor, output: &Tensor) -> Tensor {
    let channels = ndarray::Slice::from(0..latent.shape()[1]);
    let output = output.clone().into_f32();
    let told = output.slice_axis(ndarray::Axis(1), channels);
    Tensor::from_array(latent.clone().into_f32() - told.mapv(|value| 0.1 * value))
}

fn latent_of<'i>(inputs: &'i mut [(String, Tensor)], latents: &KeptLatents) -> &'i mut Tensor {
    let found = inputs.iter_mut().find(|(name, _)| *name == latents.input);
    &mut found.unwrap().1
}

/// A loop over steps in which each rank keeps its part of the latent: the parts put together are the latent of the whole, and
/// nothing is sent where everything is broadcast.
fn kept_latents_equal_the_whole(path: &Path, mesh: Mesh, factor: Option<Factor>) -> Vec<u64> {
    let what = format!("{} over {mesh}", path.display());
    runtime::ensure().unwrap();
    let found = find(path);
    let keep = Preference {
        factor,
        keep: true,
        ..Preference::default()
    };
    let split = Arc::new(
        found
            .split_by(&mesh, keep)
            .unwrap_or_else(|error| panic!("{what}: {error}")),
    );
    let latents = split
        .latents
        .clone()
        .unwrap_or_else(|| panic!("{what}: {:?}", split.gathered));
    let plain = Session::open(path, &ONE_THREAD).unwrap();
    let mut given = sensible(inputs(&plain, 0));
    let start = Arc::new(given.clone());
    let mut whole = opened(path, patched(found.model.clone(), &found.sites), None);
    for flags in STEPS {
        let outputs = step(&mut whole, &given, &flags);
        let latent = latent_of(&mut given, &latents);
        *latent = sampled(latent, &outputs[0].1);
    }
    let expected = latent_of(&mut given, &latents).clone();
    let world = World::new(Ranks::try_from(mesh).unwrap(), Duration::from_secs(60));
    let (owned, shared) = (path.to_owned(), (split, start, latents.clone()));
    let results = run_ranks(&world, move |rank: Arc<Rank>| -> Result<_, String> {
        let (split, start, latents) = &shared;
        let number = rank.rank();
        let graph = split.at_rank(number).map_err(|error| error.to_string())?;
        let patched = patched(graph.model, &graph.sites);
        let traffic = split.traffic(&patched.model, Some(&patched.plan), number, &bindings());
        let traffic = traffic.ok_or("a size has no value")?;
        let mut denoiser = opened(&owned, patched, Some(&rank));
        let mut given = start.to_vec();
        let latent = latent_of(&mut given, latents);
        *latent = part_of(latent, latents, &split.mesh, number);
        let mut sent = Vec::new();
        for flags in STEPS {
            rank.traffic().end_step();
            let outputs = step(&mut denoiser, &given, &flags);
            let latent = latent_of(&mut given, latents);
            *latent = sampled(latent, &outputs[0].1);
            sent.push((rank.traffic().end_step().total(), traffic.step(&flags)));
        }
        Ok((latent_of(&mut given, latents).clone(), sent))
    })
    .unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut most = vec![0; STEPS.len()];
    for (rank, (latent, sent)) in results.iter().enumerate() {
        let difference = difference(&part_of(&expected, &latents, &mesh, rank), latent);
        assert!(
            difference <= 1e-5,
            "{what}: the latent of rank {rank} differs by {difference}"
        );
        for (most, (sent, formula)) in most.iter_mut().zip(sent) {
            assert_eq!(sent, formula, "{what}: bytes of rank {rank}");
            *most = (*most).max(*sent);
        }
    }
    most
}

#[test]
fn ranks_that_keep_their_latents_send_nothing_where_everything_is_broadcast() {
    // CogVideoX attends over text and all frames together.
    const KEPT: [&str; 4] = [
        "latte.ts17.static.onnx",
        "latte.dyn23.static.onnx",
        "cogvideox.ts17.static.onnx",
        "cogvideox.dyn23.static.onnx",
    ];
    for path in exports() {
        // Three frames: two ranks do not divide them.
        if !is_of(&path, &KEPT) {
            continue;
        }
        for ranks in [2, 3] {
            let sent = kept_latents_equal_the_whole(&path, Mesh::sequence(ranks), None);
            assert!(sent[0] > 0 && sent[1] == 0 && sent[2] == 0, "{sent:?}");
            assert_eq!((sent[3], sent[4]), (sent[0], sent[0]), "{sent:?}");
        }
    }
}

/// Along space a rank keeps whole rows of patches: two entries each of the latent's height.
#[test]
fn ranks_that_keep_rows_of_patches_send_nothing_where_everything_is_broadcast() {
    // Rows of patches: 2 in the first, 4 in the others, which three ranks do not divide.
    let over: [(&str, &[usize]); 5] = [
        ("latte.ts17.static.onnx", &[2]),
        ("dit.ts17.static.onnx", &[2, 3]),
        ("pixart.ts17.static.onnx", &[3]),
        ("stdit3.ts17.static.onnx", &[3, 4]),
        ("osp10.ts17.dynamic.onnx", &[3]),
    ];
    for (name, ranks) in over {
        let path = exports().into_iter().find(|path| path.ends_with(name)).unwrap();
        for ranks in ranks {
            let sent = kept_latents_equal_the_whole(&path, Mesh::sequence(*ranks), Some(Factor::Space));
            assert!(sent[0] > 0 && sent[1] == 0 && sent[2] == 0, "{name}: {sent:?}");
            assert_eq!((sent[3], sent[4]), (sent[0], sent[0]), "{name}: {sent:?}");
        }
    }
}

/// Patched and split: ranks as threads give what the patched whole gives at every step, and send what the formula says.
fn threads_equal_whole(path: &Path, mesh: Mesh) -> Vec<u64> {
    let what = format!("{} over {mesh}", path.display());
    runtime::ensure().unwrap();
    let found = find(path);
    let split = Arc::new(found.split(&mesh).unwrap_or_else(|error| panic!("{what}: {error}")));
    let mut whole = opened(path, patched(found.model.clone(), &found.sites), None);
    let plain = Session::open(path, &ONE_THREAD).unwrap();
    let fed: Arc<Vec<_>> = Arc::new(
        (0..STEPS.len())
            .map(|seed| sensible(inputs(&plain, seed as u64)))
            .collect(),
    );
    let expected: Vec<_> = fed
        .iter()
        .zip(STEPS)
        .map(|(fed, flags)| step(&mut whole, fed, &flags))
        .collect();
    let world = World::new(Ranks::try_from(mesh).unwrap(), Duration::from_secs(60));
    let (owned, shared) = (path.to_owned(), (split.clone(), fed.clone()));
    let results = run_ranks(&world, move |rank: Arc<Rank>| -> Result<_, String> {
        let (split, fed) = &shared;
        let number = rank.rank();
        let graph = split.at_rank(number).map_err(|error| error.to_string())?;
        let patched = patched(graph.model, &graph.sites);
        let traffic = split.traffic(&patched.model, Some(&patched.plan), number, &bindings());
        let traffic = traffic.ok_or("a size has no value")?;
        let mut denoiser = opened(&owned, patched, Some(&rank));
        let mut steps = Vec::new();
        for (fed, flags) in fed.iter().zip(STEPS) {
            rank.traffic().end_step();
            let outputs = step(&mut denoiser, fed, &flags);
            steps.push((outputs, rank.traffic().end_step().total(), traffic.step(&flags)));
        }
        Ok(steps)
    })
    .unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut most = vec![0; STEPS.len()];
    for (rank, steps) in results.iter().enumerate() {
        for (number, (outputs, sent, formula)) in steps.iter().enumerate() {
            assert_eq!(sent, formula, "{what}: bytes of rank {rank} at step {number}");
            most[number] = most[number].max(*sent);
            for ((name, tensor), (_, expected)) in outputs.iter().zip(&expected[number]) {
                let difference = difference(expected, tensor);
                assert!(
                    difference <= 1e-5,
                    "{what}: `{name}` of rank {rank} differs by {difference} at step {number}"
                );
            }
        }
    }
    most
}

#[test]
fn ranks_as_threads_equal_the_patched_whole_and_send_what_the_formula_says() {
    let small = |name: &str| {
        let exports = exports();
        let found = exports.iter().find(|path| path.ends_with(name));
        found.unwrap_or_else(|| panic!("there is no {name}")).clone()
    };
    let latte = small("latte.ts17.static.onnx");
    for mesh in [
        Mesh::sequence(2),
        Mesh::sequence(3),
        Mesh::sequence(4),
        mesh(1, 2, 2),
        mesh(2, 2, 1),
    ] {
        let sent = threads_equal_whole(&latte, mesh);
        // What is broadcast sends nothing: what is left is the output, gathered at the end.
        assert!(
            sent[1] < sent[0] && sent[2] <= sent[1] && sent[4] == sent[0],
            "{sent:?}"
        );
    }
    for name in [
        "cogvideox.ts17.static.onnx",
        "flux.dyn23.dynamic.onnx",
        "dit.ts17.static.onnx",
    ] {
        for ranks in [2, 3] {
            threads_equal_whole(&small(name), Mesh::sequence(ranks));
        }
    }
}

#[test]
fn the_command_tells_what_is_sent_and_writes_a_graph_for_each_rank() {
    let model = corpus()
        .into_iter()
        .find(|path| path.ends_with("latte.ts17.static.onnx"))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, format!("{RULES}\nparallel: {{ sequence: 2 }}\n")).unwrap();
    let output = folder.path().join("split");
    let arguments = ["--steps", "6", "--rules"].map(std::ffi::OsString::from);
    let mut arguments = vec![std::ffi::OsString::from("split"), model.clone().into()]
        .into_iter()
        .chain(arguments)
        .collect::<Vec<_>>();
    arguments.extend([rules.clone().into(), "-o".into(), output.clone().into()]);
    let printed = json(&arguments);
    assert_eq!(printed["mesh"]["sequence"], 2);
    assert_eq!(printed["collectives"]["AllToAll"], 4);
    let bytes = &printed["bytes"];
    let steps: Vec<u64> = bytes["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step.as_u64().unwrap())
        .collect();
    assert_eq!(steps.len(), 6);
    assert_eq!(steps[0], bytes["computing"].as_u64().unwrap());
    assert!(steps[1] < steps[0] && bytes["broadcasting"].as_u64().unwrap() <= steps[1]);
    assert!(bytes["ulysses"].as_u64().unwrap() > steps[0]);
    for rank in 0..2 {
        let file = output.join(format!("latte.ts17.static.rank{rank}.onnx"));
        validate(&Model::load(&file).unwrap().proto).unwrap();
        assert!(file.with_extension("pab.json").is_file());
    }
    let refused = fail(
        2,
        ["split".as_ref(), model.as_os_str(), "--sequence".as_ref(), "1".as_ref()],
    );
    assert!(refused.contains("one rank"), "{refused}");
    let refused = fail(
        2,
        [
            "split".as_ref(),
            model.as_os_str(),
            "--sequence".as_ref(),
            "64".as_ref(),
        ],
    );
    assert!(refused.contains("for 64 ranks"), "{refused}");
}

/// Ranges 2/4/6: what a rank sends in a run of 50 steps falls by more than half, and latents that are kept send nothing where
/// everything is broadcast.
#[test]
fn a_run_with_broadcast_sends_less_than_half() {
    let model = corpus()
        .into_iter()
        .find(|path| path.ends_with("latte.ts17.static.onnx"))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    let ranges = [("spatial", 2), ("temporal", 4), ("cross", 6)];
    let rules_of = ranges.map(|(kind, range)| {
        format!("  - {{ name: {kind}, match: {{ kind: {kind} }}, broadcast: {{ range: {range} }} }}\n")
    });
    std::fs::write(&rules, format!("version: 1\nrules:\n{}", rules_of.concat())).unwrap();
    let mut arguments: Vec<std::ffi::OsString> = vec!["split".into(), model.into(), "--rules".into(), rules.into()];
    arguments.extend(["--sequence", "3", "--steps", "50", "--keep-latents"].map(Into::into));
    let printed = json(&arguments);
    assert_eq!(printed["latents"]["input"], "hidden_states");
    let bytes = &printed["bytes"];
    let steps = bytes["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step.as_u64().unwrap());
    let total: u64 = steps.sum();
    let without = 50 * bytes["computing"].as_u64().unwrap();
    // Temporal attention exchanges at 13 of 50 steps.
    assert_eq!(total * 50, without * 13);
    assert_eq!(bytes["broadcasting"], 0);
    // Spatial attention would exchange at 25 steps.
    let along: Vec<&str> = printed["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|other| other["factor"].as_str().unwrap())
        .collect();
    assert_eq!(
        (along, &printed["weighed_over"]),
        (vec!["frames", "space"], &serde_json::json!(50))
    );
    arguments.extend(["--along", "space"].map(Into::into));
    let printed = json(&arguments);
    assert!(printed["latents"].is_null());
    assert!(
        printed["gathered"].as_str().unwrap().contains("--along frames"),
        "{printed}"
    );
}

/// Each rank of a mesh with tensor ranks loads its own part of the weights alone.
#[test]
fn a_rank_has_its_part_of_the_weights() {
    let path = corpus()
        .into_iter()
        .find(|path| path.ends_with("latte.ts17.static.onnx"))
        .unwrap();
    let found = find(&path);
    let bytes = |model: ModelGraph| -> usize {
        let graph = model.into_model().unwrap().proto.graph.unwrap();
        graph
            .initializer
            .iter()
            .map(|tensor| tensor.dims.iter().product::<i64>() as usize)
            .sum()
    };
    let whole = bytes(found.model.clone());
    let split = found.split(&mesh(1, 1, 2)).unwrap();
    assert_eq!(split.axes[0].group, Group::Tensor);
    let parts: Vec<usize> = (0..2).map(|rank| bytes(split.at_rank(rank).unwrap().model)).collect();
    // Attentions and feed-forwards are most of the model.
    assert!(parts.iter().all(|part| *part < whole * 3 / 4), "{parts:?} of {whole}");
}

/// A preference is followed, also where it sends more.
#[test]
fn heads_for_tokens_send_more_than_the_switch() {
    let path = corpus()
        .into_iter()
        .find(|path| path.ends_with("latte.ts17.static.onnx"))
        .unwrap();
    let found = find(&path);
    let sent = |attention| {
        let options = SplitOptions {
            sequence: Preference {
                attention,
                ..Preference::default()
            },
            ..SplitOptions::default()
        };
        let split = split(
            found.model.clone(),
            &found.axes,
            &found.sites,
            &Mesh::sequence(2),
            &options,
        )
        .unwrap();
        split.traffic(&split.model, None, 0, &bindings()).unwrap().always
    };
    use pab_patch::shard::Alternative::{Heads, Queries, Tokens};
    assert_eq!(sent(None), sent(Some(Tokens)));
    assert!(sent(Some(Heads)) > sent(Some(Tokens)) && sent(Some(Queries)) > sent(Some(Tokens)));
}

/// Sizes that the export leaves open are given, and the graphs are for these alone; others are refused.
#[test]
fn latents_of_open_sizes_are_kept_where_their_sizes_are_given() {
    let path = exports()
        .into_iter()
        .find(|path| path.ends_with("stdit3.dyn18.dynamic.onnx"))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let split = |sizes: &[&str]| {
        let mut arguments: Vec<std::ffi::OsString> = vec!["split".into(), path.clone().into(), "-o".into()];
        arguments.push(folder.path().into());
        arguments.extend(["--sequence", "2", "--keep-latents", "--rules", "open-sora-1.2"].map(Into::into));
        arguments.extend(sizes.iter().flat_map(|size| ["--size".into(), (*size).into()]));
        arguments
    };
    let printed = json(split(&["frames=6", "h=8", "w=8", "text=7"]));
    assert_eq!(
        (&printed["latents"]["input"], &printed["latents"]["axis"]),
        (&"x".into(), &2.into())
    );
    let files = printed["files"].as_array().unwrap().iter();
    let models: Vec<&str> = files
        .filter_map(|file| file.as_str().filter(|file| file.ends_with(".onnx")))
        .collect();
    assert_eq!(models.len(), 2);
    for file in models {
        let model = ModelGraph::new(Model::load(Path::new(file)).unwrap()).unwrap();
        let latent = model.graph.find("x").unwrap();
        let shape = model.graph.tensor_type(latent).unwrap().shape.as_ref().unwrap();
        let sizes: Vec<Option<i64>> = shape.dim.iter().map(|dim| dim.dim_value).collect();
        assert_eq!(sizes, [None, Some(4), Some(3), Some(8), Some(8)]);
    }
    let open = json(split(&[]));
    assert!(open["gathered"].as_str().unwrap().contains("--size"), "{open}");
    let wrong = fail(2, split(&["frames=6", "framez=6"]));
    assert!(wrong.contains("--size framez"), "{wrong}");
}
