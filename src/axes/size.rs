//! Sizes of axes: numbers, and symbolic integers for what is only known when the model runs.

use super::polynomial::{Atom, Polynomial};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A size in elements: a number, or an integer polynomial in named sizes such as `16*batch`.
///
/// Two sizes are equal when they are equal for every value of their symbols (as far as floor divisions go: when they
/// are written alike). Sizes that nothing is known of are all different from each other.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size(Form);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Form {
    Number(i128),
    /// Never a plain number.
    Symbolic(Arc<Polynomial>),
}

/// A number times a product of powers of symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The number.
    pub coefficient: i64,
    /// Symbols and their powers, from 1.
    pub powers: Vec<(String, u32)>,
}

/// What a size is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// A named size.
    Symbol(String),
    /// The first by the second, rounded down.
    Quotient(Size, Size),
}

/// A number times a product of powers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The number.
    pub coefficient: i64,
    /// What is multiplied with it, each with its power from 1.
    pub powers: Vec<(Base, u32)>,
}

/// Numbers for the symbols of sizes, for example `{batch: 2}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Values by symbol.
    pub values: BTreeMap<String, i64>,
    /// The value of every other symbol; none means that sizes with such symbols have no value.
    pub otherwise: Option<i64>,
}

impl Bindings {
    /// Bindings of the symbols named, and of no other.
    pub fn of<'n>(values: impl IntoIterator<Item = (&'n str, i64)>) -> Bindings {
        Bindings {
            values: values
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            otherwise: None,
        }
    }

    /// The value of `symbol`.
    pub fn get(&self, symbol: &str) -> Option<i64> {
        self.values.get(symbol).copied().or(self.otherwise)
    }
}

impl Size {
    /// The size 1, of an axis that is there for the rank only.
    pub const ONE: Size = Size(Form::Number(1));

    /// A known size.
    pub fn number(value: i64) -> Size {
        Size(Form::Number(i128::from(value)))
    }

    /// A named size, as `dim_param` gives it.
    pub fn symbol(name: &str) -> Size {
        Size::from_polynomial(Polynomial::atom(Atom::Symbol(name.into())))
    }

    /// A size that nothing is known of, different from every other.
    pub fn unknown() -> Size {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Size::from_polynomial(Polynomial::atom(Atom::Unknown(NEXT.fetch_add(1, Ordering::Relaxed))))
    }

    /// The number, where it is one.
    pub fn as_number(&self) -> Option<i64> {
        match self.0 {
            Form::Number(value) => i64::try_from(value).ok(),
            Form::Symbolic(_) => None,
        }
    }

    /// Whether the size is 1.
    pub fn is_one(&self) -> bool {
        *self == Size::ONE
    }

    /// Whether something in it is not known by any name.
    pub fn has_unknown(&self) -> bool {
        match &self.0 {
            Form::Number(_) => false,
            Form::Symbolic(polynomial) => polynomial.has_unknown(),
        }
    }

    /// The size, or 0 where it is a number below 0: nothing is left of an axis that more is cut from than it has.
    pub fn or_empty(self) -> Size {
        match self.0 {
            Form::Number(..0) => Size::number(0),
            _ => self,
        }
    }

    /// Whether it is a number below 0, which no axis has.
    pub(super) fn is_negative(&self) -> bool {
        matches!(self.0, Form::Number(..0))
    }

    /// The least value where every named size is at least 1, as sizes of inputs are; `None` where there is no bound.
    pub(super) fn least(&self) -> Option<i128> {
        match &self.0 {
            Form::Number(value) => Some(*value),
            Form::Symbolic(polynomial) => polynomial.least(),
        }
    }

    /// `self / divisor`, where that is an integer for every value of the symbols.
    pub fn divide_exactly(&self, divisor: &Size) -> Option<Size> {
        match (&self.0, &divisor.0) {
            (_, Form::Number(0)) => None,
            (Form::Number(a), Form::Number(b)) if a.checked_rem(*b)? != 0 => None,
            (Form::Number(a), Form::Number(b)) => a.checked_div(*b).map(|quotient| Size(Form::Number(quotient))),
            (Form::Number(_), Form::Symbolic(_)) => None,
            (Form::Symbolic(a), _) => a.divide_exactly(&divisor.polynomial()).map(Size::from_polynomial),
        }
    }

    /// `floor(self / divisor)`, the length that a stride or an integer division leaves.
    pub fn divide_down(&self, divisor: &Size) -> Size {
        if let Some(exact) = self.divide_exactly(divisor) {
            return exact;
        }
        match (&self.0, &divisor.0) {
            (Form::Number(a), Form::Number(b)) if *b > 0 => Size(Form::Number(a.div_euclid(*b))),
            (Form::Symbolic(a), Form::Number(b)) if *b > 0 => {
                // Whole multiples of the divisor come out, so that (h - 2) / 2 + 1 and h / 2 are written alike.
                let (whole, rest) = a.split_multiples(*b);
                &Size::from_polynomial(whole) + &Size::quotient(Size::from_polynomial(rest), divisor.clone())
            }
            _ => Size::quotient(self.clone(), divisor.clone()),
        }
    }

