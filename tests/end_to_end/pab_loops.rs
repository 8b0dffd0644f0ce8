//! Whole denoising loops against diffusers' Pyramid Attention Broadcast, step by step.
//!
//! `tests/oracle/pab` is made by `tests/oracle/pab_diffusers.py`: Latte and CogVideoX, 30 and 50 steps, three sets of
//! ranges and two windows. What diffusers broadcasts changes its output by 0.2 to 39 %; ours is within 1e-5 of it.

use crate::program::{json, root, succeed};
use ndarray::{ArrayD, ArrayView1, Axis, concatenate};
use ndarray_npy::{NpzReader, WriteNpyExt};
use pab_patch::runtime::{self, Denoiser, ElementType, Options, Port, Provider, Session, Tensor};
use pab_patch::sampler::{CHANNEL_AXIS, Scheduler, SchedulerConfig, SeededNoise, guide};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What the difference of two steps may be, as part of the largest value. Measured is 1e-6.
const TOLERANCE: f32 = 1e-5;

/// One run of `runs.json`.
#[derive(Debug, Deserialize)]
struct Run {
    model: String,
    export: String,
    steps: usize,
    /// Of spatial (or joint), temporal and cross attention.
    ranges: [usize; 3],
    window: [f64; 2],
    guidance: f32,
    file: String,
    /// For each attention module of diffusers a digit a step: `1` where it computed.
    computed: BTreeMap<String, String>,
}

/// The rules by name: what a module of diffusers belongs to.
const RULES: [&str; 3] = ["spatial", "temporal", "cross"];

fn rule_of(module: &str) -> usize {
    match module {
        _ if module.starts_with("temporal_") => 1,
        _ if module.ends_with("attn2") => 2,
        _ => 0,
    }
}

fn folder() -> PathBuf {
    root().join("tests/oracle/pab")
}

fn runs() -> Vec<Run> {
    let runs: Vec<Run> = serde_json::from_reader(File::open(folder().join("runs.json")).unwrap()).unwrap();
    assert_eq!(runs.len(), 2 * (3 * 2 + 2 * 2));
    runs
}

fn array(file: &str, name: &str) -> ArrayD<f32> {
    let mut archive = NpzReader::new(File::open(folder().join(file)).unwrap()).unwrap();
    archive
        .by_name(name)
        .unwrap_or_else(|error| panic!("{file}, {name}: {error}"))
}

impl Run {
    fn start(&self, name: &str) -> ArrayD<f32> {
        array(&format!("{}.npz", self.model), name)
    }

    fn scheduler(&self) -> Box<dyn Scheduler> {
        let config = SchedulerConfig::load(&folder().join("scheduler_config.json")).unwrap();
        config.scheduler(self.steps).unwrap()
    }

    fn export(&self) -> PathBuf {
        root().join("tests/data/corpus").join(&self.export)
    }

    /// The steps at which the modules of a rule compute; `None` where the model has none of that kind.
    fn computed(&self, rule: usize) -> Option<&str> {
        let mut modules = self.computed.iter().filter(|(module, _)| rule_of(module) == rule);
        let (_, first) = modules.next()?;
        assert!(
            modules.all(|(_, other)| other == first),
            "modules of one rule go together"
        );
        Some(first)
    }

    /// The rules that say the same in our words.
    fn rules(&self) -> String {
        let [low, high] = self.window;
        let rule = |(rule, kinds): (usize, &str)| {
            let range = self.ranges[rule];
            let broadcast = format!("{{ range: {range}, window: {{ timesteps: [{low}, {high}] }} }}");
            let name = RULES[rule];
            format!("  - {{ name: {name}, match: {{ kind: {kinds} }}, broadcast: {broadcast} }}\n")
        };
        let kinds = ["[spatial, joint]", "temporal", "cross"];
        let present = kinds
            .into_iter()
            .enumerate()
            .filter(|(rule, _)| self.computed(*rule).is_some());
        format!("version: 1\nrules:\n{}", present.map(rule).collect::<String>())
    }

