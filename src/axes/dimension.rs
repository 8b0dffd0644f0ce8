//! A dimension of a tensor as an ordered product of labelled factors, for example `batch·frames`.

use super::label::{Label, Labels};
use super::size::Size;
use std::fmt;
use std::sync::Arc;

/// What a factor counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Not known: constants, and axes that an operator made anew.
    Unlabelled,
    /// An axis of a model input, or a part of it.
    Axis(Label),
    /// Dimensions set one behind the other by `Concat`: text and latent tokens, for example.
    Joined(Arc<Joined>),
    /// Two labelled axes that an operator took for one although their labels differ. It counts as not known, and stays
    /// so wherever it meets a labelled axis again.
    Disputed(Labels),
}

/// The parts of a [`Origin::Joined`], in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    parts: Vec<Dimension>,
    depth: u8,
    /// Parts, with those of the joints within them.
    count: usize,
}

impl Joined {
    /// What stands one behind the other, in order.
    pub fn parts(&self) -> &[Dimension] {
        &self.parts
    }
}

/// Deeper joints than this come from no model; they would let a hostile file exhaust the stack.
const DEEPEST_JOINT: u8 = 6;

/// More parts or factors than these come from no model either; they could double at every node. Joints within joints
/// count with all their parts: they may share them, so that few nodes would make a great many.
const MOST_PARTS: usize = 24;

/// One factor of a dimension. Its size is never 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// What it counts.
    pub origin: Origin,
    /// How many.
    pub size: Size,
}

/// A dimension: factors from the slowest to the fastest, none of size 1, neighbours with different labels.
///
/// Most values of a graph have the dimensions of others, so copies share the factors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dimension {
    /// Never an empty list: none where the size is 1.
    factors: Option<Arc<[Factor]>>,
}

impl Factor {
    /// Cuts the factor into an outer one of size `outer` and an inner one of size `inner`.
    pub(super) fn split(self, outer: Size, inner: Size) -> (Factor, Factor) {
        let origin = match self.origin {
            // A part of a joint is not a multiple of anything.
            Origin::Joined(_) => Origin::Unlabelled,
            origin => origin,
        };
        (
            Factor {
                origin: origin.clone(),
                size: outer,
            },
            Factor { origin, size: inner },
        )
    }

    fn labels(&self) -> Labels {
        match &self.origin {
            Origin::Unlabelled | Origin::Disputed(_) => Labels::NONE,
            Origin::Axis(label) => Labels::NONE.with(*label),
            Origin::Joined(joined) => joined
                .parts
                .iter()
                .fold(Labels::NONE, |labels, part| labels.union(part.labels())),
        }
    }
}

impl Dimension {
    /// A dimension of size 1.
    pub const ONE: Dimension = Dimension { factors: None };

    /// A dimension of one factor.
    pub fn new(origin: Origin, size: Size) -> Dimension {
        if size.is_one() {
            return Dimension::ONE;
        }
        let size = if size.is_negative() { Size::unknown() } else { size };
        Dimension {
            factors: Some(Arc::new([Factor { origin, size }])),
        }
    }

    /// An axis of an input.
    pub fn axis(label: Label, size: Size) -> Dimension {
        Dimension::new(Origin::Axis(label), size)
    }

    /// A dimension that nothing but its size is known of.
    pub fn unlabelled(size: Size) -> Dimension {
        Dimension::new(Origin::Unlabelled, size)
    }

    /// The product of `factors`. Factors of size 1 are left out, and neighbours of one label are put together.
    ///
    /// Negative sizes come from damaged files only and are taken for unknown, so that every number is a size.
    pub fn of(factors: impl IntoIterator<Item = Factor>) -> Dimension {
        let mut kept: Vec<Factor> = Vec::new();
        for mut factor in factors {
            if factor.size.is_negative() {
                factor.size = Size::unknown();
            }
            if factor.size.is_one() {
                continue;
            }
            match kept.last_mut() {
                Some(last) if last.origin == factor.origin && !matches!(factor.origin, Origin::Joined(_)) => {
                    last.size = &last.size * &factor.size;
                }
                _ => kept.push(factor),
            }
        }
        if kept.len() > MOST_PARTS {
            return Dimension::unlabelled(Size::product(kept.iter().map(|factor| &factor.size)));
        }
        Dimension {
            factors: (!kept.is_empty()).then(|| kept.into()),
        }
    }

