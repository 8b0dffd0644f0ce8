//! The step behind the model as a graph, for devices with memory of their own: guidance, the scheduler's sums, and what the
//! model is given next.
//!
//! Weights are inputs, so that one graph serves a whole run, and runs of other lengths.

use std::collections::BTreeSet;

use crate::onnx::messages::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, ModelProto, NodeProto, TensorProto,
    TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};
use crate::sampler::{LinearRun, LinearStep, Weights};

pub(super) const OUTPUT: &str = "output";
pub(super) const SAMPLE: &str = "sample";
pub(super) const NOISE: &str = "noise";
pub(super) const NUMBERS: &str = "numbers";
pub(super) const NEXT_SAMPLE: &str = "sample.next";
pub(super) const NEXT_LATENT: &str = "latent.next";
/// The sum of the next sample's absolute values: it is finite where all of them are.
pub(super) const MAGNITUDE: &str = "magnitude";

/// The name of what is kept in this place, before a step.
pub(super) fn kept(place: usize) -> String {
    format!("kept.{place}")
}

/// The name of what is kept in this place, behind a step.
pub(super) fn next_kept(place: usize) -> String {
    format!("kept.{place}.next")
}

/// What a sum is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Term {
    Sample,
    Output,
    Noise,
    Clean,
    Kept(usize),
}

/// All that a step's graph depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StepGraph {
    /// The sample's sizes, `[batch, channels, ...]`.
    pub sample: Vec<usize>,
    /// The channels that the model gives, of which the first are the sample's; none where they are known only when it runs.
    pub output_channels: Option<usize>,
    /// How many copies of the batch the model is given: 2 under guidance.
    pub copies: usize,
    pub output_type: DataType,
    pub latent_type: DataType,
    /// The terms that some step has in each sum: the next sample's, then those of what is kept.
    sums: Vec<BTreeSet<Term>>,
    clip: Option<f32>,
}

impl StepGraph {
    /// The graph of the steps of a run.
    pub fn new(
        run: &LinearRun,
        sample: &[usize],
        output_channels: Option<usize>,
        copies: usize,
        output_type: DataType,
        latent_type: DataType,
    ) -> StepGraph {
        let mut sums = vec![BTreeSet::new(); 1 + run.kept];
        for step in &run.steps {
            for (terms, weights) in sums.iter_mut().zip(step.sums()) {
                terms.extend(
                    weighted(weights)
                        .filter(|(_, weight)| *weight != 0.0)
                        .map(|(term, _)| term),
                );
            }
        }
        StepGraph {
            sample: sample.to_vec(),
            output_channels,
            copies,
            output_type,
            latent_type,
            sums,
            clip: run.clip,
        }
    }

    /// Whether there is an input for noise.
    pub fn takes_noise(&self) -> bool {
        self.sums.iter().any(|terms| terms.contains(&Term::Noise))
    }

    /// Whether a model's output of this shape is what a step takes: the sample's sizes with all copies of the batch, and
    /// maybe twice as many channels.
    pub fn takes(&self, output: &[usize]) -> bool {
        let channels = self.size(1);
        let sizes = output.iter().zip(&self.sample).enumerate();
        output.len() == self.sample.len()
            && sizes.into_iter().all(|(axis, (output, sample))| match axis {
                0 => *output == self.copies * sample,
                1 => match self.output_channels {
                    Some(given) => *output == given,
                    None => *output == channels || *output == 2 * channels,
                },
                _ => output == sample,
            })
    }

    /// How many tensors are kept.
    pub fn kept(&self) -> usize {
        self.sums.len() - 1
    }

    /// What the graph takes as numbers in a step: the scale of guidance, that of the model's next input, the weights of the
    /// clean sample, and those of the sums.
    pub fn numbers(&self, step: &LinearStep, guidance: f32, next_scale: f32) -> Vec<f32> {
        let clean = step.clean.unwrap_or((0.0, 0.0));
        let mut numbers = vec![guidance, next_scale, clean.0, clean.1];
        let nothing = Weights::default();
        let given = step.sums().chain(std::iter::repeat(&nothing));
        for (terms, weights) in self.sums.iter().zip(given) {
            numbers.extend(terms.iter().map(|term| weight(weights, *term)));
        }
        numbers
    }