    fn quotient(numerator: Size, divisor: Size) -> Size {
        match (&numerator.0, &divisor.0) {
            (Form::Number(a), Form::Number(b)) if *b > 0 => Size(Form::Number(a.div_euclid(*b))),
            (_, Form::Number(0)) => Size::unknown(),
            _ => {
                let depth = 1 + numerator.depth().max(divisor.depth());
                // Deeply nested quotients come from damaged or hostile files only, and would exhaust the stack.
                if depth > 12 {
                    return Size::unknown();
                }
                Size::from_polynomial(Polynomial::atom(Atom::Quotient(Arc::new((numerator, divisor)), depth)))
            }
        }
    }

    fn depth(&self) -> u8 {
        match &self.0 {
            Form::Number(_) => 0,
            Form::Symbolic(polynomial) => polynomial.depth(),
        }
    }

    /// The value where every symbol has one.
    pub fn evaluate(&self, bindings: &Bindings) -> Option<i64> {
        match &self.0 {
            Form::Number(value) => i64::try_from(*value).ok(),
            Form::Symbolic(polynomial) => polynomial
                .evaluate(bindings)
                .and_then(|value| i64::try_from(value).ok()),
        }
    }

    /// The sum of products that it is: coefficients and powers of symbols, a plain number being a product of no symbols.
    /// `None` where something in it is not known, or is a quotient.
    pub fn terms(&self) -> Option<Vec<Term>> {
        match &self.0 {
            Form::Number(value) => Some(vec![Term {
                coefficient: i64::try_from(*value).ok()?,
                powers: Vec::new(),
            }]),
            Form::Symbolic(polynomial) => polynomial.terms(),
        }
    }

    /// The sum of products that it is, like [`Size::terms`], but with quotients. `None` where something in it is not known.
    pub fn products(&self) -> Option<Vec<Product>> {
        match &self.0 {
            Form::Number(value) => Some(vec![Product {
                coefficient: i64::try_from(*value).ok()?,
                powers: Vec::new(),
            }]),
            Form::Symbolic(polynomial) => polynomial.products(),
        }
    }

    /// The size with other sizes in the place of its symbols; `replaced` gives `None` for those that stay.
    pub fn substitute(&self, replaced: &dyn Fn(&str) -> Option<Size>) -> Size {
        if self.as_number().is_some() {
            return self.clone();
        }
        let Some(products) = self.products() else {
            return self.clone();
        };
        products.iter().fold(Size::number(0), |sum, product| {
            let factors = product.powers.iter().flat_map(|(base, power)| {
                let base = match base {
                    Base::Symbol(name) => replaced(name).unwrap_or_else(|| Size::symbol(name)),
                    Base::Quotient(numerator, divisor) => numerator
                        .substitute(replaced)
                        .divide_down(&divisor.substitute(replaced)),
                };
                std::iter::repeat_n(base, *power as usize)
            });
            let factors: Vec<Size> = factors.collect();
            &sum + &(&Size::number(product.coefficient) * &Size::product(&factors))
        })
    }

    /// The symbol, where it is nothing but one.
    pub fn as_symbol(&self) -> Option<String> {
        let mut symbols = Vec::new();
        self.symbols(&mut |symbol| symbols.push(symbol.to_owned()));
        symbols.pop().filter(|symbol| *self == Size::symbol(symbol))
    }

    /// Calls `visit` with the name of every symbol in it.
    pub fn symbols(&self, visit: &mut dyn FnMut(&str)) {
        if let Form::Symbolic(polynomial) = &self.0 {
            polynomial.symbols(visit);
        }
    }

    /// The product of `sizes`, 1 where there are none.
    pub fn product<'s>(sizes: impl IntoIterator<Item = &'s Size>) -> Size {
        sizes.into_iter().fold(Size::ONE, |product, size| &product * size)
    }

    fn polynomial(&self) -> Polynomial {
        match &self.0 {
            Form::Number(value) => Polynomial::number(*value),
            Form::Symbolic(polynomial) => Polynomial::clone(polynomial),
        }
    }

    fn from_polynomial(polynomial: Polynomial) -> Size {
        match polynomial.as_number() {
            Some(value) => Size(Form::Number(value)),
            None if polynomial.is_too_long() => Size::unknown(),
            None => Size(Form::Symbolic(Arc::new(polynomial))),
        }
    }
}

impl From<i64> for Size {
    fn from(value: i64) -> Size {
        Size::number(value)
    }
}

impl Add for &Size {
    type Output = Size;

    fn add(self, other: &Size) -> Size {
        match (&self.0, &other.0) {
            (Form::Number(a), Form::Number(b)) => Size(Form::Number(a.saturating_add(*b))),
            _ => Size::from_polynomial(self.polynomial().plus(&other.polynomial(), 1)),
        }
    }
}

impl Sub for &Size {
    type Output = Size;

