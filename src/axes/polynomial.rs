//! Integer polynomials in named sizes: the arithmetic behind [`super::Size`].

use super::size::{Base, Bindings, Product, Size, Term};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Longer sums than this are given up as unknown: they come from no model, and would grow without bound.
const LONGEST: usize = 48;

/// The same of products: each factor is a size of its own.
const MOST_FACTORS: usize = 24;

/// What a polynomial is made of.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Atom {
    /// A named size.
    Symbol(Arc<str>),
    /// `floor(numerator / divisor)`, and how deeply quotients are nested in it.
    Quotient(Arc<(Size, Size)>, u8),
    /// A size that nothing is known of.
    Unknown(u32),
}

/// A product of powers of atoms, in the order of the atoms.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Monomial(Vec<(Atom, u32)>);

/// A sum of monomials with integer coefficients, none of them zero.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Polynomial(BTreeMap<Monomial, i128>);

impl PartialOrd for Monomial {
    fn partial_cmp(&self, other: &Monomial) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Lexicographic by exponents, the first atom weighing most: an order that multiplication keeps, as division needs.
impl Ord for Monomial {
    fn cmp(&self, other: &Monomial) -> Ordering {
        for (mine, theirs) in self.0.iter().zip(&other.0) {
            match mine.0.cmp(&theirs.0) {
                Ordering::Less => return Ordering::Greater,
                Ordering::Greater => return Ordering::Less,
                Ordering::Equal if mine.1 != theirs.1 => return mine.1.cmp(&theirs.1),
                Ordering::Equal => {}
            }
        }
        self.0.len().cmp(&other.0.len())
    }
}

impl Monomial {
    fn times(&self, other: &Monomial) -> Monomial {
        let mut powers: BTreeMap<Atom, u32> = self.0.iter().cloned().collect();
        for (atom, power) in &other.0 {
            let entry = powers.entry(atom.clone()).or_insert(0);
            *entry = entry.saturating_add(*power);
        }
        Monomial(powers.into_iter().collect())
    }

    fn divided_by(&self, divisor: &Monomial) -> Option<Monomial> {
        let mut powers: BTreeMap<Atom, u32> = self.0.iter().cloned().collect();
        for (atom, power) in &divisor.0 {
            let left = powers.get(atom)?.checked_sub(*power)?;
            if left == 0 {
                powers.remove(atom);
            } else {
                powers.insert(atom.clone(), left);
            }
        }
        Some(Monomial(powers.into_iter().collect()))
    }
}

impl Polynomial {
    pub(super) fn number(value: i128) -> Polynomial {
        let mut terms = BTreeMap::new();
        if value != 0 {
            terms.insert(Monomial::default(), value);
        }
        Polynomial(terms)
    }

    pub(super) fn atom(atom: Atom) -> Polynomial {
        Polynomial(BTreeMap::from([(Monomial(vec![(atom, 1)]), 1)]))
    }

    pub(super) fn as_number(&self) -> Option<i128> {
        match self.0.len() {
            0 => Some(0),
            1 => self.0.get(&Monomial::default()).copied(),
            _ => None,
        }
    }

    /// What it is the sum of, where it is made of numbers and symbols alone.
    pub(super) fn terms(&self) -> Option<Vec<Term>> {
        let term = |(monomial, coefficient): (&Monomial, &i128)| {
            let powers = monomial.0.iter().map(|(atom, power)| match atom {
                Atom::Symbol(name) => Some((name.to_string(), *power)),
                Atom::Quotient(..) | Atom::Unknown(_) => None,
            });
            Some(Term {
                coefficient: i64::try_from(*coefficient).ok()?,
                powers: powers.collect::<Option<Vec<_>>>()?,
            })
        };
        self.0.iter().map(term).collect()
    }

    /// What it is the sum of, where it is made of numbers, symbols and quotients alone.
    pub(super) fn products(&self) -> Option<Vec<Product>> {
        let product = |(monomial, coefficient): (&Monomial, &i128)| {
            let powers = monomial.0.iter().map(|(atom, power)| match atom {
                Atom::Symbol(name) => Some((Base::Symbol(name.to_string()), *power)),
                Atom::Quotient(parts, _) => Some((Base::Quotient(parts.0.clone(), parts.1.clone()), *power)),
                Atom::Unknown(_) => None,
            });
            Some(Product {
                coefficient: i64::try_from(*coefficient).ok()?,
                powers: powers.collect::<Option<Vec<_>>>()?,
            })
        };
        self.0.iter().map(product).collect()
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.0.len() > LONGEST || self.0.keys().any(|monomial| monomial.0.len() > MOST_FACTORS)
    }

    fn atoms(&self) -> impl Iterator<Item = &Atom> {
        self.0
            .keys()
            .flat_map(|monomial| monomial.0.iter().map(|(atom, _)| atom))
    }

    pub(super) fn has_unknown(&self) -> bool {
        self.atoms().any(|atom| match atom {
            Atom::Symbol(_) => false,
            Atom::Quotient(parts, _) => parts.0.has_unknown() || parts.1.has_unknown(),
            Atom::Unknown(_) => true,
        })
    }

    pub(super) fn depth(&self) -> u8 {
        let depths = self
            .atoms()
            .map(|atom| if let Atom::Quotient(_, depth) = atom { *depth } else { 0 });
        depths.max().unwrap_or(0)
    }

    pub(super) fn symbols(&self, visit: &mut dyn FnMut(&str)) {
        for atom in self.atoms() {
            match atom {
                Atom::Symbol(name) => visit(name),
                Atom::Quotient(parts, _) => {
                    parts.0.symbols(visit);
                    parts.1.symbols(visit);
                }
                Atom::Unknown(_) => {}
            }
        }
    }

