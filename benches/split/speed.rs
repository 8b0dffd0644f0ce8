//! Two ranks with one thread each against one with one thread, on the shipped model (2,048 tokens a clip) and on others.

use super::ranks::{Export, Form, Named, Opened, opened, options, part_of, plainly};
use pab_patch::attention::Sites;
use pab_patch::collective::{Mesh as Ranks, Rank, World};
use pab_patch::generation::sizes_of;
use pab_patch::graph::ModelGraph;
use pab_patch::runtime::{ElementType, Optimization, Port, Session, Tensor};
use pab_patch::sampler::noise;
use pab_patch::shard::Mesh;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// A multiple of all ranges.
const STEPS: usize = 12;
/// Of the shipped model.
const ROUNDS: usize = 25;
/// Of a model that was named: of true width, so that its runs take half a minute.
const FEW_ROUNDS: usize = 5;
const RANGES: [usize; 3] = [2, 4, 6];

/// Seconds of runs in alternating order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    /// The model's file.
    pub model: String,
    pub what: String,
    /// Of one clip.
    pub tokens: usize,
    /// Clips that a step makes, the halves of guidance among them.
    pub batch: usize,
    pub steps: usize,
    pub one: Vec<f64>,
    pub two: Vec<f64>,
    /// Two runs of the whole model at once, which have nothing to do with each other: what two cores can give.
    pub apart: Vec<f64>,
}

fn flags(broadcast: bool) -> Vec<Vec<bool>> {
    let of_step = |step: usize| {
        RANGES
            .iter()
            .map(|range| broadcast && !step.is_multiple_of(*range))
            .collect()
    };
    (0..STEPS).map(of_step).collect()
}

/// Noise, a timestep and a text; of what is open there are two clips and four tokens of text.
fn inputs(export: &Export) -> Named {
    let session = Session::open(&export.path, &options(Optimization::Basic)).unwrap();
    let open = BTreeMap::from([("batch", 2), ("text", 4)].map(|(name, size)| (name.to_owned(), size)));
    let value = |(place, port): (usize, &Port)| {
        let shape = sizes_of(port, &open).unwrap();
        let tensor = match port.element_type {
            Some(ElementType::Int64) => Tensor::new(&shape, vec![500i64; shape.iter().product()]).unwrap(),
            _ => Tensor::from_array(noise(&shape, place as u64).unwrap()),
        };
        (port.name.clone(), tensor)
    };
    session.inputs().iter().enumerate().map(value).collect()
}

fn run_steps(opened: &mut Opened, inputs: &Named, steps: &[Vec<bool>]) -> f64 {
    let begun = Instant::now();
    for flags in steps {
        opened.step(inputs, flags).unwrap_or_else(|error| panic!("{error}"));
    }
    begun.elapsed().as_secs_f64()
}

/// Threads that run the steps when told, and say how long it took.
struct Workers {
    told: Vec<Sender<()>>,
    times: Receiver<f64>,
}

impl Workers {
    fn new<F>(count: usize, steps: &[Vec<bool>], open: F) -> Workers
    where
        F: Fn(usize) -> (Opened, Named) + Send + Sync + 'static,
    {
        let (open, (said, times)) = (Arc::new(open), channel());
        let mut told = Vec::new();
        for number in 0..count {
            let (sender, receiver) = channel::<()>();
            told.push(sender);
            let (open, said, steps) = (open.clone(), said.clone(), steps.to_vec());
            std::thread::spawn(move || {
                let (mut opened, given) = open(number);
                while receiver.recv().is_ok() {
                    said.send(run_steps(&mut opened, &given, &steps)).unwrap();
                }
            });
        }
        Workers { told, times }
    }

    /// Seconds until the last of them is done.
    fn run(&self) -> f64 {
        self.told.iter().for_each(|worker| worker.send(()).unwrap());
        self.told.iter().map(|_| self.times.recv().unwrap()).fold(0.0, f64::max)
    }
}

