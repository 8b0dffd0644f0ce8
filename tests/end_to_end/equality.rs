//! Patched against original, to the bit, on every export and the shipped model.

use crate::program::{self, architectures, corpus, json, shipped_model, variants};
use crate::rounded;
use pab_patch::generation::sizes_of;
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::{Model, SaveOptions};
use pab_patch::rewrite::{Plan, without};
use pab_patch::runtime::{
    self, Denoiser, ElementType, Feedback, Optimization, Options, Port, Provider, Session, Tensor,
};
use pab_patch::sampler::noise;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Sizes for the open dimensions of the exports.
pub fn sizes() -> BTreeMap<String, usize> {
    let sizes = [
        ("batch", 2),
        ("frames", 3),
        ("height", 8),
        ("width", 4),
        ("2*rows", 8),
        ("2*columns", 4),
        // Tokens of patches of 2 x 2.
        ("positions", 3 * 8 * 4 / 4),
        ("text", 5),
        ("h", 8),
        ("w", 4),
    ];
    sizes.into_iter().map(|(name, size)| (name.to_owned(), size)).collect()
}

fn options() -> Options {
    runtime::ensure().unwrap();
    Options {
        threads: Some(crate::program::THREADS),
        provider: Provider::Cpu,
        ..Options::default()
    }
}

/// In half precision every value is rounded as the model says, which the CPU provider by itself does not do.
pub fn open(model: &Path) -> Session {
    if rounded::is_half(model) {
        rounded::open(model, options())
    } else {
        open_plainly(model)
    }
}

/// As any program opens a model.
fn open_plainly(model: &Path) -> Session {
    Session::open(model, &options()).unwrap_or_else(|error| panic!("{error}"))
}

/// Without ONNX Runtime's fusions over several nodes: in a static graph it fuses residual addition and norm where an `If`
/// stands between the branch and the addition in the switch form, and the fused kernel rounds differently.
pub fn open_unfused(model: &Path) -> Session {
    if rounded::is_half(model) {
        return rounded::open(model, options());
    }
    let options = Options {
        optimization: Optimization::Basic,
        ..options()
    };
    Session::open(model, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Noise for every real input, a number for every integer one; the seed tells two steps apart.
pub fn inputs(session: &Session, seed: u64) -> Vec<(String, Tensor)> {
    inputs_of(session, seed, &sizes())
}

fn inputs_of(session: &Session, seed: u64, open: &BTreeMap<String, usize>) -> Vec<(String, Tensor)> {
    let ports = session.inputs().iter().filter(|port| !port.name.starts_with("pab."));
    let value = |(place, port): (usize, &Port)| {
        let element_type = port.element_type.unwrap_or(ElementType::Float32);
        let sizes = sizes_of(port, open).unwrap_or_else(|error| panic!("{}: {error}", session.model().display()));
        let values = match element_type {
            // A timestep or the number of a class.
            ElementType::Int64 => ndarray::ArrayD::from_elem(sizes, 2.0 + seed as f64),
            _ => noise(&sizes, seed + 100 * place as u64).unwrap().mapv(f64::from),
        };
        (port.name.clone(), Tensor::from_array(values).cast(element_type))
    };
    ports.enumerate().map(value).collect()
}

pub fn step(denoiser: &mut Denoiser, inputs: &[(String, Tensor)], flags: &[bool]) -> Vec<(String, Tensor)> {
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    denoiser.step(&inputs, flags).unwrap_or_else(|error| panic!("{error}"))
}

pub struct Patched {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
    pub plan: Plan,
}

/// A rule for each kind of module, cut at the module's output.
pub const BY_KIND: &str = "
version: 1
rules:
  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2 } }
  - { name: temporal, match: { kind: temporal }, broadcast: { range: 2 } }
  - { name: cross, match: { kind: cross }, broadcast: { range: 2 } }
  - { name: joint, match: { kind: joint }, broadcast: { range: 2 } }
  - { name: mlp, match: { kind: mlp }, broadcast: { range: 2 } }
";

/// The same for attention alone.
const BY_ATTENTION: &str = "
version: 1
rules:
  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2 } }
  - { name: temporal, match: { kind: temporal }, broadcast: { range: 2 } }
  - { name: cross, match: { kind: cross }, broadcast: { range: 2 } }
";

/// Patches with a rule for each kind.
fn patch(model: &Path) -> Patched {
    patch_with(model, BY_KIND)
}

pub fn patch_with(model: &Path, rules: &str) -> Patched {
    patch_as(model, rules, &[])
}