    /// Dimensions set one behind the other.
    pub fn joined(parts: Vec<Dimension>) -> Dimension {
        let mut flat: Vec<Dimension> = Vec::new();
        for part in parts {
            match part.joint() {
                Some(inner) => flat.extend(inner.parts.iter().cloned()),
                None => flat.push(part),
            }
        }
        let size = flat.iter().fold(Size::number(0), |sum, part| &sum + &part.size());
        let labels = flat
            .iter()
            .fold(Labels::NONE, |labels, part| labels.union(part.labels()));
        let depth = 1 + flat.iter().map(Dimension::depth).max().unwrap_or(0);
        let within = flat
            .iter()
            .flat_map(Dimension::factors)
            .map(|factor| match &factor.origin {
                Origin::Joined(joined) => joined.count,
                _ => 0,
            });
        let count = within.fold(flat.len(), usize::saturating_add);
        let origin = match labels.single() {
            None if labels.is_empty() => Origin::Unlabelled,
            // Channels that are set behind constant ones are channels; of other axes the difference is kept.
            Some(label) if flat.iter().all(Dimension::is_labelled) || label == Label::Channels => Origin::Axis(label),
            _ if depth > DEEPEST_JOINT || count > MOST_PARTS => Origin::Unlabelled,
            _ => Origin::Joined(Arc::new(Joined {
                parts: flat,
                depth,
                count,
            })),
        };
        Dimension::new(origin, size)
    }

    /// The parts, where it is a joint as a whole.
    fn joint(&self) -> Option<&Joined> {
        match self.factors() {
            [
                Factor {
                    origin: Origin::Joined(joined),
                    ..
                },
            ] => Some(joined),
            _ => None,
        }
    }

    fn depth(&self) -> u8 {
        let depths = self.factors().iter().map(|factor| match &factor.origin {
            Origin::Joined(joined) => joined.depth,
            _ => 0,
        });
        depths.max().unwrap_or(0)
    }

    /// The factors, the slowest first.
    pub fn factors(&self) -> &[Factor] {
        self.factors.as_deref().unwrap_or_default()
    }

    /// The size: the product of the factors' sizes.
    pub fn size(&self) -> Size {
        Size::product(self.factors().iter().map(|factor| &factor.size))
    }

    /// Whether the size is 1.
    pub fn is_one(&self) -> bool {
        self.factors.is_none()
    }

    /// Every label in it.
    pub fn labels(&self) -> Labels {
        self.factors()
            .iter()
            .fold(Labels::NONE, |labels, factor| labels.union(factor.labels()))
    }

    /// The labels that disagree in its [`Origin::Disputed`] factors.
    pub fn disputed(&self) -> Labels {
        let each = self.factors().iter().map(|factor| match &factor.origin {
            Origin::Disputed(labels) => *labels,
            Origin::Joined(joined) => joined
                .parts
                .iter()
                .fold(Labels::NONE, |labels, part| labels.union(part.disputed())),
            _ => Labels::NONE,
        });
        each.fold(Labels::NONE, Labels::union)
    }

    /// Whether every factor has a label; size 1 has none and needs none.
    pub fn is_labelled(&self) -> bool {
        self.factors().iter().all(|factor| match &factor.origin {
            Origin::Unlabelled | Origin::Disputed(_) => false,
            Origin::Axis(_) => true,
            Origin::Joined(joined) => joined.parts.iter().all(Dimension::is_labelled),
        })
    }

    /// The dimension at another size, after a stride, padding or a partial slice: it keeps its label if it has one only.
    pub fn resized(&self, size: Size) -> Dimension {
        if self.size() == size {
            return self.clone();
        }
        match self.labels().single() {
            Some(label) if self.is_labelled() => Dimension::axis(label, size),
            _ => Dimension::unlabelled(size),
        }
    }

    /// Elements `start..end` of the dimension, none where `end` stands before `start`. What `Concat` joined comes apart again at its seams.
    pub fn slice(&self, start: &Size, end: &Size) -> Dimension {
        if let Some(joined) = self.joint() {
            let mut seam = Size::number(0);
            let mut taken: Option<Vec<Dimension>> = None;
            for part in &joined.parts {
                if seam == *start {
                    taken = Some(Vec::new());
                }
                if let Some(taken) = &mut taken {
                    taken.push(part.clone());
                }
                seam = &seam + &part.size();
                if seam == *end
                    && let Some(mut taken) = taken.take()
                {
                    return match taken.pop() {
                        Some(part) if taken.is_empty() => part,
                        Some(part) => {
                            taken.push(part);
                            Dimension::joined(taken)
                        }
                        None => Dimension::ONE,
                    };
                }
            }
            return Dimension::unlabelled((end - start).or_empty());
        }
        self.rows(start, end)
            .unwrap_or_else(|| self.resized((end - start).or_empty()))
    }

