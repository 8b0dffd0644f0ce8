//! The weights of one step of DPM-Solver++.

use super::Level;

/// The largest order (`solver_order`).
pub(super) const MOST_ORDER: usize = 3;

/// The equation that is solved (`algorithm_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Equation {
    /// The deterministic one.
    Ordinary,
    /// The one with noise at each step.
    Stochastic,
}

impl Equation {
    /// diffusers' names, and one of another class that diffusers takes for this one.
    pub(super) const NAMES: &'static [(&'static str, Equation)] = &[
        ("dpmsolver++", Equation::Ordinary),
        ("sde-dpmsolver++", Equation::Stochastic),
        ("deis", Equation::Ordinary),
    ];
}

/// How higher orders are taken in (`solver_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Midpoint,
    Heun,
}

impl Rule {
    /// diffusers' names, and those of other classes that diffusers takes for the default.
    pub(super) const NAMES: &'static [(&'static str, Rule)] = &[
        ("midpoint", Rule::Midpoint),
        ("heun", Rule::Heun),
        ("logrho", Rule::Midpoint),
        ("bh1", Rule::Midpoint),
        ("bh2", Rule::Midpoint),
    ];
}

/// A weight for each predicted clean sample, the newest first.
type Weights = [f32; MOST_ORDER];

/// The weights of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Update {
    /// The step's order; of stages the stage.
    pub(super) order: usize,
    /// The weight of the sample, at stages of that at the first one.
    pub(super) sample: f32,
    /// The weights of the predicted clean samples.
    pub(super) clean: Weights,
    /// The weight of new noise.
    pub(super) noise: f32,
}

/// The weights of the derivatives of the clean sample, of order 0 to 2, in a step.
struct Taylor {
    sample: f32,
    zeroth: f32,
    first_midpoint: f32,
    first: f32,
    second: f32,
    noise: f32,
}

