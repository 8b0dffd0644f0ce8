//! One operator on divided data: what it needs, and what it then gives.

use super::facts::Operation;
use super::link::{self, Link, Spelling};
use super::placement::{Part, Placement, Shard};
use crate::axes::Size;

/// What an operator needs of its inputs and gives as outputs, one entry a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub needs: Vec<Placement>,
    pub gives: Vec<Placement>,
    /// Whether the ranks' results must be added: they are parts of a sum.
    pub is_partial: bool,
}

impl Operation<'_> {
    /// The step where everything is whole.
    pub fn whole(&self) -> Step {
        Step {
            needs: vec![None; self.node.inputs().len()],
            gives: vec![None; self.node.outputs().len()],
            is_partial: false,
        }
    }

    /// The step with inputs that lie as `current` says. Inputs that are whole may be taken apart, which costs nothing.
    ///
    /// `None` where the operator cannot do with what a rank has.
    pub fn forward(&self, current: &[Placement]) -> Option<Step> {
        let spelling = link::spelling(self.node.domain(), self.node.operator());
        if matches!(spelling, Some(Spelling::Sizes)) {
            return Some(Step {
                needs: current.to_vec(),
                ..self.whole()
            });
        }
        let sharded = current
            .iter()
            .enumerate()
            .find_map(|(slot, placement)| Some((slot, placement.as_ref()?)));
        let Some((slot, shard)) = sharded else {
            return Some(self.whole());
        };
        let seam = match spelling? {
            Spelling::Regroup => return self.regrouped(slot, shard),
            Spelling::Concat => self.joined(current),
            Spelling::Slice => self.sliced(current).or_else(|| self.chunked(current.first()?.clone()?)),
            Spelling::Split => self
                .taken_apart(current)
                .or_else(|| self.chunked(current.first()?.clone()?)),
            Spelling::Linked(_) | Spelling::Sizes => None,
        };
        if seam.is_some() {
            return seam;
        }
        if let Some(window) = link::window(self, shard.dim) {
            let is_alone = current.iter().flatten().count() == 1 && slot == 0;
            let inner = shard.inner.divide_exactly(&window).filter(|_| is_alone)?;
            return self.windows(&window, &Shard { inner, ..shard.clone() });
        }
        let links = self.links()?;
        let link = links.iter().find(|link| link.inputs.contains(&(slot, shard.dim)))?;
        let agree = current.iter().enumerate().all(|(slot, placement)| match placement {
            Some(other) => link.inputs.contains(&(slot, other.dim)) && other.at(shard.dim) == *shard,
            None => true,
        });
        (agree && !link.outputs.is_empty()).then(|| self.along(link, shard))
    }

    /// The step that gives output `slot` divided as `wanted` says.
    pub fn backward(&self, slot: usize, wanted: &Shard) -> Option<Step> {
        match link::spelling(self.node.domain(), self.node.operator())? {
            Spelling::Regroup => {
                let (from, to) = (self.input(0)?, self.output(slot)?);
                let mut step = self.whole();
                *step.needs.first_mut()? = Some(wanted.regrouped(to, from)?);
                *step.gives.get_mut(slot)? = Some(wanted.clone());
                return Some(step);
            }
            Spelling::Concat if self.axis(0, self.output(0)?.len()) == Some(wanted.dim) => {
                return self.joined_backward(wanted);
            }
            Spelling::Slice | Spelling::Split => {
                if let Some(count) = self.chunks(slot, wanted.dim) {
                    return self.chunked(Shard {
                        outer: &count * &wanted.outer,
                        ..wanted.clone()
                    });
                }
            }
            Spelling::Sizes => return None,
            _ => {}
        }
        if let Some(window) = link::window(self, wanted.dim) {
            return self.windows(&window, wanted);
        }
        let links = self.links()?;
        let link = links.iter().find(|link| link.outputs.contains(&(slot, wanted.dim)))?;
        Some(self.along(link, wanted))
    }

    /// The step that sums over parts of an index, where `current` says of an input that it is divided along it, and a
    /// sum of the ranks' results is the whole.
    pub fn summed(&self, current: &[Placement]) -> Option<Step> {
        let (slot, shard) = current
            .iter()
            .enumerate()
            .find_map(|(slot, placement)| Some((slot, placement.as_ref()?)))?;
        let links = self.links()?;
        let link = links
            .iter()
            .find(|link| link.adds_up && link.inputs.contains(&(slot, shard.dim)))?;
        Some(Step {
            is_partial: true,
            ..self.along(link, shard)
        })
    }

    /// The indices that the operator runs over.
    pub fn links(&self) -> Option<Vec<Link>> {
        let links = match link::spelling(self.node.domain(), self.node.operator())? {
            Spelling::Linked(links) => links(self)?,
            Spelling::Concat => self.besides_axis()?,
            Spelling::Slice => self.whole_dimensions()?,
            Spelling::Split => self.besides_axis()?,
            Spelling::Regroup | Spelling::Sizes => return None,
        };
        Some(links)
    }

    fn along(&self, link: &Link, shard: &Shard) -> Step {
        let mut step = self.whole();
        for (slot, dim) in &link.inputs {
            if let Some(need) = step.needs.get_mut(*slot) {
                *need = Some(shard.at(*dim));
            }
        }
        for (slot, dim) in &link.outputs {
            if let Some(give) = step.gives.get_mut(*slot) {
                *give = Some(shard.at(*dim));
            }
        }
        step
    }

    fn regrouped(&self, slot: usize, shard: &Shard) -> Option<Step> {
        if slot != 0 {
            return None;
        }
        let mut step = self.whole();
        *step.needs.first_mut()? = Some(shard.clone());
        *step.gives.first_mut()? = Some(shard.regrouped(self.input(0)?, self.output(0)?)?);
        Some(step)
    }

    /// Windows side by side, of which each rank has what `gives` says: what they are of stays together.
    fn windows(&self, window: &Size, gives: &Shard) -> Option<Step> {
        let mut step = self.whole();
        *step.needs.first_mut()? = Some(Shard {
            inner: &gives.inner * window,
            ..gives.clone()
        });
        *step.gives.first_mut()? = Some(gives.clone());
        Some(step)
    }

    /// Dimensions of all inputs and outputs beside attribute `axis`.
    fn besides_axis(&self) -> Option<Vec<Link>> {
        let shape = self.input(0)?;
        let along = self.axis(0, shape.len())?;
        let inputs = if self.node.is("Split") {
            1
        } else {
            self.node.inputs().len()
        };
        let mut links = Vec::new();
        for (dim, size) in shape.iter().enumerate() {
            if dim == along || size.is_one() {
                continue;
            }
            let has = |shape: Option<&[Size]>| shape.and_then(|shape| shape.get(dim)) == Some(size);
            let outputs = 0..self.node.outputs().len();
            if (0..inputs).all(|slot| has(self.input(slot))) && outputs.clone().all(|slot| has(self.output(slot))) {
                links.push(Link {
                    inputs: (0..inputs).map(|slot| (slot, dim)).collect(),
                    outputs: outputs.map(|slot| (slot, dim)).collect(),
                    adds_up: false,
                });
            }
        }
        Some(links)
    }

    /// Dimensions that a `Slice` takes whole.
    fn whole_dimensions(&self) -> Option<Vec<Link>> {
        let (from, to) = (self.input(0)?, self.output(0)?);
        let steps = self.numbers("steps", 4);
        let turns = steps.is_some_and(|steps| steps.iter().any(|step| !step.is_one()));
        if turns || (self.node.input(4).is_some() && self.numbers("steps", 4).is_none()) {
            return None;
        }
        let kept = from.iter().zip(to).enumerate();
        let kept = kept.filter(|(_, (from, to))| from == to && !from.is_one());
        Some(
            kept.map(|(dim, _)| Link {
                inputs: vec![(0, dim)],
                outputs: vec![(0, dim)],
                adds_up: false,
            })
            .collect(),
        )
    }

    /// Parts set one behind the other along the divided dimension.
    fn joined(&self, current: &[Placement]) -> Option<Step> {
        let along = self.axis(0, self.output(0)?.len())?;
        if current.iter().flatten().any(|shard| shard.dim != along) {
            return None;
        }
        let mut step = self.whole();
        let mut parts = Vec::new();
        for (slot, placement) in current.iter().enumerate() {
            let size = self.input(slot)?.get(along)?;
            let shard = placement.clone().unwrap_or_else(|| Shard::of(along, size.clone()));
            parts.extend(shard.in_parts()?);
            *step.needs.get_mut(slot)? = Some(shard);
        }
        *step.gives.first_mut()? = Some(Shard::joined(along, parts));
        Some(step)
    }

    fn joined_backward(&self, wanted: &Shard) -> Option<Step> {
        let mut step = self.whole();
        let mut parts = wanted.in_parts()?.into_iter();
        for slot in 0..self.node.inputs().len() {
            let own = together(&mut parts, self.input(slot)?.get(wanted.dim)?)?;
            *step.needs.get_mut(slot)? = Some(Shard::joined(wanted.dim, own));
        }
        *step.gives.first_mut()? = Some(wanted.clone());
        parts.next().is_none().then_some(step)
    }

    /// The parts of the first input, where it has seams along `along`.
    fn with_seams(&self, current: &[Placement], along: usize) -> Option<Vec<Part>> {
        let shard = current.first()?.as_ref()?;
        let has_seams = shard.dim == along && shard.parts.len() > 1;
        shard.in_parts().filter(|_| has_seams)
    }

    /// A part that ends at seams of the divided dimension. What else is sliced stays as it is.
    fn sliced(&self, current: &[Placement]) -> Option<Step> {
        let (from, to) = (self.input(0)?, self.output(0)?);
        let along = current.first()?.as_ref()?.dim;
        let mut parts = self.with_seams(current, along)?.into_iter();
        if from.get(along) == to.get(along) {
            return None;
        }
        let (start, _) = self.sliced_from(along)?;
        together(&mut parts, &start)?;
        let taken = together(&mut parts, to.get(along)?)?;
        let mut step = self.whole();
        step.needs.first_mut()?.clone_from(current.first()?);
        *step.gives.first_mut()? = Some(Shard::joined(along, taken));
        Some(step)
    }

    /// Where a `Slice` begins along dimension `along`, and the place of that number among its starts.
    pub fn sliced_from(&self, along: usize) -> Option<(Size, usize)> {
        let shape = self.input(0)?;
        let starts = self.numbers("starts", 1)?;
        let place = match self.node.input(3).is_some() || self.node.ints("axes").is_some() {
            true => self
                .axes("axes", 3, shape.len())?
                .iter()
                .position(|axis| *axis == along)?,
            false => along,
        };
        if let Some(steps) = self.numbers("steps", 4)
            && !steps.get(place)?.is_one()
        {
            return None;
        }
        let start = starts.get(place)?.clone();
        let start = match start.as_number() {
            Some(..0) => shape.get(along)? + &start,
            _ => start,
        };
        Some((start, place))
    }

    /// How many chunks like output `slot` the first input has along dimension `along`, where the output is one of them.
    pub fn chunks(&self, slot: usize, along: usize) -> Option<Size> {
        let (from, to) = (self.input(0)?.get(along)?, self.output(slot)?.get(along)?);
        let count = from.divide_exactly(to).filter(|count| !count.is_one())?;
        let is_chunk = match self.node.is("Slice") {
            true => {
                let (start, _) = self.sliced_from(along)?;
                start.as_number() == Some(0) || start.divide_exactly(to).is_some()
            }
            false => {
                self.node.input(1).is_some()
                    && self.axis(0, self.input(0)?.len()) == Some(along)
                    && (0..self.node.outputs().len())
                        .all(|slot| self.output(slot).and_then(|shape| shape.get(along)) == Some(to))
            }
        };
        is_chunk.then_some(count)
    }

    /// Chunks of an input that is divided within each of them.
    fn chunked(&self, shard: Shard) -> Option<Step> {
        let count = self.chunks(0, shard.dim)?;
        let outer = shard.outer.divide_exactly(&count)?;
        let mut step = self.whole();
        for give in &mut step.gives {
            *give = Some(Shard {
                outer: outer.clone(),
                ..shard.clone()
            });
        }
        *step.needs.first_mut()? = Some(shard);
        Some(step)
    }

    /// Parts that end at seams of the divided dimension.
    fn taken_apart(&self, current: &[Placement]) -> Option<Step> {
        let along = self.axis(0, self.input(0)?.len())?;
        let mut parts = self.with_seams(current, along)?.into_iter();
        // Sizes are written anew, which attribute `num_outputs` leaves no place for.
        self.node.input(1)?;
        let mut step = self.whole();
        step.needs.first_mut()?.clone_from(current.first()?);
        for slot in 0..self.node.outputs().len() {
            let taken = together(&mut parts, self.output(slot)?.get(along)?)?;
            *step.gives.get_mut(slot)? = Some(Shard::joined(along, taken));
        }
        Some(step)
    }
}

/// The next of `parts` that have `size` entries together.
fn together(parts: &mut impl Iterator<Item = Part>, size: &Size) -> Option<Vec<Part>> {
    let mut taken = Vec::new();
    let mut sum = Size::number(0);
    while sum != *size {
        let part = parts.next()?;
        sum = &sum + &part.size();
        taken.push(part);
    }
    Some(taken)
}
