//! One model whole, and over ranks as threads, step by step.

use pab_patch::attention::Sites;
use pab_patch::axes::{Axes, Bindings, InputLabels};
use pab_patch::collective::{Communicator, Mesh as Ranks, Rank, World, run_ranks};
use pab_patch::generation::sizes_of;
use pab_patch::graph::{ModelGraph, flatten};
use pab_patch::onnx::Model;
use pab_patch::rewrite::split::{KeptLatents, Split, SplitOptions, shares, split};
use pab_patch::rewrite::{Patched, Plan, SchedulePlan, SwitchOptions, Wide, fix_sizes, select, switch, variants};
use pab_patch::rules::Rules;
use pab_patch::runtime::{
    Denoiser, ElementType, Feedback, Optimization, Options, Provider, RuntimeError, Session, Tensor, VariantDenoiser,
};
use pab_patch::sampler::noise;
use pab_patch::shard::{Mesh, Preference, ShardError, Shares};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a step takes or gives, by name.
pub type Named = Vec<(String, Tensor)>;

/// A rule for attention and one for feed-forwards.
pub const RULES: &str = "
version: 1
rules:
  - { name: attention, match: { kind: [spatial, temporal, cross, joint] }, broadcast: { range: 2 } }
  - { name: mlp, match: { kind: mlp }, broadcast: { range: 3 } }
";

/// Steps that compute, broadcast attention, broadcast all, feed-forwards alone, and compute again.
pub const STEPS: [[bool; 2]; 5] = [
    [false, false],
    [true, false],
    [true, true],
    [false, true],
    [false, false],
];

/// How a model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Plain,
    /// Patched, with switches.
    Switch,
    /// Patched, as one static graph for each set of rules.
    Variants,
}

/// An export and what was found in it.
pub struct Export {
    pub path: PathBuf,
    pub model: ModelGraph,
    pub axes: Axes,
    pub sites: Sites,
    pub rules: Rules,
}

impl Export {
    pub fn find(path: &Path, rules: &str) -> Result<Export, String> {
        let mut model = Model::load(path).map_err(|error| error.to_string())?;
        flatten(&mut model.proto).map_err(|error| error.to_string())?;
        let model = ModelGraph::new(model).map_err(|error| error.to_string())?;
        let rules = Rules::parse("rules.yaml", rules).map_err(|error| error.to_string())?;
        Export::analysed(path, model, rules)
    }

    fn analysed(path: &Path, model: ModelGraph, rules: Rules) -> Result<Export, String> {
        let axes = Axes::analyse(&model, &InputLabels::default()).map_err(|error| error.to_string())?;
        let sites = Sites::find(&model, &axes).map_err(|error| error.to_string())?;
        Ok(Export {
            path: path.to_owned(),
            model,
            axes,
            sites,
            rules,
        })
    }

