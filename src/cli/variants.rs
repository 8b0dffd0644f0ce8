//! Single steps of original, patched model and static graphs without the broadcast modules, timed in turn.

use super::Failure;
use super::args::SessionOptions;
use super::patch::Written;
use super::session::open;
use super::terminal::Terminal;
use crate::generation::{GenerationError, Roles, known_sizes, sizes_of};
use crate::graph::ModelGraph;
use crate::onnx::{Model, SaveOptions};
use crate::rewrite::without;
use crate::runtime::{Denoiser, ElementType, Feedback, Port, Session, Tensor};
use crate::sampler::noise;
use crate::schedule::Schedule;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// The timestep at which steps are timed; its value does not matter for the time.
const TIMESTEP: f64 = 500.0;

/// Original, patched model, and for each set of rules the static graph from which their modules were taken out.
pub struct Variants {
    original: Timed,
    patched: Timed,
    removed: Vec<Timed>,
    /// The flags of the step that broadcasts everything.
    broadcasting: Vec<bool>,
    _folder: tempfile::TempDir,
}

/// What the models are fed.
pub struct Values {
    /// Sizes of open dimensions.
    pub sizes: BTreeMap<String, usize>,
    /// Inputs that have no role.
    pub given: BTreeMap<String, Tensor>,
}

/// Times of single steps in milliseconds, one a round.
#[derive(Default)]
pub struct Times {
    /// The original model.
    pub original: Vec<f64>,
    /// The patched model in a run that broadcasts nothing, and so keeps no cache.
    pub computing: Vec<f64>,
    /// The patched model in a step that computes everything and keeps it for later broadcasts.
    pub keeping: Vec<f64>,
    /// The patched model with everything broadcast.
    pub broadcasting: Vec<f64>,
    /// The static graphs, one a set.
    pub removed: Vec<Vec<f64>>,
}

impl Times {
    /// Takes the rounds of another opening of the same variants.
    pub fn extend(&mut self, other: Times) {
        self.original.extend(other.original);
        self.computing.extend(other.computing);
        self.keeping.extend(other.keeping);
        self.broadcasting.extend(other.broadcasting);
        self.removed.resize_with(other.removed.len(), Vec::new);
        for (times, more) in self.removed.iter_mut().zip(other.removed) {
            times.extend(more);
        }
    }
}

/// An open model with values for all its inputs.
struct Timed {
    denoiser: Denoiser,
    inputs: Vec<(String, Tensor)>,
    milliseconds: Vec<f64>,
}

impl Variants {
    /// Opens all variants. `sets` holds one flag for each rule: true takes the modules of that rule out.
    ///
    /// What memory a session happens to get makes it some percent faster or slower for as long as it is open, and those
    /// that are opened first get the better memory: `backwards` opens them in reverse.
    pub fn open(
        original: &Path,
        written: &Written,
        options: &SessionOptions,
        sets: &[Vec<bool>],
        values: &Values,
        backwards: bool,
        terminal: &Terminal,
    ) -> Result<Variants, Failure> {
        let folder = tempfile::Builder::new()
            .prefix(".pab-variants-")
            .tempdir_in(written.model.parent().unwrap_or(Path::new(".")))
            .map_err(|source| crate::report::ReportError::Write {
                path: written.model.clone(),
                source,
            })?;
        let mut paths = Vec::with_capacity(sets.len());
        for (index, set) in sets.iter().enumerate() {
            let graph = ModelGraph::new(Model::load(&written.model)?).map_err(Failure::of(original, Failure::graph))?;
            let graph = without(graph, &written.plan, set).map_err(Failure::of(original, Failure::rewrite))?;
            let model = graph.into_model().map_err(Failure::of(original, Failure::graph))?;
            let path = folder.path().join(format!("variant-{index}.onnx"));
            let options = SaveOptions {
                stop: terminal.stop().clone(),
                ..SaveOptions::default()
            };
            model.save(&path, &options)?;
            paths.push(path);
        }
        let open_removed =
            || -> Result<Vec<Session>, Failure> { paths.iter().map(|path| open(path, options, terminal)).collect() };
        let (session, patched, removed) = if backwards {
            let removed = open_removed()?;
            let patched = open(&written.model, options, terminal)?;
            (open(original, options, terminal)?, patched, removed)
        } else {
            let session = open(original, options, terminal)?;
            let patched = open(&written.model, options, terminal)?;
            (session, patched, open_removed()?)
        };
        let own = own_inputs(original, session.inputs(), values)?;
        let original_model = Timed::plain(session, &own);
        let feedback = Feedback::try_from(&written.plan).map_err(Failure::of(original, Failure::generation))?;
        let patched = Timed {
            denoiser: Denoiser::patched(patched, feedback)?,
            inputs: own.clone(),
            milliseconds: Vec::new(),
        };
        let mut variants = Variants {
            original: original_model,
            removed: Vec::with_capacity(sets.len()),
            broadcasting: broadcasting(&patched.denoiser, written.plan.rules.len()),
            patched,
            _folder: folder,
        };
        // One computing step gives caches of the right shapes for the static graphs.
        variants.patched.step(&vec![false; written.plan.rules.len()])?;
        let caches = variants.patched.denoiser.caches()?;
        for session in removed {
            let mut inputs = own.clone();
            let wanted = |name: &str| session.inputs().iter().any(|port| port.name == name);
            inputs.extend(caches.iter().filter(|(name, _)| wanted(name)).cloned());
            variants.removed.push(Timed {
                denoiser: Denoiser::plain(session),
                inputs,
                milliseconds: Vec::new(),
            });
        }
        Ok(variants)
    }