/// Measures the shipped model, or the one that is named.
pub fn run(named: Option<&String>) {
    let shipped = super::root().join("models/latte-shapes/model.onnx");
    let path = named.map_or(shipped, PathBuf::from);
    let rounds = if named.is_some() { FEW_ROUNDS } else { ROUNDS };
    let model = super::name(&path);
    let export = Arc::new(Export::find(&path, super::RANGES_2_4_6).unwrap_or_else(|error| panic!("{error}")));
    let given = inputs(&export);
    let [batch, _, frames, height, width] = given[0].1.shape()[..] else {
        panic!("{}: the latent of a video comes first", path.display())
    };
    let mut rows: Vec<Row> = match super::file("speed").exists() {
        true => super::kept("speed"),
        false => Vec::new(),
    };
    rows.retain(|row| row.model != model);
    for (what, broadcast) in [
        ("original", None),
        ("patched, nothing broadcast", Some(false)),
        ("patched, ranges 2/4/6", Some(true)),
    ] {
        let steps: Vec<Vec<bool>> = match broadcast {
            None => vec![Vec::new(); STEPS],
            Some(broadcast) => flags(broadcast),
        };
        let patched = broadcast.is_some();
        let ranks = ranks(&export, &given, &steps, patched);
        let (export, given, flags) = (export.clone(), given.clone(), steps.clone());
        let wholes = Workers::new(2, &steps, move |_| {
            let whole = open(&export, export.model.clone(), &export.sites, patched, &flags, None);
            (whole, given.clone())
        });
        let alone = |wholes: &Workers| {
            wholes.told[0].send(()).unwrap();
            wholes.times.recv().unwrap()
        };
        let mut row = Row {
            model: model.clone(),
            what: what.to_owned(),
            // Patches of two values a side.
            tokens: frames * height * width / 4,
            batch,
            steps: STEPS,
            one: Vec::new(),
            two: Vec::new(),
            apart: Vec::new(),
        };
        for round in 0..=rounds {
            let (one, two, apart) = (alone(&wholes), ranks.run(), wholes.run());
            // The first round warms up.
            if round > 0 {
                row.one.push(one);
                row.two.push(two);
                row.apart.push(apart);
            }
        }
        println!("{what}: {row:?}");
        rows.push(row);
        super::keep("speed", &rows);
    }
}

/// The model, or what one rank has of it, opened as it is or with switches.
fn open(
    export: &Export,
    model: ModelGraph,
    sites: &Sites,
    patched: bool,
    steps: &[Vec<bool>],
    rank: Option<&Arc<Rank>>,
) -> Opened {
    let all = options(Optimization::default());
    let opened = match patched {
        false => plainly(&export.path, model, &all, rank),
        true => {
            let patched = export.patched(model, sites).unwrap();
            opened(&export.path, patched, Form::Switch, steps, &all, rank)
        }
    };
    opened.unwrap_or_else(|error| panic!("{error}"))
}

/// Two ranks that keep their latents.
fn ranks(export: &Arc<Export>, given: &Named, steps: &[Vec<bool>], patched: bool) -> Workers {
    let mesh = Mesh::sequence(2);
    let split = export.split(&mesh, true).unwrap_or_else(|error| panic!("{error}"));
    assert!(split.latents.is_some(), "{:?}", split.gathered);
    let world = World::new(Ranks::try_from(mesh).unwrap(), Duration::from_secs(60));
    let (export, given, flags) = (export.clone(), given.clone(), steps.to_vec());
    Workers::new(2, steps, move |number| {
        let rank: Arc<Rank> = world.join(number).unwrap();
        let graph = split.at_rank(number).unwrap();
        let opened = open(&export, graph.model, &graph.sites, patched, &flags, Some(&rank));
        let mut given = given.clone();
        if let Some(latents) = &split.latents {
            let found = given.iter_mut().find(|(name, _)| *name == latents.input);
            let (_, tensor) = found.unwrap();
            *tensor = part_of(tensor, latents, &split.mesh, number);
        }
        (opened, given)
    })
}
