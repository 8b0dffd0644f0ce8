//! Why tokens are divided along one factor and not another, as `split` tells it.

use crate::report::number;
use crate::rewrite::split::Split;
use crate::shard::{Candidate, Factor, Group};
use serde::Serialize;

/// A factor that tokens can be divided along.
#[derive(Serialize)]
pub struct Along {
    /// The factor.
    factor: Factor,
    /// What a rank sends in the run, as a share of what it sends with the factor that was taken.
    of_chosen: Option<f64>,
    /// Whether the latent is gathered in every step that was to be kept.
    gathers: bool,
}

impl Along {
    /// What tokens were compared along, the factor that was taken first; nothing where no ranks divide them.
    pub fn of(split: &Split) -> Vec<Along> {
        let axis = split.axes.iter().find(|axis| axis.group == Group::Sequence);
        let Some((axis, chosen)) = axis.and_then(|axis| Some((axis, axis.chosen()?))) else {
            return Vec::new();
        };
        let along = |candidate: &Candidate| Along {
            factor: candidate.factor,
            of_chosen: match chosen.bytes > 0.0 {
                true => Some(candidate.bytes / chosen.bytes),
                // Nothing is as much as nothing, and anything is no share of it.
                false => (candidate.bytes <= 0.0).then_some(1.0),
            },
            gathers: candidate.gathers,
        };
        let others = axis.candidates.iter().filter(|other| other.factor != chosen.factor);
        std::iter::once(chosen).chain(others).map(along).collect()
    }
}

/// One line for each factor that was not taken. `steps` are those of the run, where rules were weighed.
pub fn text(candidates: &[Along], steps: Option<usize>) -> String {
    let Some((chosen, others)) = candidates.split_first() else {
        return String::new();
    };
    let lines = others
        .iter()
        .map(|other| format!("along {}: {}\n", other.factor, why_not(chosen, other, steps)));
    lines.collect()
}

fn why_not(chosen: &Along, other: &Along, steps: Option<usize>) -> String {
    let over = match steps {
        Some(steps) => format!("in {steps} steps by these rules"),
        None => "in a step".to_owned(),
    };
    if other.gathers && !chosen.gathers {
        return "latents would be gathered in every step".to_owned();
    }
    match other.of_chosen {
        Some(share) if share > 1.001 => format!("would send {} of that {over}", number::percent(share)),
        Some(_) => format!("would send as much {over}, and parts are no more even"),
        None => format!("would send something {over}"),
    }
}