    fn sub(self, other: &Size) -> Size {
        match (&self.0, &other.0) {
            (Form::Number(a), Form::Number(b)) => Size(Form::Number(a.saturating_sub(*b))),
            _ => Size::from_polynomial(self.polynomial().plus(&other.polynomial(), -1)),
        }
    }
}

impl Mul for &Size {
    type Output = Size;

    fn mul(self, other: &Size) -> Size {
        match (&self.0, &other.0) {
            (Form::Number(a), Form::Number(b)) => Size(Form::Number(a.saturating_mul(*b))),
            (Form::Number(1), _) => other.clone(),
            (_, Form::Number(1)) => self.clone(),
            _ => Size::from_polynomial(self.polynomial().times(&other.polynomial())),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Number(value) => f.pad(&value.to_string()),
            Form::Symbolic(polynomial) => f.pad(&polynomial.to_string()),
        }
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch() -> Size {
        Size::symbol("batch")
    }

    #[test]
    fn products_are_written_with_the_number_first() {
        assert_eq!((&batch() * &Size::number(16)).to_string(), "16*batch");
        assert_eq!(
            (&(&batch() + &Size::number(1)) * &Size::symbol("text")).to_string(),
            "batch*text+text"
        );
        assert_eq!((&batch() - &Size::number(2)).to_string(), "batch-2");
        assert_eq!((&batch() * &batch()).to_string(), "batch^2");
    }

    #[test]
    fn terms_are_what_a_size_is_the_sum_of() {
        let size = &(&(&batch() * &batch()) * &Size::number(3)) - &Size::number(2);
        let terms = size.terms().unwrap();
        assert_eq!(terms.len(), 2);
        assert!(terms.contains(&Term {
            coefficient: 3,
            powers: vec![("batch".to_owned(), 2)]
        }));
        assert!(terms.contains(&Term {
            coefficient: -2,
            powers: Vec::new()
        }));
        assert_eq!(batch().divide_down(&Size::number(2)).terms(), None);
        assert_eq!(Size::unknown().terms(), None);
    }

    #[test]
    fn exact_division_undoes_multiplication_of_sums() {
        let tokens = &Size::symbol("text") + &Size::number(226);
        let all = &(&tokens * &batch()) * &Size::number(64);
        assert_eq!(all.divide_exactly(&tokens), Some(&batch() * &Size::number(64)));
        assert_eq!(all.divide_exactly(&Size::symbol("frames")), None);
        assert_eq!(batch().divide_exactly(&Size::number(2)), None);
    }

    #[test]
    fn the_length_that_a_stride_leaves_is_written_alike_in_every_spelling() {
        let height = Size::symbol("h");
        let convolution = &(&height - &Size::number(2)).divide_down(&Size::number(2)) + &Size::ONE;
        assert_eq!(convolution, height.divide_down(&Size::number(2)));
        assert_eq!(convolution.to_string(), "floor(h/2)");
        assert_eq!(convolution.evaluate(&Bindings::of([("h", 9)])), Some(4));
    }

    #[test]
    fn unknown_sizes_are_all_different() {
        assert_ne!(Size::unknown(), Size::unknown());
        assert_eq!(Size::unknown().to_string(), "?");
        assert!((&Size::unknown() * &batch()).has_unknown());
    }

    #[test]
    fn nested_divisions_and_long_sums_end_as_unknown() {
        let mut size = batch();
        for _ in 0..10_000 {
            size = (&size + &Size::ONE).divide_down(&Size::number(3));
        }
        assert!(size.has_unknown());
        let mut sum = Size::ONE;
        for index in 0..100 {
            sum = &sum * &(&Size::symbol(&format!("s{index}")) + &Size::ONE);
        }
        assert!(sum.has_unknown());
        let symbols: Vec<Size> = (0..100).map(|index| Size::symbol(&format!("s{index}"))).collect();
        assert!(Size::product(&symbols).has_unknown());
    }

    #[test]
    fn sizes_have_a_least_value_where_their_symbols_are_positive() {
        let tokens = &Size::symbol("text") + &Size::number(226);
        assert_eq!(tokens.least(), Some(227));
        assert_eq!((&tokens - &Size::number(300)).least(), Some(-73));
        assert_eq!((&batch() - &Size::symbol("text")).least(), None);
        assert_eq!((&batch() * &Size::unknown()).least(), None);
        assert_eq!((&batch() * &batch().divide_down(&Size::number(2))).least(), Some(0));
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_numbers(a in 1i64..50, b in 1i64..50, c in 1i64..50, batch_is in 1i64..9) {
            let bindings = Bindings::of([("batch", batch_is)]);
            let size = &(&(&batch() * &Size::number(a)) + &Size::number(b)) * &Size::number(c);
            prop_assert_eq!(size.evaluate(&bindings), Some((batch_is * a + b) * c));
            prop_assert_eq!(size.divide_exactly(&Size::number(c)).and_then(|s| s.evaluate(&bindings)), Some(batch_is * a + b));
            prop_assert_eq!(size.divide_down(&Size::number(b)).evaluate(&bindings), Some((batch_is * a + b) * c / b));
            prop_assert_eq!((&size - &size).as_number(), Some(0));
        }
    }
}