    /// The same with the latent's open sizes fixed, as for ranks that keep their parts of it.
    fn fixed(&self) -> Export {
        let sizes = open_sizes()
            .into_iter()
            .filter(|(name, _)| name != "batch" && name != "text");
        let sizes = sizes.map(|(name, size)| (name, size as i64)).collect();
        let mut model = self.model.clone();
        fix_sizes(&mut model.graph, &sizes);
        Export::analysed(&self.path, model, self.rules.clone()).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn split(&self, mesh: &Mesh, keep: bool) -> Result<Split, ShardError> {
        let sequence = Preference {
            keep,
            ..Preference::default()
        };
        let fixed = keep.then(|| self.fixed());
        let export = fixed.as_ref().unwrap_or(self);
        split(
            export.model.clone(),
            &export.axes,
            &export.sites,
            mesh,
            &SplitOptions {
                sequence,
                ..SplitOptions::default()
            },
        )
    }

    /// How often sites compute in a run of so many steps.
    pub fn shares(&self, steps: usize) -> Shares {
        let timesteps: Vec<f64> = (0..steps).map(|step| (steps - step) as f64).collect();
        match select(&self.sites, &self.rules, None) {
            Ok(choices) => shares(&self.sites, &choices, &Wide::default(), &self.rules, &timesteps),
            Err(_) => Shares::default(),
        }
    }

    pub fn patched(&self, model: ModelGraph, sites: &Sites) -> Result<Patched, String> {
        let choices = select(sites, &self.rules, None).map_err(|error| error.to_string())?;
        switch(model, &choices, &self.rules, &SwitchOptions::default()).map_err(|error| error.to_string())
    }
}

/// One thread; without the fusions that a branch would prevent, where results are compared.
pub fn options(optimization: Optimization) -> Options {
    Options {
        provider: Provider::Cpu,
        threads: Some(1),
        device_index: 0,
        optimization,
        cuda_graph: false,
    }
}

/// Sizes of open dimensions; none of them divides by the numbers of ranks.
pub fn open_sizes() -> Vec<(String, usize)> {
    let sizes = [
        ("batch", 2),
        ("frames", 9),
        ("height", 8),
        ("width", 12),
        ("h", 8),
        ("w", 12),
        ("text", 7),
    ];
    let more = [
        ("2*rows", 8),
        ("2*columns", 12),
        ("positions", 24),
        ("tokens", 24),
        ("text_tokens", 7),
        ("image_tokens", 24),
    ];
    sizes
        .into_iter()
        .chain(more)
        .map(|(name, size)| (name.to_owned(), size))
        .collect()
}

pub fn bindings() -> Bindings {
    let sizes = open_sizes();
    Bindings::of(sizes.iter().map(|(name, size)| (name.as_str(), *size as i64)))
}

/// Noise for every real input, small numbers for others; what has one dimension is no less than zero.
pub fn given(session: &Session, seed: u64) -> Result<Named, String> {
    let sizes = open_sizes().into_iter().collect();
    let ports = session.inputs().iter().filter(|port| !port.name.starts_with("pab."));
    let value = |(place, port): (usize, &pab_patch::runtime::Port)| {
        let element_type = port.element_type.unwrap_or(ElementType::Float32);
        let sizes = sizes_of(port, &sizes).map_err(|error| error.to_string())?;
        let values = match element_type {
            ElementType::Int64 => ndarray::ArrayD::from_elem(sizes, 2.0 + seed as f64),
            _ => {
                let values = noise(&sizes, seed + 100 * place as u64).map_err(|error| error.to_string())?;
                let values = if sizes.len() == 1 {
                    values.mapv(f32::abs)
                } else {
                    values
                };
                values.mapv(f64::from)
            }
        };
        Ok((port.name.clone(), Tensor::from_array(values).cast(element_type)))
    };
    ports.enumerate().map(value).collect()
}

/// A model opened in one of its forms.
pub enum Opened {
    One(Box<Denoiser>),
    Several(Box<VariantDenoiser>),
}

impl Opened {
    pub fn step(&mut self, inputs: &Named, flags: &[bool]) -> Result<Named, RuntimeError> {
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        match self {
            Opened::One(denoiser) => denoiser.step(&inputs, flags),
            Opened::Several(denoiser) => denoiser.step(&inputs, flags),
        }
    }
}

fn open(path: &Path, model: ModelGraph, options: &Options, rank: Option<&Arc<Rank>>) -> Result<Session, String> {
    let bytes = model.into_model().map_err(|error| error.to_string())?.to_bytes();
    let session = match rank {
        Some(rank) => {
            let communicator: Arc<dyn Communicator> = rank.clone();
            Session::open_rank_bytes(path, &bytes, options, &communicator)
        }
        None => Session::open_bytes(path, &bytes, options),
    };
    session.map_err(|error| error.to_string())
}

/// Opens a patched model in its form, for the steps whose flags are given.
pub fn opened(
    path: &Path,
    patched: Patched,
    form: Form,
    steps: &[Vec<bool>],
    options: &Options,
    rank: Option<&Arc<Rank>>,
) -> Result<Opened, String> {
    let plan: Plan = patched.plan;
    if form != Form::Variants {
        let feedback = Feedback::try_from(&plan).map_err(|error| error.to_string())?;
        let session = open(path, patched.model, options, rank)?;
        let denoiser = Denoiser::patched(session, feedback).map_err(|error| error.to_string())?;
        return Ok(Opened::One(Box::new(denoiser)));
    }
    let flag = |flags: &Vec<bool>, rule: usize| flags.get(rule).copied().unwrap_or(false);
    let by_rule = (0..plan.rules.len()).map(|rule| steps.iter().map(|flags| flag(flags, rule)).collect());
    let schedule = SchedulePlan {
        timesteps: (0..steps.len()).map(|step| (steps.len() - step) as f64).collect(),
        broadcast: by_rule.collect(),
    };
    let made = variants(&patched.model, &plan, &schedule).map_err(|error| error.to_string())?;
    let mut sessions = Vec::new();
    for variant in made {
        sessions.push((variant.flags, open(path, variant.model, options, rank)?));
    }
    let fed_back: Vec<(String, String)> = plan
        .fed_back()
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .collect();
    let denoiser = VariantDenoiser::new(sessions, fed_back).map_err(|error| error.to_string())?;
    Ok(Opened::Several(Box::new(denoiser)))
}

pub fn plainly(path: &Path, model: ModelGraph, options: &Options, rank: Option<&Arc<Rank>>) -> Result<Opened, String> {
    Ok(Opened::One(Box::new(Denoiser::plain(open(
        path, model, options, rank,
    )?))))
}

/// A part of a tensor along the axis that ranks keep parts of.
pub fn part_of(tensor: &Tensor, latents: &KeptLatents, mesh: &Mesh, rank: usize) -> Tensor {
    let element_type = tensor.element_type();
    let range = latents.range(mesh, rank);
    let whole = tensor.clone().into_f32();
    let part = whole.slice_axis(ndarray::Axis(latents.axis), ndarray::Slice::from(range));
    Tensor::from_array(part.to_owned()).cast(element_type)
}

/// The largest difference, as a share of the largest value.
fn difference(one: &Tensor, other: &Tensor) -> Result<f32, String> {
    if one.shape() != other.shape() {
        return Err(format!("shapes {:?} and {:?}", one.shape(), other.shape()));
    }
    let (one, other) = (one.clone().into_f32(), other.clone().into_f32());
    let largest = one.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let worst = one
        .iter()
        .zip(&other)
        .fold(0.0f32, |worst, (a, b)| match (a - b).is_nan() {
            true => f32::INFINITY,
            false => worst.max((a - b).abs()),
        });
    match largest > 0.0 && largest.is_finite() {
        true => Ok(worst / largest),
        false => Err("the whole gives zeros, or what is no number".to_owned()),
    }
}

/// What came out of a comparison.
pub struct Compared {
    /// The largest difference of any output of any rank at any step.
    pub worst: f32,
    /// Bytes that the rank with most to send sent, for each step.
    pub sent: Vec<u64>,
}

/// Runs an export whole and over `ranks` ranks, and compares outputs with each other and bytes with the formula.
pub fn compare(export: &Arc<Export>, split: Split, form: Form) -> Result<Compared, String> {
    let basic = options(Optimization::Basic);
    let flags: Vec<Vec<bool>> = match form {
        Form::Plain => vec![Vec::new()],
        _ => STEPS.iter().map(|flags| flags.to_vec()).collect(),
    };
    let session = Session::open(&export.path, &basic).map_err(|error| error.to_string())?;
    let fed = (0..flags.len()).map(|step| given(&session, step as u64));
    let fed: Arc<Vec<Named>> = Arc::new(fed.collect::<Result<_, _>>()?);
    let mut whole = match form {
        Form::Plain => Opened::One(Box::new(Denoiser::plain(session))),
        // Both forms of the patched model equal each other to the bit, which other tests show.
        _ => {
            let patched = export.patched(export.model.clone(), &export.sites)?;
            opened(&export.path, patched, Form::Switch, &flags, &basic, None)?
        }
    };
    let expected = fed.iter().zip(&flags).map(|(fed, flags)| whole.step(fed, flags));
    // What ONNX Runtime says of it has the file's path, which is nobody's business.
    let refused = |_| "ONNX Runtime does not run the whole model".to_owned();
    let expected: Vec<Named> = expected.collect::<Result<_, _>>().map_err(refused)?;
    let mesh = split.mesh;
    let world = World::new(
        Ranks::try_from(mesh).map_err(|error| error.to_string())?,
        Duration::from_secs(60),
    );
    let shared = (export.clone(), Arc::new(split), fed, flags);
    let kept = shared.1.latents.clone();
    let results = run_ranks(&world, move |rank: Arc<Rank>| -> Result<_, String> {
        let (export, split, fed, flags) = &shared;
        let basic = options(Optimization::Basic);
        let number = rank.rank();
        let graph = split.at_rank(number).map_err(|error| error.to_string())?;
        let (mut opened, traffic) = match form {
            Form::Plain => {
                let traffic = split.traffic(&graph.model, None, number, &bindings());
                (plainly(&export.path, graph.model, &basic, Some(&rank))?, traffic)
            }
            _ => {
                let patched = export.patched(graph.model, &graph.sites)?;
                let traffic = split.traffic(&patched.model, Some(&patched.plan), number, &bindings());
                (
                    opened(&export.path, patched, form, flags, &basic, Some(&rank))?,
                    traffic,
                )
            }
        };
        let traffic = traffic.ok_or("a size has no value")?;
        let mut steps = Vec::new();
        for (fed, flags) in fed.iter().zip(flags) {
            let mut own = fed.clone();
            if let Some(latents) = &split.latents {
                let found = own.iter_mut().find(|(name, _)| *name == latents.input);
                let (_, tensor) = found.ok_or("there is no latent")?;
                *tensor = part_of(tensor, latents, &split.mesh, number);
            }
            rank.traffic().end_step();
            let outputs = opened.step(&own, flags).map_err(|error| error.to_string())?;
            let sent = rank.traffic().end_step().total();
            // Static graphs leave out what no later step reads, and its exchange.
            let formula = traffic.step(flags);
            if sent > formula || sent < formula && form != Form::Variants {
                return Err(format!(
                    "{sent} bytes were sent, {} by the formula",
                    traffic.step(flags)
                ));
            }
            steps.push((outputs, sent));
        }
        Ok(steps)
    })
    .map_err(|error| error.to_string())?;
    let mut compared = Compared {
        worst: 0.0,
        sent: vec![0; expected.len()],
    };
    for (rank, steps) in results.iter().enumerate() {
        for (number, (outputs, sent)) in steps.iter().enumerate() {
            compared.sent[number] = compared.sent[number].max(*sent);
            for ((name, tensor), (_, expected)) in outputs.iter().zip(&expected[number]) {
                let of_rank = kept.as_ref().filter(|kept| kept.output == *name);
                let expected = of_rank.map_or_else(|| expected.clone(), |kept| part_of(expected, kept, &mesh, rank));
                compared.worst = compared.worst.max(difference(&expected, tensor)?);
            }
        }
    }
    Ok(compared)
}
