//! Sizes of caches: numbers, or formulas of the open sizes of a model's inputs, as a plan writes them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The most that formulas are nested; more is no formula that a plan holds.
const DEEPEST: usize = 32;

/// A size of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Extent {
    /// The same in every run.
    Number(i64),
    /// Depends on the inputs: a sum of products of names, powers (`height^2`) and `floor(height/2)`.
    Formula(String),
}

impl Extent {
    /// The size where open dimensions have these sizes; `None` where a name has none or the formula is not understood.
    pub fn evaluate(&self, sizes: &BTreeMap<String, i64>) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Formula(formula) => {
                let mut reader = Reader { rest: formula, sizes };
                let value = reader.sum(0)?;
                (reader.rest.trim_start().is_empty() && value >= 0).then_some(value)
            }
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Formula(formula) => formatter.write_str(formula),
        }
    }
}

struct Reader<'r> {
    rest: &'r str,
    sizes: &'r BTreeMap<String, i64>,
}

impl Reader<'_> {
    fn takes(&mut self, text: &str) -> bool {
        match self.rest.trim_start().strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self, depth: usize) -> Option<i64> {
        let negative = self.takes("-");
        let first = self.product(depth)?;
        let mut sum = if negative { first.checked_neg()? } else { first };
        loop {
            if self.takes("+") {
                sum = sum.checked_add(self.product(depth)?)?;
            } else if self.takes("-") {
                sum = sum.checked_sub(self.product(depth)?)?;
            } else {
                return Some(sum);
            }
        }
    }

    fn product(&mut self, depth: usize) -> Option<i64> {
        let mut product = self.power(depth)?;
        while self.takes("*") {
            product = product.checked_mul(self.power(depth)?)?;
        }
        Some(product)
    }

    fn power(&mut self, depth: usize) -> Option<i64> {
        let base = self.atom(depth)?;
        if self.takes("^") {
            base.checked_pow(u32::try_from(self.number()?).ok()?)
        } else {
            Some(base)
        }
    }

    fn atom(&mut self, depth: usize) -> Option<i64> {
        if depth > DEEPEST {
            return None;
        }
        // Names go first: one may hold anything, and a longer one begin with a shorter.
        let rest = self.rest.trim_start();
        let names = self.sizes.iter().filter(|(name, _)| rest.starts_with(name.as_str()));
        if let Some((name, size)) = names.max_by_key(|(name, _)| name.len())
            && !name.is_empty()
        {
            self.rest = rest.get(name.len()..)?;
            return Some(*size);
        }
        if self.takes("floor(") {
            let numerator = self.sum(depth + 1)?;
            let quotient = if self.takes("/") {
                match self.sum(depth + 1)? {
                    divisor @ 1.. => numerator.div_euclid(divisor),
                    _ => return None,
                }
            } else {
                numerator
            };
            return self.takes(")").then_some(quotient);
        }
        if self.takes("(") {
            let inner = self.sum(depth + 1)?;
            return self.takes(")").then_some(inner);
        }
        self.number()
    }

    fn number(&mut self) -> Option<i64> {
        let rest = self.rest.trim_start();
        let end = rest
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(rest.len());
        let (digits, rest) = rest.split_at(end);
        self.rest = rest;
        digits.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axes::{Bindings, Size};
    use proptest::prelude::*;

    fn sizes() -> BTreeMap<String, i64> {
        let sizes = [("batch", 2), ("h", 9), ("s0", 3), ("s0 + 1", 100), ("text", 5)];
        sizes.map(|(name, size)| (name.to_owned(), size)).into()
    }

    fn value(formula: &str) -> Option<i64> {
        Extent::Formula(formula.to_owned()).evaluate(&sizes())
    }

    #[test]
    fn formulas_of_plans_have_their_values() {
        assert_eq!(Extent::Number(7).evaluate(&sizes()), Some(7));
        assert_eq!(value("16*batch"), Some(32));
        assert_eq!(value("batch*text+226*batch"), Some(462));
        assert_eq!(value("h^2*batch-1"), Some(161));
        assert_eq!(value("floor(h/2)*floor((h+1)/(2*batch))"), Some(4 * 2));
        // A name that looks like a sum is one name.
        assert_eq!(value("2*s0 + 1"), Some(200));
    }

    #[test]
    fn what_is_no_formula_has_no_value() {
        for wrong in [
            "",
            "?",
            "width",
            "2*",
            "batch batch",
            "floor(h/0)",
            "floor(h/2",
            "batch-3",
            "99999999999^9",
        ] {
            assert_eq!(value(wrong), None, "{wrong}");
        }
        assert_eq!(value(&"(".repeat(100_000)), None);
    }

    fn size() -> impl Strategy<Value = Size> {
        let names = prop::sample::select(vec!["batch", "h", "text"]);
        let leaf = prop_oneof![(1i64..20).prop_map(Size::number), names.prop_map(Size::symbol)];
        leaf.prop_recursive(4, 16, 2, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(one, other)| &one + &other),
                (inner.clone(), inner.clone()).prop_map(|(one, other)| &one * &other),
                (inner, 1i64..5).prop_map(|(size, divisor)| size.divide_down(&Size::number(divisor))),
            ]
        })
    }

    proptest! {
        #[test]
        fn sizes_are_read_as_they_are_written(size in size()) {
            let sizes = sizes();
            let bindings = Bindings::of(sizes.iter().map(|(name, size)| (name.as_str(), *size)));
            let expected = size.evaluate(&bindings);
            prop_assume!(expected.is_some());
            prop_assert_eq!(Extent::Formula(size.to_string()).evaluate(&sizes), expected, "{}", size);
        }

        #[test]
        fn any_text_is_survived(text in "[a-z0-9+*/^() -]{0,40}") {
            let _ = value(&text);
        }
    }
}
