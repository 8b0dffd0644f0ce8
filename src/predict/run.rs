//! A whole run on a number of ranks.

use super::device::Device;
use super::extent::Extents;
use super::link::Link;
use super::memory::Memory;
use super::operator::Class;
use super::split::{Exchange, Method, ShardedAxis, Split};
use super::work::{PredictError, Works};
use crate::attention::{Kind, Sites};
use crate::axes::{Axes, Bindings};
use crate::graph::{ModelGraph, NodeId};
use crate::rewrite::{Choice, SwitchOptions};
use crate::rules::Rules;
use crate::schedule::Schedule;
use serde::Serialize;
use std::collections::HashSet;

/// A run of a model: its kernels, and which of them each step has.
#[derive(Clone, Debug)]
pub struct Run {
    works: Works,
    attentions: Vec<Attended>,
    sets: Vec<Set>,
    steps: usize,
    caches: Vec<(f64, Extents)>,
    /// Bytes of the model's outputs.
    output_bytes: f64,
}

/// An attention that may have to exchange something.
#[derive(Clone, Debug)]
struct Attended {
    kind: Kind,
    bytes: f64,
    extents: Extents,
}

/// Steps that broadcast the same rules.
#[derive(Clone, Debug)]
struct Set {
    steps: usize,
    /// By kernel, whether they leave it out.
    without: Vec<bool>,
    /// By attention, whether they broadcast it.
    broadcast: Vec<bool>,
}

/// What a run takes, original and broadcasting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// How it is divided.
    pub split: Split,
    /// Everything computed at every step.
    pub original: Figures,
    /// With the rules.
    pub broadcast: Figures,
}

/// What a run takes of a rank. Times are in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// All steps of a clip.
    pub clip: f64,
    /// A step, mean.
    pub step: f64,
    /// Of the clip, computing.
    pub computing: f64,
    /// Of the clip, waiting for exchanges.
    pub exchanging: f64,
    /// Bytes that the rank sends in a clip.
    pub sent: f64,
    /// Operations of the rank in a clip.
    pub flops: f64,
    /// Memory of the rank.
    pub memory: Memory,
}

/// What the kernels of a class take of a step that computes everything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassFigures {
    /// The class.
    pub class: Class,
    /// How many kernels.
    pub kernels: usize,
    /// Their operations.
    pub flops: f64,
    /// Bytes that they move, weights among them.
    pub bytes: f64,
    /// Seconds.
    pub seconds: f64,
}

impl Run {
    /// A run of `flags.len()` steps; each holds one flag for each of `rules`, true to broadcast. With `fused` an
    /// attention's core is one kernel.
    ///
    /// # Errors
    /// Those of [`Works::of`].
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        model: &ModelGraph,
        axes: &Axes,
        sites: &Sites,
        bindings: &Bindings,
        choices: &[Choice<'_>],
        rules: &Rules,
        options: &SwitchOptions,
        flags: &[Vec<bool>],
        fused: bool,
    ) -> Result<Run, PredictError> {
        let works = Works::of(model, axes, sites, bindings, fused)?;
        let extents = |value| {
            let shape = axes.dimensions(value);
            shape.map_or(Extents::NONE, |shape| Extents::of(shape, bindings))
        };
        let attending: Vec<_> = sites.sites.iter().filter(|site| site.kind != Kind::Mlp).collect();
        let attentions = attending.iter().map(|site| Attended {
            kind: site.kind,
            bytes: site.output.bytes(bindings).unwrap_or(0) as f64,
            extents: extents(site.output.first().value),
        });
        let sets = Schedule::from_flags(rules.rules.len(), flags).distinct_sets();
        let sets = sets.into_iter().map(|set| {
            let flagged = |rule: usize| set.flags.get(rule).copied().unwrap_or(false);
            let chosen: Vec<&Choice<'_>> = choices.iter().filter(|choice| flagged(choice.rule)).collect();
            let roots: Vec<_> = chosen.iter().flat_map(|choice| choice.cuts.values()).collect();
            let gone: HashSet<NodeId> = model.graph.exclusive_to(&roots).into_iter().collect();
            Set {
                steps: set.steps,
                without: works
                    .works
                    .iter()
                    .map(|work| work.nodes.iter().all(|node| gone.contains(node)))
                    .collect(),
                broadcast: attending
                    .iter()
                    .map(|site| chosen.iter().any(|choice| choice.site.name == site.name))
                    .collect(),
            }
        });
        let sets = sets.collect();
        let caches = choices.iter().map(|choice| {
            let bytes = choice.cache_bytes(rules, options).evaluate(bindings).unwrap_or(0);
            (bytes as f64, extents(choice.cuts.first().value))
        });
        let outputs = model.graph.outputs().filter_map(|output| {
            let sizes = axes.sizes(output)?;
            let elements: Option<f64> = sizes.iter().map(|size| Some(size.evaluate(bindings)? as f64)).product();
            let bits = crate::onnx::tensor::element_bits(axes.element_type(output)?)?;
            Some(elements? * f64::from(bits) / 8.0)
        });
        Ok(Run {
            attentions: attentions.collect(),
            sets,
            steps: flags.len(),
            caches: caches.collect(),
            output_bytes: outputs.sum(),
            works,
        })
    }