    /// The graph as a model.
    pub fn model(&self) -> ModelProto {
        let count = 4 + self.sums.iter().map(BTreeSet::len).sum::<usize>();
        let mut builder = Builder::default();
        let numbers = builder.numbers(count);
        let number = |place: usize| numbers.get(place).cloned().unwrap_or_default();
        let output = self.guided(&mut builder, &number(0));
        let clean = self.clip.map(|range| {
            let of_output = builder.node("Mul", &[&output, &number(2)]);
            let of_sample = builder.node("Mul", &[SAMPLE, &number(3)]);
            let clean = builder.node("Add", &[&of_output, &of_sample]);
            let (least, most) = (builder.scalar(-range), builder.scalar(range));
            builder.node("Clip", &[&clean, &least, &most])
        });
        let mut place = 4;
        for (row, terms) in self.sums.iter().enumerate() {
            let mut sum: Option<String> = None;
            for term in terms {
                let value = match term {
                    Term::Sample => SAMPLE.to_owned(),
                    Term::Output => output.clone(),
                    Term::Noise => NOISE.to_owned(),
                    Term::Clean => clean.clone().unwrap_or_else(|| SAMPLE.to_owned()),
                    Term::Kept(place) => kept(*place),
                };
                let product = builder.node("Mul", &[&value, &number(place)]);
                place += 1;
                sum = Some(match sum {
                    Some(sum) => builder.node("Add", &[&sum, &product]),
                    None => product,
                });
            }
            let sum = sum.unwrap_or_else(|| {
                let zero = builder.scalar(0.0);
                builder.node("Mul", &[SAMPLE, &zero])
            });
            let name = row.checked_sub(1).map_or_else(|| NEXT_SAMPLE.to_owned(), next_kept);
            builder.named("Identity", &[&sum], &name);
        }
        let magnitudes = builder.node("Abs", &[NEXT_SAMPLE]);
        builder.named("ReduceSum", &[&magnitudes], MAGNITUDE);
        builder.attribute("keepdims", 0);
        self.next_latent(&mut builder, &number(1));
        self.finished(builder, count)
    }

    /// The model's output in float32, without learned variances, and guided.
    fn guided(&self, builder: &mut Builder, scale: &str) -> String {
        let mut output = OUTPUT.to_owned();
        let (batch, channels) = (self.size(0), self.size(1));
        if self.output_channels != Some(channels) {
            output = builder.slice(&output, 1, 0, channels);
        }
        if self.output_type != DataType::Float {
            output = builder.cast(&output, DataType::Float);
        }
        if self.copies < 2 {
            return output;
        }
        // As `guide` has it: u + scale · (c - u).
        let empty = builder.slice(&output, 0, 0, batch);
        let prompt = builder.slice(&output, 0, batch, 2 * batch);
        let difference = builder.node("Sub", &[&prompt, &empty]);
        let scaled = builder.node("Mul", &[&difference, scale]);
        builder.node("Add", &[&empty, &scaled])
    }

    /// What the model is given in the next step.
    fn next_latent(&self, builder: &mut Builder, scale: &str) {
        let mut latent = builder.node("Mul", &[NEXT_SAMPLE, scale]);
        if self.latent_type != DataType::Float {
            latent = builder.cast(&latent, self.latent_type);
        }
        if self.copies < 2 {
            builder.named("Identity", &[&latent], NEXT_LATENT);
        } else {
            builder.named("Concat", &vec![latent.as_str(); self.copies], NEXT_LATENT);
            builder.attribute("axis", 0);
        }
    }

    fn finished(&self, builder: Builder, count: usize) -> ModelProto {
        let mut latent_shape = known(&self.sample);
        latent_shape.splice(..1, [Some(self.copies * self.size(0))]);
        let mut output_shape = latent_shape.clone();
        output_shape.splice(1..2, [self.output_channels]);
        let sample_shape = known(&self.sample);
        let float = |name: &str| info(name, DataType::Float, &sample_shape);
        let mut inputs = vec![
            info(OUTPUT, self.output_type, &output_shape),
            float(SAMPLE),
            info(NUMBERS, DataType::Float, &[Some(count)]),
        ];
        let mut outputs = vec![
            float(NEXT_SAMPLE),
            info(NEXT_LATENT, self.latent_type, &latent_shape),
            info(MAGNITUDE, DataType::Float, &[]),
        ];
        if self.takes_noise() {
            inputs.push(float(NOISE));
        }
        for place in 0..self.kept() {
            inputs.push(float(&kept(place)));
            outputs.push(float(&next_kept(place)));
        }
        ModelProto::of_standard_operators(
            GraphProto {
                name: Some("step".to_owned()),
                input: inputs,
                output: outputs,
                node: builder.nodes,
                initializer: builder.initializers,
                ..GraphProto::default()
            },
            17,
        )
    }