    /// `self + sign * other`.
    pub(super) fn plus(&self, other: &Polynomial, sign: i128) -> Polynomial {
        let mut sum = self.clone();
        for (monomial, coefficient) in &other.0 {
            sum.add_term(monomial.clone(), coefficient.saturating_mul(sign));
        }
        sum
    }

    fn add_term(&mut self, monomial: Monomial, coefficient: i128) {
        let entry = self.0.entry(monomial.clone()).or_insert(0);
        *entry = entry.saturating_add(coefficient);
        if *entry == 0 {
            self.0.remove(&monomial);
        }
    }

    pub(super) fn times(&self, other: &Polynomial) -> Polynomial {
        let mut product = Polynomial::number(0);
        for (left, a) in &self.0 {
            for (right, b) in &other.0 {
                product.add_term(left.times(right), a.saturating_mul(*b));
            }
        }
        product
    }

    /// Long division by leading terms; the quotient where nothing is left over.
    pub(super) fn divide_exactly(&self, divisor: &Polynomial) -> Option<Polynomial> {
        let (lead, lead_coefficient) = divisor.0.last_key_value()?;
        let mut rest = self.clone();
        let mut quotient = Polynomial::number(0);
        for _ in 0..=LONGEST {
            let Some((monomial, coefficient)) = rest.0.last_key_value() else {
                return Some(quotient);
            };
            let monomial = monomial.divided_by(lead)?;
            if coefficient.checked_rem(*lead_coefficient)? != 0 {
                return None;
            }
            let term = Polynomial(BTreeMap::from([(
                monomial.clone(),
                coefficient.checked_div(*lead_coefficient)?,
            )]));
            quotient = quotient.plus(&term, 1);
            rest = rest.plus(&term.times(divisor), -1);
        }
        None
    }

    /// `(a, b)` with `self = a * divisor + b`, and as much as can be in `a`.
    pub(super) fn split_multiples(&self, divisor: i128) -> (Polynomial, Polynomial) {
        let (mut whole, mut rest) = (Polynomial::number(0), Polynomial::number(0));
        for (monomial, coefficient) in &self.0 {
            whole.add_term(monomial.clone(), coefficient.div_euclid(divisor));
            rest.add_term(monomial.clone(), coefficient.rem_euclid(divisor));
        }
        (whole, rest)
    }

    /// The least value where every named size is at least 1, as sizes of inputs are; `None` where there is no bound.
    pub(super) fn least(&self) -> Option<i128> {
        let mut sum: i128 = 0;
        for (monomial, coefficient) in &self.0 {
            if monomial.0.is_empty() {
                sum = sum.checked_add(*coefficient)?;
                continue;
            }
            let mut term = Some(*coefficient).filter(|coefficient| *coefficient > 0)?;
            for (atom, power) in &monomial.0 {
                let value = match atom {
                    Atom::Symbol(_) => 1,
                    Atom::Quotient(parts, _) => match (parts.0.least()?, parts.1.as_number()) {
                        (numerator, Some(divisor @ 1..)) => numerator.div_euclid(i128::from(divisor)),
                        (0.., None) if parts.1.least()? > 0 => 0,
                        _ => return None,
                    },
                    Atom::Unknown(_) => return None,
                };
                // Factors below zero bound a product from below no more.
                let value = Some(value).filter(|value| *value >= 0)?;
                term = term.checked_mul(value.checked_pow(*power)?)?;
            }
            sum = sum.checked_add(term)?;
        }
        Some(sum)
    }

    pub(super) fn evaluate(&self, bindings: &Bindings) -> Option<i128> {
        let mut sum: i128 = 0;
        for (monomial, coefficient) in &self.0 {
            let mut term = *coefficient;
            for (atom, power) in &monomial.0 {
                let value = match atom {
                    Atom::Symbol(name) => i128::from(bindings.get(name)?),
                    Atom::Quotient(parts, _) => {
                        let (numerator, divisor) = (parts.0.evaluate(bindings)?, parts.1.evaluate(bindings)?);
                        i128::from(numerator.checked_div_euclid(divisor)?)
                    }
                    Atom::Unknown(_) => return None,
                };
                term = term.checked_mul(value.checked_pow(*power)?)?;
            }
            sum = sum.checked_add(term)?;
        }
        Some(sum)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(name) => f.write_str(name),
            Atom::Quotient(parts, _) => {
                let part = |size: &Size| match size.to_string() {
                    text if text.contains(['+', '-', '*']) => format!("({text})"),
                    text => text,
                };
                write!(f, "floor({}/{})", part(&parts.0), part(&parts.1))
            }
            Atom::Unknown(_) => f.write_str("?"),
        }
    }
}

impl fmt::Display for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (monomial, coefficient)) in self.0.iter().rev().enumerate() {
            match (place, *coefficient < 0) {
                (_, true) => f.write_str("-")?,
                (0, false) => {}
                (_, false) => f.write_str("+")?,
            }
            let magnitude = coefficient.unsigned_abs();
            if magnitude != 1 || monomial.0.is_empty() {
                write!(f, "{magnitude}")?;
            }
            for (index, (atom, power)) in monomial.0.iter().enumerate() {
                if index > 0 || magnitude != 1 {
                    f.write_str("*")?;
                }
                write!(f, "{atom}")?;
                if *power != 1 {
                    write!(f, "^{power}")?;
                }
            }
        }
        Ok(())
    }
}