impl Taylor {
    /// For a step of length `h` between two levels.
    fn new(from: Level, to: Level, h: f32, equation: Equation) -> Taylor {
        let ratio = to.noise / from.noise;
        let signal = to.signal;
        match equation {
            Equation::Ordinary => {
                let decay = libm::expf(-h) - 1.0;
                Taylor {
                    sample: ratio,
                    zeroth: -(signal * decay),
                    first_midpoint: -0.5 * (signal * decay),
                    first: signal * (decay / h + 1.0),
                    second: -(signal * ((decay + h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Equation::Stochastic => {
                let growth = 1.0 - libm::expf(-2.0 * h);
                let double = 2.0 * h;
                Taylor {
                    sample: ratio * libm::expf(-h),
                    zeroth: signal * growth,
                    first_midpoint: 0.5 * (signal * growth),
                    first: signal * (growth / -double + 1.0),
                    second: signal * ((growth - double) / (double * double) - 0.5),
                    noise: to.noise * growth.sqrt(),
                }
            }
        }
    }

    /// The step with these derivatives, each as weights of clean samples.
    fn update(&self, order: usize, derivatives: &[(f32, Weights)]) -> Update {
        let mut clean = [0.0; MOST_ORDER];
        for (weight, derivative) in derivatives {
            for (sum, part) in clean.iter_mut().zip(derivative) {
                *sum += weight * part;
            }
        }
        Update {
            order,
            sample: self.sample,
            clean,
            noise: self.noise,
        }
    }
}

impl Update {
    /// A step that looks back. `levels` are those after the step, before it, and before earlier ones; there are
    /// `order + 1` or more, else the order is lower.
    pub(super) fn looking_back(levels: &[Level], order: usize, equation: Equation, rule: Rule) -> Update {
        let zeroth = [1.0, 0.0, 0.0];
        match (order, levels) {
            (3, &[to, at, before, earlier, ..]) => {
                let h = to.lambda - at.lambda;
                let taylor = Taylor::new(at, to, h, equation);
                let (r0, r1) = ((at.lambda - before.lambda) / h, (before.lambda - earlier.lambda) / h);
                let newer = [1.0 / r0, -1.0 / r0, 0.0];
                let older = [0.0, 1.0 / r1, -1.0 / r1];
                let change = combined(1.0, newer, -1.0, older);
                let first = combined(1.0, newer, r0 / (r0 + r1), change);
                let second = combined(1.0 / (r0 + r1), change, 0.0, change);
                taylor.update(
                    3,
                    &[(taylor.zeroth, zeroth), (taylor.first, first), (taylor.second, second)],
                )
            }
            (2 | 3, &[to, at, before, ..]) => {
                let h = to.lambda - at.lambda;
                let taylor = Taylor::new(at, to, h, equation);
                let r0 = (at.lambda - before.lambda) / h;
                let weight = match rule {
                    Rule::Midpoint => taylor.first_midpoint,
                    Rule::Heun => taylor.first,
                };
                taylor.update(2, &[(taylor.zeroth, zeroth), (weight, [1.0 / r0, -1.0 / r0, 0.0])])
            }
            (_, &[to, at, ..]) => {
                let taylor = Taylor::new(at, to, to.lambda - at.lambda, equation);
                taylor.update(1, &[(taylor.zeroth, zeroth)])
            }
            _ => Update {
                order: 1,
                sample: 1.0,
                clean: [0.0; MOST_ORDER],
                noise: 0.0,
            },
        }
    }

    /// Stage `order` of a step, from the level of its first stage to that after this one; `levels` as in
    /// [`Update::looking_back`].
    pub(super) fn of_stage(levels: &[Level], order: usize, equation: Equation, rule: Rule) -> Update {
        match (order, levels) {
            (3, &[to, newest, middle, from, ..]) => {
                let h = to.lambda - from.lambda;
                let taylor = Taylor::new(from, to, h, equation);
                let (r0, r1) = ((newest.lambda - from.lambda) / h, (middle.lambda - from.lambda) / h);
                let near = [0.0, 1.0 / r1, -1.0 / r1];
                let far = [1.0 / r0, 0.0, -1.0 / r0];
                let zeroth = (taylor.zeroth, [0.0, 0.0, 1.0]);
                match rule {
                    Rule::Midpoint => taylor.update(3, &[zeroth, (taylor.first, far)]),
                    Rule::Heun => {
                        let apart = r0 - r1;
                        let first = combined(r0 / apart, near, -r1 / apart, far);
                        let second = combined(-2.0 / apart, near, 2.0 / apart, far);
                        taylor.update(3, &[zeroth, (taylor.first, first), (taylor.second, second)])
                    }
                }
            }
            (2, &[to, newest, from, ..]) => {
                let h = to.lambda - from.lambda;
                let taylor = Taylor::new(from, to, h, equation);
                let r0 = (newest.lambda - from.lambda) / h;
                let weight = match rule {
                    Rule::Midpoint => taylor.first_midpoint,
                    Rule::Heun => taylor.first,
                };
                taylor.update(
                    2,
                    &[(taylor.zeroth, [0.0, 1.0, 0.0]), (weight, [1.0 / r0, -1.0 / r0, 0.0])],
                )
            }
            _ => Update::looking_back(levels, 1, equation, rule),
        }
    }

    /// All weights, for checking.
    pub(super) fn numbers(&self) -> [f32; MOST_ORDER + 2] {
        let [newest, before, earlier] = self.clean;
        [self.sample, newest, before, earlier, self.noise]
    }
}

/// A sum of two weighted weights.
fn combined(a: f32, one: Weights, b: f32, other: Weights) -> Weights {
    let mut sum = [0.0; MOST_ORDER];
    for (sum, (one, other)) in sum.iter_mut().zip(one.iter().zip(other)) {
        *sum = a * one + b * other;
    }
    sum
}
