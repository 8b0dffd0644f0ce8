//! Two ranks with one thread each against one with one thread, on the shipped model: 2,048 tokens a clip.

use super::ranks::{Export, Form, Named, Opened, opened, options, part_of, plainly};
use pab_patch::collective::{Communicator, Mesh as Ranks, Rank, World};
use pab_patch::runtime::{Optimization, Session, Tensor};
use pab_patch::sampler::noise;
use pab_patch::shard::Mesh;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// A multiple of all ranges.
const STEPS: usize = 12;
const ROUNDS: usize = 9;
const RANGES: [usize; 3] = [2, 4, 6];

/// Seconds of runs in alternating order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    pub tokens: usize,
    pub steps: usize,
    pub one: Vec<f64>,
    pub two: Vec<f64>,
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

pub fn run() {
    let path = super::root().join("models/latte-shapes/model.onnx");
    let export = Arc::new(Export::find(&path, super::RANGES_2_4_6).unwrap_or_else(|error| panic!("{error}")));
    let given = inputs(&export);
    let all = options(Optimization::default());
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
        let mut one = match broadcast {
            None => plainly(&path, export.model.clone(), &all, None),
            Some(_) => {
                let patched = export.patched(export.model.clone(), &export.sites).unwrap();
                opened(&path, patched, Form::Switch, &steps, &all, None)
            }
        }
        .unwrap_or_else(|error| panic!("{error}"));
        let (ranks, times) = pair(&export, &given, &steps, broadcast.is_some());
        let mut row = Row {
            what: what.to_owned(),
            tokens: 8 * 16 * 16,
            steps: STEPS,
            one: Vec::new(),
            two: Vec::new(),
        };
        for round in 0..=ROUNDS {
            let alone = run_steps(&mut one, &given, &steps);
            ranks.iter().for_each(|rank| rank.send(()).unwrap());
            let together = ranks.iter().map(|_| times.recv().unwrap()).fold(0.0, f64::max);
            // The first round warms up.
            if round > 0 {
                row.one.push(alone);
                row.two.push(together);
            }
        }
        println!("{what}: one {:?}, two {:?}", row.one, row.two);
        rows.push(row);
        super::keep("speed", &rows);
    }
}

/// Two ranks that wait to be told to run, and where they say how long it took.
fn pair(
    export: &Arc<Export>,
    given: &Named,
    steps: &[Vec<bool>],
    patched: bool,
) -> (Vec<Sender<()>>, std::sync::mpsc::Receiver<f64>) {
    let mesh = Mesh::sequence(2);
    let split = Arc::new(export.split(&mesh, true).unwrap_or_else(|error| panic!("{error}")));
    assert!(split.latents.is_some(), "{:?}", split.gathered);
    let world = World::new(Ranks::try_from(mesh).unwrap(), Duration::from_secs(60));
    let (said, times) = channel();
    let mut told = Vec::new();
    for number in 0..2 {
        let (sender, receiver) = channel::<()>();
        told.push(sender);
        let (export, split, world, said) = (export.clone(), split.clone(), world.clone(), said.clone());
        let (mut given, steps) = (given.clone(), steps.to_vec());
        std::thread::spawn(move || {
            let rank: Arc<Rank> = world.join(number).unwrap();
            let all = options(Optimization::default());
            let graph = split.at_rank(number).unwrap();
            let opened = match patched {
                false => plainly(&export.path, graph.model, &all, Some(&rank)),
                true => {
                    let patched = export.patched(graph.model, &graph.sites).unwrap();
                    opened(&export.path, patched, Form::Switch, &steps, &all, Some(&rank))
                }
            };
            let mut opened = opened.unwrap_or_else(|error| panic!("{error}"));
            if let Some(latents) = &split.latents {
                let found = given.iter_mut().find(|(name, _)| *name == latents.input);
                let (_, tensor) = found.unwrap();
                *tensor = part_of(tensor, latents, &split.mesh, rank.rank());
            }
            while receiver.recv().is_ok() {
                said.send(run_steps(&mut opened, &given, &steps)).unwrap();
            }
        });
    }
    (told, times)
}