    /// Patches an export with these rules; returns the patched model and the plan.
    fn patch(&self, export: &Path, into: &Path) -> (PathBuf, serde_json::Value) {
        let rules = into.join("rules.yaml");
        std::fs::write(&rules, self.rules()).unwrap();
        let scheduler = folder().join("scheduler_config.json");
        let steps = self.steps.to_string();
        let arguments: [&OsStr; 9] = [
            export.as_os_str(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "--scheduler".as_ref(),
            scheduler.as_os_str(),
            "--steps".as_ref(),
            steps.as_ref(),
            "-o".as_ref(),
            into.as_os_str(),
        ];
        let printed = json(arguments);
        (
            PathBuf::from(printed["model"].as_str().unwrap()),
            printed["plan"].clone(),
        )
    }

    /// Every step of a host, from its own latents or, `forced`, from those of diffusers.
    fn follow(&self, host: &mut PlainHost, forced: bool, tolerance: f32) {
        let mut scheduler = self.scheduler();
        let mut latents = self.start("latents");
        let text = self.start("text");
        let outputs = array(&self.file, "output");
        host.caches.clear();
        for step in 0..self.steps {
            let flags = RULES.iter().enumerate().filter_map(|(rule, name)| {
                let computed = self.computed(rule)?;
                Some((*name, computed.as_bytes()[step] == b'0'))
            });
            let timestep = scheduler.timesteps()[step];
            let both = concatenate(Axis(0), &[latents.view(), latents.view()]).unwrap();
            let output = host.step(&both, timestep, &text, &flags.collect::<Vec<_>>());
            let expected = outputs.index_axis(Axis(0), step).to_owned();
            let difference = relative(&output, &expected);
            let what = format!("{}, step {step}, forced {forced}", self.file);
            assert!(difference < tolerance, "{what}: {difference:e}");
            let taken = if forced { &expected } else { &output };
            let channels = latents.shape()[CHANNEL_AXIS.index()];
            let guided = guide(taken.view(), self.guidance, CHANNEL_AXIS, channels).unwrap();
            let noise = &mut SeededNoise::new(0);
            latents = scheduler.step(step, guided.view(), latents.view(), noise).unwrap();
        }
        let difference = relative(&latents, &self.last_latents());
        assert!(difference < TOLERANCE, "{}: {difference:e} at the end", self.file);
    }

    fn last_latents(&self) -> ArrayD<f32> {
        let kept = array(&self.file, "latents");
        kept.index_axis(Axis(0), kept.shape()[0] - 1).to_owned()
    }
}

/// The largest difference as part of the largest value.
fn relative(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0_f32, |most, value| most.max(value.abs()));
    let difference = largest(&mut found.iter().zip(expected).map(|(one, other)| one - other));
    difference / largest(&mut expected.iter().copied())
}

/// A program that runs ONNX files and knows of a patched one only the names `pab.broadcast.<rule>`, `pab.cache.<site>`
/// and `pab.cache.<site>.next`: no plan, no shapes but those of the inputs, no binding of memory.
struct PlainHost {
    session: Denoiser,
    caches: BTreeMap<String, Tensor>,
}

impl PlainHost {
    fn open(model: &Path) -> PlainHost {
        runtime::ensure().unwrap();
        let options = Options {
            threads: Some(crate::program::THREADS),
            provider: Provider::Cpu,
            ..Options::default()
        };
        PlainHost {
            // It takes the flags and caches as inputs like others.
            session: Denoiser::plain(Session::open(model, &options).unwrap()),
            caches: BTreeMap::new(),
        }
    }