    /// Times `rounds` rounds. Each runs every variant once; every other round runs them in reverse, so that neither a
    /// drift of the machine's speed nor what stood before favours one.
    pub fn time(&mut self, rounds: usize, what: &str, terminal: &Terminal) -> Result<Times, Failure> {
        self.time_those(|_| true, rounds, what, terminal)
    }

    /// The same without the patched model: original and static graphs.
    pub fn time_removed(&mut self, rounds: usize, what: &str, terminal: &Terminal) -> Result<Times, Failure> {
        self.time_those(|variant| !matches!(variant, 1 | 2), rounds, what, terminal)
    }

    fn time_those(
        &mut self,
        wanted: fn(&usize) -> bool,
        rounds: usize,
        what: &str,
        terminal: &Terminal,
    ) -> Result<Times, Failure> {
        let computing = vec![false; self.broadcasting.len()];
        let variants: Vec<usize> = (0..3 + self.removed.len()).filter(wanted).collect();
        let nothing = Schedule::from_flags(computing.len(), &vec![computing.clone(); 2]);
        let mut times = Times::default();
        let bar = terminal.steps(what, (rounds + 1) * variants.len());
        // Round 0 warms up.
        for round in 0..=rounds {
            let mut order = variants.clone();
            if round % 2 == 1 {
                order.reverse();
            }
            for variant in order {
                terminal.stop().check()?;
                match variant {
                    0 => self.original.time(&[], round > 0)?,
                    1 => {
                        self.patched.denoiser.begin(&nothing)?;
                        let computed = self.patched.step(&computing)?;
                        if round > 0 {
                            times.computing.push(computed);
                        }
                    }
                    // A step behind the end of that run: from here on the caches are kept.
                    2 => {
                        let kept = self.patched.step(&computing)?;
                        let broadcast = self.patched.step(&self.broadcasting)?;
                        if round > 0 {
                            times.keeping.push(kept);
                            times.broadcasting.push(broadcast);
                        }
                    }
                    _ => self.removed[variant - 3].time(&[], round > 0)?,
                }
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        times.original.clone_from(&self.original.milliseconds);
        times.removed = self.removed.iter().map(|timed| timed.milliseconds.clone()).collect();
        Ok(times)
    }
}

/// The flags that broadcast everything, or as much as a step of the schedule does that the model holds itself.
fn broadcasting(denoiser: &Denoiser, rules: usize) -> Vec<bool> {
    let held = denoiser.feedback().steps.iter().flat_map(|table| &table.flags);
    let most = held.max_by_key(|flags| flags.iter().filter(|flag| **flag).count());
    most.cloned().unwrap_or_else(|| vec![true; rules])
}

impl Timed {
    fn plain(session: Session, inputs: &[(String, Tensor)]) -> Timed {
        Timed {
            denoiser: Denoiser::plain(session),
            inputs: inputs.to_vec(),
            milliseconds: Vec::new(),
        }
    }

    /// Runs a step twice and returns the milliseconds of the second. Threads of the session that ran before still spin
    /// for a while and take a core from the first.
    fn step(&mut self, flags: &[bool]) -> Result<f64, Failure> {
        let inputs: Vec<(&str, &Tensor)> = self
            .inputs
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        self.denoiser.step(&inputs, flags)?;
        let begun = Instant::now();
        self.denoiser.step(&inputs, flags)?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }

    fn time(&mut self, flags: &[bool], keep: bool) -> Result<(), Failure> {
        let milliseconds = self.step(flags)?;
        if keep {
            self.milliseconds.push(milliseconds);
        }
        Ok(())
    }
}

/// A value for every input of a plain model: those that are given, noise, a timestep in the middle, and noise as
/// text of which all counts.
fn own_inputs(model: &Path, ports: &[Port], values: &Values) -> Result<Vec<(String, Tensor)>, Failure> {
    let refuse = |error: GenerationError| Failure::generation(model.to_owned(), error);
    let given: Vec<&str> = values.given.keys().map(String::as_str).collect();
    let roles = Roles::of(ports, &given).map_err(refuse)?;
    // The batch is set by default, also where the model fixes it.
    let mut sizes = values.sizes.clone();
    sizes.remove("batch");
    known_sizes(ports, &sizes).map_err(refuse)?;
    let type_of = |port: &Port| port.element_type.unwrap_or(ElementType::Float32);
    let random = |port: &Port, seed: u64| -> Result<(String, Tensor), Failure> {
        let elements = noise(&sizes_of(port, &values.sizes).map_err(refuse)?, seed)?;
        Ok((port.name.clone(), Tensor::from_array(elements).cast(type_of(port))))
    };
    let mut inputs = vec![random(&roles.latent, 0)?];
    let shape = sizes_of(&roles.timestep, &values.sizes).map_err(refuse)?;
    let timestep = Tensor::from_array(ndarray::ArrayD::from_elem(shape, TIMESTEP));
    inputs.push((roles.timestep.name.clone(), timestep.cast(type_of(&roles.timestep))));
    if let Some(text) = &roles.text {
        inputs.push(random(text, 1)?);
    }
    if let Some(mask) = &roles.mask {
        let shape = sizes_of(mask, &values.sizes).map_err(refuse)?;
        let all = Tensor::from_array(ndarray::ArrayD::from_elem(shape, 1.0_f32));
        inputs.push((mask.name.clone(), all.cast(type_of(mask))));
    }
    if let Some(pooled) = &roles.pooled {
        inputs.push(random(pooled, 2)?);
    }
    for (name, tensor) in &values.given {
        let port = ports.iter().find(|port| port.name == *name);
        inputs.push((
            name.clone(),
            tensor.clone().cast(port.map_or(tensor.element_type(), type_of)),
        ));
    }
    Ok(inputs)
}