    /// The same where whole rows of the slowest factor are taken, such as the tokens of some frames.
    fn rows(&self, start: &Size, end: &Size) -> Option<Dimension> {
        let (outer, inner) = self.factors().split_first().filter(|(_, inner)| !inner.is_empty())?;
        let each = Size::product(inner.iter().map(|factor| &factor.size));
        let count = |bound: &Size| match bound.as_number() {
            Some(0) => Some(Size::number(0)),
            _ => bound.divide_exactly(&each),
        };
        let taken = Dimension::of([outer.clone()]).slice(&count(start)?, &count(end)?);
        let factors = taken.factors().iter().chain(inner).cloned();
        Some(Dimension::of(factors)).filter(|rows| rows.size() == (end - start).or_empty())
    }

    /// The product of several dimensions, the first slowest.
    pub fn product<'d>(dimensions: impl IntoIterator<Item = &'d Dimension>) -> Dimension {
        Dimension::of(
            dimensions
                .into_iter()
                .flat_map(|dimension| dimension.factors().iter().cloned()),
        )
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Unlabelled => write!(f, "{}", self.size),
            Origin::Axis(label) => write!(f, "{label}"),
            Origin::Disputed(labels) => {
                let words: Vec<&str> = labels.iter().map(Label::word).collect();
                write!(f, "{}?", words.join("|"))
            }
            Origin::Joined(joined) => {
                let parts: Vec<String> = joined.parts.iter().map(Dimension::to_string).collect();
                write!(f, "({})", parts.join("+"))
            }
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_one() {
            return f.pad("1");
        }
        let factors: Vec<String> = self.factors().iter().map(Factor::to_string).collect();
        f.pad(&factors.join("·"))
    }
}

/// `[batch·frames, height·width, channels]`.
pub fn display_shape(dimensions: &[Dimension]) -> String {
    let words: Vec<String> = dimensions.iter().map(Dimension::to_string).collect();
    format!("[{}]", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Dimension {
        Dimension::axis(Label::Text, Size::symbol("text"))
    }

    fn latent() -> Dimension {
        Dimension::product(&[
            Dimension::axis(Label::Frames, Size::number(5)),
            Dimension::axis(Label::Height, Size::number(4)),
            Dimension::axis(Label::Width, Size::number(6)),
        ])
    }

    #[test]
    fn a_dimension_is_written_as_the_product_of_its_labels() {
        assert_eq!(latent().to_string(), "frames·height·width");
        assert_eq!(latent().size(), Size::number(120));
        assert_eq!(Dimension::ONE.to_string(), "1");
        assert_eq!(Dimension::unlabelled(Size::number(7)).to_string(), "7");
    }

    #[test]
    fn a_joint_comes_apart_at_its_seams() {
        let joint = Dimension::joined(vec![text(), latent()]);
        assert_eq!(joint.to_string(), "(text+frames·height·width)");
        let seam = Size::symbol("text");
        assert_eq!(joint.slice(&Size::number(0), &seam), text());
        assert_eq!(joint.slice(&seam, &joint.size()), latent());
        assert!(!joint.slice(&Size::number(3), &seam).is_labelled());
    }

    #[test]
    fn joints_of_joints_do_not_nest_without_end() {
        let mut joint = Dimension::joined(vec![text(), latent()]);
        for _ in 0..1000 {
            let product = Dimension::product(&[Dimension::axis(Label::Batch, Size::number(2)), joint]);
            joint = Dimension::joined(vec![text(), product]);
        }
        assert!(joint.depth() <= DEEPEST_JOINT);
    }

    #[test]
    fn factors_and_parts_do_not_double_without_end() {
        let mut joint = Dimension::joined(vec![text(), latent()]);
        let mut product = latent();
        for _ in 0..64 {
            joint = Dimension::joined(vec![joint.clone(), joint]);
            product = Dimension::product(&[product.clone(), product]);
        }
        assert!(!joint.is_labelled());
        assert!(product.factors().len() <= MOST_PARTS);
    }

    #[test]
    fn channels_behind_channels_are_channels() {
        let channels = Dimension::axis(Label::Channels, Size::number(8));
        let both = Dimension::joined(vec![channels.clone(), Dimension::unlabelled(Size::number(8))]);
        assert_eq!(both, Dimension::axis(Label::Channels, Size::number(16)));
    }
}