/// Patches with further options.
pub fn patch_as(model: &Path, rules: &str, options: &[&str]) -> Patched {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, rules).unwrap();
    let arguments: [&OsStr; 5] = [
        model.as_ref(),
        "--rules".as_ref(),
        file.as_ref(),
        "-o".as_ref(),
        folder.path().as_ref(),
    ];
    let printed = json(arguments.into_iter().chain(options.iter().map(OsStr::new)));
    let plan = Plan::parse(&printed["plan"].to_string()).unwrap();
    Patched {
        path: PathBuf::from(printed["model"].as_str().unwrap()),
        plan,
        _folder: folder,
    }
}

/// A rule for each site, so that each can be broadcast alone.
fn rules_by_site(model: &Path) -> String {
    let found = json(["inspect".as_ref(), model.as_os_str()]);
    let rules = found["sites"].as_array().unwrap().iter().map(|site| {
        let (kind, block) = (site["kind"].as_str().unwrap(), &site["block"]);
        format!(
            "  - {{ name: {kind}_{block}, match: {{ kind: {kind}, blocks: {block} }}, broadcast: {{ range: 2 }} }}\n"
        )
    });
    format!("version: 1\nrules:\n{}", rules.collect::<String>())
}

impl Patched {
    pub fn open(&self) -> Denoiser {
        self.opened_by(open)
    }

    pub fn opened_by(&self, open: fn(&Path) -> Session) -> Denoiser {
        Denoiser::patched(open(&self.path), Feedback::try_from(&self.plan).unwrap()).unwrap()
    }

    /// The static graph for one set of flags.
    pub fn variant(&self, flags: &[bool], open: fn(&Path) -> Session) -> Denoiser {
        let graph = ModelGraph::new(Model::load(&self.path).unwrap()).unwrap();
        let graph = without(graph, &self.plan, flags).unwrap();
        let path = self.path.with_file_name("variant.onnx");
        graph
            .into_model()
            .unwrap()
            .save(&path, &SaveOptions::default())
            .unwrap();
        Denoiser::plain(open(&path))
    }
}

/// The exports as they were made, without what optimizers and converters made of them.
fn exports() -> Vec<PathBuf> {
    let mut models = models();
    models.retain(|model| !model.parent().is_some_and(|folder| folder.ends_with("processed")));
    models
}

fn models() -> Vec<PathBuf> {
    let mut models = corpus();
    models.extend(architectures());
    models.extend(
        variants()
            .into_iter()
            .filter(|variant| variant.runs)
            .map(|variant| variant.path),
    );
    models.push(shipped_model());
    models.retain(|model| program::runs(model));
    models
}

/// Bits, so that equal means equal also for zeros of both signs and for what is no number.
#[track_caller]
pub fn same(one: &[(String, Tensor)], other: &[(String, Tensor)], what: &str) {
    assert_eq!(one.len(), other.len(), "{what}: number of outputs");
    for ((name, one), (other_name, other)) in one.iter().zip(other) {
        assert_eq!((name, one.shape()), (other_name, other.shape()), "{what}");
        let bits =
            |tensor: &Tensor| -> Vec<u32> { tensor.clone().into_f32().iter().map(|value| value.to_bits()).collect() };
        let (one, other) = (bits(one), bits(other));
        let differing = one.iter().zip(&other).filter(|(one, other)| one != other).count();
        assert_eq!(
            differing,
            0,
            "{what}: {differing} of {} elements of `{name}` differ",
            one.len()
        );
    }
}

/// Equal to the bit, but for models in which ONNX Runtime fuses nodes over the border of an `If`: Sana's convolutions have
/// a blocked layout, which an `If` between them ends, and what its own tools fused they left half fused.
#[track_caller]
fn same_as_the_original(model: &Path, one: &[(String, Tensor)], other: &[(String, Tensor)], what: &str) {
    let name = model.file_name().unwrap().to_string_lossy();
    if !name.starts_with("sana.") && !name.starts_with("sanavideo.") && !name.contains(".fused.") {
        return same(one, other, what);
    }
    for ((name, one), (_, other)) in one.iter().zip(other) {
        let (one, other) = (one.clone().into_f32(), other.clone().into_f32());
        let largest = one.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let differences = one.iter().zip(&other).map(|(one, other)| (one - other).abs());
        let difference = differences.fold(0.0, f32::max);
        assert!(
            difference <= 4e-6 * largest,
            "{what}: `{name}` differs by {difference} of {largest}"
        );
    }
}

