//! Two ranks with one thread each against one with one thread, on the shipped model: 2,048 tokens a clip.

use super::ranks::{Export, Form, Named, Opened, opened, options, part_of, plainly};
use pab_patch::attention::Sites;
use pab_patch::collective::{Mesh as Ranks, Rank, World};
use pab_patch::graph::ModelGraph;
use pab_patch::runtime::{Optimization, Session, Tensor};
use pab_patch::sampler::noise;
use pab_patch::shard::Mesh;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// A multiple of all ranges.
const STEPS: usize = 12;
const ROUNDS: usize = 25;
const RANGES: [usize; 3] = [2, 4, 6];

/// Seconds of runs in alternating order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    pub tokens: usize,
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

fn inputs(export: &Export) -> Named {
    let session = Session::open(&export.path, &options(Optimization::Basic)).unwrap();
    let value = |(place, port): (usize, &pab_patch::runtime::Port)| {
        let shape: &[usize] = match port.name.as_str() {
            "timestep" => return (port.name.clone(), Tensor::new(&[2], vec![500i64, 500]).unwrap()),
            "encoder_hidden_states" => &[2, 4, 64],
            _ => &[2, 3, 8, 32, 32],
        };
        (
            port.name.clone(),
            Tensor::from_array(noise(shape, place as u64).unwrap()),
        )
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

pub fn run() {
    let path = super::root().join("models/latte-shapes/model.onnx");
    let export = Arc::new(Export::find(&path, super::RANGES_2_4_6).unwrap_or_else(|error| panic!("{error}")));
    let given = inputs(&export);
    let mut rows = Vec::new();
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
            what: what.to_owned(),
            tokens: 8 * 16 * 16,
            steps: STEPS,
            one: Vec::new(),
            two: Vec::new(),
            apart: Vec::new(),
        };
        for round in 0..=ROUNDS {
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