    /// One step; returns the model's own output.
    fn step(
        &mut self,
        latents: &ArrayD<f32>,
        timestep: f64,
        text: &ArrayD<f32>,
        flags: &[(&str, bool)],
    ) -> ArrayD<f32> {
        let value = |port: &Port| -> Tensor {
            if let Some(rule) = port.name.strip_prefix("pab.broadcast.") {
                return Tensor::scalar(flags.iter().any(|(name, flag)| *name == rule && *flag));
            }
            if port.name.starts_with("pab.cache.") {
                let zeros = || {
                    // What a cache holds before it is filled is never read, so any size will do where it is open.
                    let shape: Vec<usize> = port
                        .shape
                        .iter()
                        .map(|size| size.map_or(1, |size| size as usize))
                        .collect();
                    Tensor::zeros(port.element_type.unwrap(), &shape)
                };
                return self.caches.get(&port.name).cloned().unwrap_or_else(zeros);
            }
            match (port.element_type, port.shape.len()) {
                (Some(ElementType::Int64), _) => Tensor::from_array(ArrayD::from_elem(vec![2], timestep as i64)),
                (_, 5) => Tensor::from_array(latents.clone()),
                _ => Tensor::from_array(text.clone()),
            }
        };
        let ports = self.session.session().inputs();
        let inputs: Vec<(String, Tensor)> = ports.iter().map(|port| (port.name.clone(), value(port))).collect();
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut outputs = self
            .session
            .step(&inputs, &[])
            .unwrap_or_else(|error| panic!("{error}"));
        let own = outputs.remove(0).1.into_f32();
        self.caches = outputs
            .into_iter()
            .map(|(name, tensor)| (name.strip_suffix(".next").unwrap().to_owned(), tensor))
            .collect();
        own
    }
}

#[test]
fn a_plain_host_equals_diffusers_at_every_step() {
    for run in runs() {
        let folder = tempfile::tempdir().unwrap();
        let (patched, _) = run.patch(&run.export(), folder.path());
        let mut host = PlainHost::open(&patched);
        for forced in [true, false] {
            run.follow(&mut host, forced, TOLERANCE);
        }
    }
}

/// Other exporters, open sizes and random names change nothing.
#[test]
fn other_exports_of_the_same_weights_equal_diffusers_too() {
    /// Of Latte by dynamo, which computes the frequencies of the timestep's embedding in the graph: unpatched, it differs
    /// from PyTorch by 1.25e-5 at some timesteps.
    const DYNAMO: f32 = 2e-5;
    let exports = [
        ("latte", "latte.ts17.dynamic.onnx", TOLERANCE),
        ("latte", "latte_eager.ts17.static.onnx", TOLERANCE),
        ("latte", "latte.dyn18.dynamic.onnx", DYNAMO),
        ("latte", "latte.dyn23.static.anon.onnx", DYNAMO),
        ("latte", "latte.dyn18.static.ortext.onnx", DYNAMO),
        ("cogvideox", "cogvideox/cogvideox.dyn23.static.onnx", TOLERANCE),
        ("cogvideox", "cogvideox/cogvideox.ts17.static.anon.onnx", TOLERANCE),
    ];
    for (model, export, tolerance) in exports {
        let run = runs().into_iter().find(|run| run.model == model).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (patched, _) = run.patch(&root().join("tests/data/corpus").join(export), folder.path());
        run.follow(&mut PlainHost::open(&patched), true, tolerance);
    }
}

#[test]
fn the_plan_broadcasts_at_the_steps_at_which_diffusers_does() {
    for run in runs() {
        let folder = tempfile::tempdir().unwrap();
        let (_, plan) = run.patch(&run.export(), folder.path());
        for (index, rule) in plan["rules"].as_array().unwrap().iter().enumerate() {
            let place = RULES.iter().position(|name| rule["name"] == *name).unwrap();
            let broadcast = plan["schedule"]["broadcast"][index].as_array().unwrap();
            let computed: String = broadcast
                .iter()
                .map(|broadcast| if broadcast.as_bool().unwrap() { '0' } else { '1' })
                .collect();
            assert_eq!(
                Some(computed.as_str()),
                run.computed(place),
                "{}, {}",
                run.file,
                rule["name"]
            );
        }
    }
}