/// What optimizers and converters made of the exports has nothing broadcast in
/// [`nothing_or_one_site_broadcast_with_the_same_inputs_equals_the_original`].
#[test]
fn nothing_broadcast_equals_the_original_and_everything_with_the_same_inputs_does() {
    for model in exports() {
        let patched = patch(&model);
        let mut original = Denoiser::plain(open(&model));
        let mut switched = patched.open();
        let rules = patched.plan.rules.len();
        for seed in [1, 2] {
            let inputs = inputs(original.session(), seed);
            let expected = step(&mut original, &inputs, &[]);
            let found = step(&mut switched, &inputs, &vec![false; rules]);
            same_as_the_original(&model, &expected, &found, &format!("{}, step {seed}", model.display()));
            // Twice, so that a cache that was broadcast is handed on unchanged.
            for _ in 0..2 {
                let broadcast = step(&mut switched, &inputs, &vec![true; rules]);
                same(&found, &broadcast, &model.display().to_string());
            }
        }
    }
}

/// As ONNX Runtime's CPU provider runs float16 by itself, the roundings at the branches are all that differs.
#[test]
fn half_precision_as_the_cpu_provider_runs_it_differs_by_roundings() {
    /// The distance of 1 from the next float16; what was measured is 1.2 times that.
    const EPSILON: f32 = 1.0 / 1024.0;
    let halves: Vec<PathBuf> = exports().into_iter().filter(|model| rounded::is_half(model)).collect();
    assert!(!halves.is_empty(), "the corpus has a float16 export");
    for model in halves {
        let patched = patch(&model);
        let mut original = Denoiser::plain(open_plainly(&model));
        let session = open_plainly(&patched.path);
        let mut switched = Denoiser::patched(session, Feedback::try_from(&patched.plan).unwrap()).unwrap();
        let inputs = inputs(original.session(), 1);
        let expected = step(&mut original, &inputs, &[]);
        let found = step(&mut switched, &inputs, &vec![false; patched.plan.rules.len()]);
        for ((name, expected), (_, found)) in expected.into_iter().zip(found) {
            let (expected, found) = (expected.into_f32(), found.into_f32());
            let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let differences = expected.iter().zip(&found).map(|(one, other)| (one - other).abs());
            let difference = differences.fold(0.0, f32::max);
            assert!(
                difference <= 4.0 * EPSILON * largest,
                "{}: `{name}` differs by {difference} of {largest}",
                model.display()
            );
        }
    }
}

#[test]
fn a_broadcast_step_equals_the_static_graph_with_the_same_caches() {
    // In Latte nothing is fused over the border of an `If`.
    let fused = [corpus(), vec![shipped_model()]].concat();
    for model in exports() {
        let patched = patch(&model);
        let rules = patched.plan.rules.len();
        let open = if fused.contains(&model) { open } else { open_unfused };
        let mut switched = patched.opened_by(open);
        // One rule alone, and all of them.
        let mut sets: Vec<Vec<bool>> = (0..rules)
            .map(|rule| (0..rules).map(|other| other == rule).collect())
            .collect();
        sets.push(vec![true; rules]);
        let (first, second) = (inputs(switched.session(), 1), inputs(switched.session(), 2));
        let fresh = step(&mut switched, &second, &vec![false; rules]);
        for flags in sets {
            switched.reset().unwrap();
            let computed = step(&mut switched, &first, &vec![false; rules]);
            let caches = switched.caches().unwrap();
            let broadcast = step(&mut switched, &second, &flags);
            let mut variant = patched.variant(&flags, open);
            let mut given = second.clone();
            let wanted = |name: &str| variant.session().inputs().iter().any(|port| port.name == name);
            given.extend(caches.into_iter().filter(|(name, _)| wanted(name)));
            let expected = step(&mut variant, &given, &[]);
            same(&expected, &broadcast, &format!("{}, flags {flags:?}", model.display()));
            // And the caches matter: with other inputs the broadcast step is not what computing gives.
            let differs = |one: &[(String, Tensor)], other: &[(String, Tensor)]| one != other;
            assert!(
                differs(&fresh, &broadcast),
                "{}: {flags:?} changed nothing",
                model.display()
            );
            assert!(differs(&computed, &broadcast));
        }
    }
}