    /// The kernels.
    pub fn works(&self) -> &Works {
        &self.works
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The best way to divide the run among `ranks` by this method: the axis that gives the shortest clip with the rules.
    /// With `guidance` the halves of the batch go to two groups, where the ranks are even; with `axis` that one is divided.
    pub fn best(
        &self,
        ranks: usize,
        method: Method,
        guidance: bool,
        axis: Option<ShardedAxis>,
        device: &Device,
        link: &Link,
    ) -> Forecast {
        let groups = if guidance && ranks.is_multiple_of(2) { 2 } else { 1 };
        let split = |axis| Split {
            guidance: groups,
            sequence: (ranks / groups).max(1),
            axis,
            method,
        };
        if let Some(axis) = axis {
            return self.predict(split(axis), device, link);
        }
        let frames = self.predict(split(ShardedAxis::Frames), device, link);
        let places = self.predict(split(ShardedAxis::Places), device, link);
        match places.broadcast.clip < frames.broadcast.clip {
            true => places,
            false => frames,
        }
    }

    /// What the run takes where it is divided so.
    pub fn predict(&self, split: Split, device: &Device, link: &Link) -> Forecast {
        let shares: Vec<f64> = self.works.works.iter().map(|work| split.share(work)).collect();
        let times: Vec<f64> = self
            .works
            .works
            .iter()
            .zip(&shares)
            .map(|(work, share)| device.seconds(work, *share))
            .collect();
        let activations = self.works.activations(&split);
        let nothing = Set {
            steps: self.steps,
            without: vec![false; times.len()],
            broadcast: vec![false; self.attentions.len()],
        };
        let figures = |sets: &[Set], caches: f64| {
            let mut figures = Figures {
                memory: Memory {
                    weights: self.works.weight_bytes,
                    caches,
                    activations,
                },
                ..Figures::default()
            };
            for set in sets {
                let steps = set.steps as f64;
                let left = set.without.iter().map(|without| if *without { 0.0 } else { steps });
                for (((left, time), share), work) in left.zip(&times).zip(&shares).zip(&self.works.works) {
                    figures.computing += left * time;
                    figures.flops += left * work.flops * share;
                }
                let (sent, seconds) = self.exchanged(set, &split, link);
                figures.sent += steps * sent;
                figures.exchanging += steps * seconds;
            }
            figures.clip = figures.computing + figures.exchanging;
            figures.step = figures.clip / (self.steps.max(1) as f64);
            figures
        };
        let caches = self
            .caches
            .iter()
            .map(|(bytes, extents)| bytes * split.share_of(*extents));
        Forecast {
            split,
            original: figures(&[nothing], 0.0),
            broadcast: figures(&self.sets, caches.sum()),
        }
    }

    /// Bytes that a rank sends in a step of a set, and the seconds that takes.
    fn exchanged(&self, set: &Set, split: &Split, link: &Link) -> (f64, f64) {
        let mut all = Exchange::default();
        for (attention, broadcast) in self.attentions.iter().zip(&set.broadcast) {
            if !broadcast {
                let exchange = split.exchange(attention.kind, attention.bytes, attention.extents);
                all.count += exchange.count;
                all.bytes += exchange.bytes;
            }
        }
        // Neighbours divide the axis; the groups of guidance lie one behind the other.
        let halves = split.guidance_exchange(self.output_bytes);
        let seconds = link.seconds(all.count, all.bytes, split.sequence, 1)
            + link.seconds(halves.count, halves.bytes, split.guidance, split.sequence);
        (all.bytes + halves.bytes, seconds)
    }

    /// What each class of kernels takes of a step that computes everything, divided so.
    pub fn classes(&self, split: &Split, device: &Device) -> Vec<ClassFigures> {
        let of_class = Class::ALL
            .into_iter()
            .filter(|class| *class != Class::View)
            .map(|class| {
                let mut figures = ClassFigures {
                    class,
                    kernels: 0,
                    flops: 0.0,
                    bytes: 0.0,
                    seconds: 0.0,
                };
                for work in self.works.works.iter().filter(|work| work.class == class) {
                    let share = split.share(work);
                    figures.kernels += 1;
                    figures.flops += work.flops * share;
                    figures.bytes += work.weight_bytes + work.bytes * share;
                    figures.seconds += device.seconds(work, share);
                }
                figures
            });
        of_class.filter(|figures| figures.kernels > 0).collect()
    }
}