/// The whole way through the program: patch, then run, which writes the sample after every step.
#[test]
fn pab_patch_run_equals_diffusers_at_every_step() {
    for run in runs() {
        let folder = tempfile::tempdir().unwrap();
        let (patched, _) = run.patch(&run.export(), folder.path());
        let given = |name: &str, array: ArrayD<f32>| {
            let path = folder.path().join(name);
            array.write_npy(File::create(&path).unwrap()).unwrap();
            path
        };
        let text = run.start("text");
        let noise = given("noise.npy", run.start("latents"));
        let [empty, prompt] = [0, 1].map(|row| text.index_axis(Axis(0), row).to_owned());
        let (empty, prompt) = (given("empty.npy", empty), given("prompt.npy", prompt));
        let (steps, guidance) = (run.steps.to_string(), run.guidance.to_string());
        let (scheduler, output) = (self::folder().join("scheduler_config.json"), folder.path().join("clip"));
        succeed([
            OsStr::new("run"),
            patched.as_os_str(),
            "--device".as_ref(),
            "cpu".as_ref(),
            "--noise".as_ref(),
            noise.as_os_str(),
            "--prompt-embeds".as_ref(),
            prompt.as_os_str(),
            "--empty-embeds".as_ref(),
            empty.as_os_str(),
            "--scheduler".as_ref(),
            scheduler.as_os_str(),
            "--steps".as_ref(),
            steps.as_ref(),
            "--guidance".as_ref(),
            guidance.as_ref(),
            "--every-step".as_ref(),
            "-o".as_ref(),
            output.as_os_str(),
        ]);
        let mut written = NpzReader::new(File::open(output.join("clip.npz")).unwrap()).unwrap();
        let samples: ArrayD<f32> = written.by_name("samples").unwrap();
        assert_eq!(samples.shape()[0], run.steps);
        // What diffusers' outputs make of the noise, step by step.
        let outputs = array(&run.file, "output");
        let (mut scheduler, mut latents) = (run.scheduler(), run.start("latents"));
        for step in 0..run.steps {
            let channels = latents.shape()[CHANNEL_AXIS.index()];
            let output = outputs.index_axis(Axis(0), step);
            let guided = guide(output, run.guidance, CHANNEL_AXIS, channels).unwrap();
            let noise = &mut SeededNoise::new(0);
            latents = scheduler.step(step, guided.view(), latents.view(), noise).unwrap();
            let difference = relative(&samples.index_axis(Axis(0), step).to_owned(), &latents);
            assert!(difference < TOLERANCE, "{}, step {step}: {difference:e}", run.file);
        }
        let difference = relative(&latents, &run.last_latents());
        assert!(
            difference < TOLERANCE,
            "{}: {difference:e} from diffusers' own latents",
            run.file
        );
        let sample: ArrayD<f32> = written.by_name("sample").unwrap();
        assert_eq!(sample, samples.index_axis(Axis(0), run.steps - 1));
    }
}

/// The comparison can fail: a plain run is far from what diffusers broadcasts, at most steps by more than 1 %.
#[test]
fn a_run_without_broadcasts_is_far_away() {
    for run in runs() {
        let effect = array(&run.file, "effect");
        let effect: ArrayView1<f32> = effect.view().into_dimensionality().unwrap();
        let broadcast = (0..run.steps).filter(|step| {
            (0..3).any(|rule| {
                run.computed(rule)
                    .is_some_and(|computed| computed.as_bytes()[*step] == b'0')
            })
        });
        let mut changed: Vec<f32> = broadcast.map(|step| effect[step]).collect();
        changed.sort_by(f32::total_cmp);
        assert!(
            changed[0] > 100.0 * TOLERANCE && changed[changed.len() / 2] > 0.01,
            "{}: {changed:?}",
            run.file
        );
    }
}