/// Batch, frames, height, width and text of one open model change from clip to clip.
#[test]
fn open_sizes_may_change_with_every_clip() {
    let open_models = variants().into_iter().filter(|variant| {
        let name = variant.path.file_stem().unwrap().to_string_lossy();
        name.starts_with("open")
    });
    let mut models = 0;
    for model in open_models.map(|variant| variant.path) {
        models += 1;
        let patched = patch(&model);
        let mut original = Denoiser::plain(open(&model));
        let mut switched = patched.open();
        let rules = patched.plan.rules.len();
        for (seed, [batch, frames, height, width, text]) in
            [[2, 3, 8, 4, 5], [1, 4, 4, 6, 7], [3, 2, 6, 6, 2], [2, 3, 8, 4, 5]]
                .into_iter()
                .enumerate()
        {
            let sizes = [
                ("batch", batch),
                ("frames", frames),
                ("height", height),
                ("width", width),
                ("2*rows", height),
                ("2*columns", width),
                ("positions", frames * height * width / 4),
                ("text", text),
            ];
            let sizes = sizes.into_iter().map(|(name, size)| (name.to_owned(), size)).collect();
            let inputs = inputs_of(original.session(), seed as u64, &sizes);
            let expected = step(&mut original, &inputs, &[]);
            switched.reset().unwrap();
            for broadcast in [false, true] {
                let found = step(&mut switched, &inputs, &vec![broadcast; rules]);
                same(&expected, &found, &format!("{}, sizes {sizes:?}", model.display()));
            }
        }
    }
    assert_eq!(models, 2);
}

#[test]
fn nothing_or_one_site_broadcast_with_the_same_inputs_equals_the_original() {
    for model in models() {
        let patched = patch_with(&model, &rules_by_site(&model));
        let sites = patched.plan.sites.len();
        assert_eq!(patched.plan.rules.len(), sites, "{}", model.display());
        let mut original = Denoiser::plain(open(&model));
        let mut switched = patched.open();
        for seed in [1, 4] {
            let inputs = inputs(original.session(), seed);
            let expected = step(&mut original, &inputs, &[]);
            let found = step(&mut switched, &inputs, &vec![false; sites]);
            same_as_the_original(&model, &expected, &found, &format!("{}, step {seed}", model.display()));
            for (alone, site) in patched.plan.sites.iter().enumerate().filter(|_| seed == 4) {
                let flags: Vec<bool> = (0..sites).map(|other| other == alone).collect();
                let found = step(&mut switched, &inputs, &flags);
                let what = format!("{}, {}", model.display(), site.name);
                same_as_the_original(&model, &expected, &found, &what);
            }
        }
    }
}

/// Behind the gates CogVideoX has two exits of each module, and Flux' double blocks have.
#[test]
fn cuts_behind_the_gates_of_several_exits_give_the_same_outputs() {
    let gated = "{ kind: [joint, mlp], blocks: 0 }";
    let rules =
        format!("version: 1\nrules: [{{ name: gated, match: {gated}, cut: gated, broadcast: {{ range: 2 }} }}]");
    let several = architectures();
    let several = several.iter().filter(|path| {
        let folder = path.parent().and_then(Path::file_name);
        ["cogvideox", "flux", "sd3"]
            .iter()
            .any(|name| folder == Some(name.as_ref()))
    });
    let mut caches = 0;
    for model in several {
        let patched = patch_with(model, &rules);
        caches += patched.plan.caches().count();
        let mut original = Denoiser::plain(open(model));
        let mut switched = patched.open();
        let inputs = inputs(original.session(), 5);
        let expected = step(&mut original, &inputs, &[]);
        for flag in [false, true] {
            let found = step(&mut switched, &inputs, &[flag]);
            same(&expected, &found, &format!("{}, gated {flag}", model.display()));
        }
    }
    // Two attentions and feed-forwards of nine exports: four exits in CogVideoX, three in Flux and SD3.
    assert_eq!(caches, 3 * (4 + 3 + 3));
}

#[test]
fn broadcasting_needs_a_filled_cache() {
    let patched = patch_with(&shipped_model(), BY_ATTENTION);
    let mut switched = patched.open();
    let inputs = inputs(switched.session(), 1);
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let error = switched.step(&inputs, &[true, false, false]).unwrap_err().to_string();
    assert!(error.contains("pab.broadcast.spatial"), "{error}");
}

#[test]
fn nothing_of_a_broadcast_module_is_left_in_its_static_graph() {
    let patched = patch_with(&shipped_model(), BY_ATTENTION);
    let count = |flags: &[bool]| {
        let graph = ModelGraph::new(Model::load(&patched.path).unwrap()).unwrap();
        let graph = without(graph, &patched.plan, flags).unwrap();
        graph.graph.nodes().filter(|(_, node)| node.is("Softmax")).count()
    };
    assert_eq!(count(&[false, false, false]), 18);
    assert_eq!(count(&[true, true, true]), 0);
}