    fn size(&self, axis: usize) -> usize {
        self.sample.get(axis).copied().unwrap_or(1)
    }
}

/// The terms of a sum with their weights.
fn weighted(weights: &Weights) -> impl Iterator<Item = (Term, f32)> {
    let own = [Term::Sample, Term::Output, Term::Noise, Term::Clean];
    let kept = (0..weights.kept.len()).map(Term::Kept);
    own.into_iter().chain(kept).map(|term| (term, weight(weights, term)))
}

fn weight(weights: &Weights, term: Term) -> f32 {
    match term {
        Term::Sample => weights.sample,
        Term::Output => weights.output,
        Term::Noise => weights.noise,
        Term::Clean => weights.clean,
        Term::Kept(place) => weights.kept.get(place).copied().unwrap_or(0.0),
    }
}

fn known(shape: &[usize]) -> Vec<Option<usize>> {
    shape.iter().copied().map(Some).collect()
}

fn info(name: &str, element: DataType, shape: &[Option<usize>]) -> ValueInfoProto {
    let size = |size: &Option<usize>| Dimension {
        dim_value: size.and_then(|size| i64::try_from(size).ok()),
        dim_param: size.is_none().then(|| "channels".to_owned()),
        ..Dimension::default()
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: Some(element as i32),
                shape: Some(TensorShapeProto {
                    dim: shape.iter().map(size).collect(),
                }),
            }),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// Nodes in their order.
#[derive(Default)]
struct Builder {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl Builder {
    /// A node whose output has a name of its own.
    fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        let name = format!("value.{}", self.nodes.len());
        self.named(operator, inputs, &name);
        name
    }

    fn named(&mut self, operator: &str, inputs: &[&str], output: &str) {
        self.nodes.push(NodeProto {
            op_type: Some(operator.to_owned()),
            name: Some(format!("{operator}.{}", self.nodes.len())),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        });
    }

    /// A number on the last node.
    fn attribute(&mut self, name: &str, number: i64) {
        if let Some(node) = self.nodes.last_mut() {
            node.attribute.push(AttributeProto {
                name: Some(name.to_owned()),
                r#type: Some(AttributeType::Int as i32),
                i: Some(number),
                ..AttributeProto::default()
            });
        }
    }

    fn cast(&mut self, input: &str, to: DataType) -> String {
        let name = self.node("Cast", &[input]);
        self.attribute("to", to as i64);
        name
    }

    fn slice(&mut self, input: &str, axis: usize, from: usize, to: usize) -> String {
        let [from, to, axis] = [from, to, axis].map(|number| self.integers(&[number]));
        self.node("Slice", &[input, &from, &to, &axis])
    }

    /// The names of the numbers that the graph takes, each of shape `[1]`. One `Split` would do, but WebGPU has none with so
    /// many outputs.
    fn numbers(&mut self, count: usize) -> Vec<String> {
        let places = 0..count;
        places.map(|place| self.slice(NUMBERS, 0, place, place + 1)).collect()
    }

    fn integers(&mut self, numbers: &[usize]) -> String {
        let bytes = numbers.iter().flat_map(|number| (*number as i64).to_le_bytes());
        self.initializer(DataType::Int64, vec![numbers.len() as i64], bytes.collect())
    }

    fn scalar(&mut self, number: f32) -> String {
        self.initializer(DataType::Float, Vec::new(), number.to_le_bytes().to_vec())
    }

    fn initializer(&mut self, element: DataType, dims: Vec<i64>, bytes: Vec<u8>) -> String {
        let name = format!("constant.{}", self.initializers.len());
        self.initializers.push(TensorProto {
            name: Some(name.clone()),
            dims,
            data_type: Some(element as i32),
            raw_data: Some(bytes.into()),
            ..TensorProto::default()
        });
        name
    }
}

#[cfg(test)]
mod tests;
