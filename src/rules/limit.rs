//! Bounds on what a site costs: `<= 8MiB`, `>= 0.01`.

use super::bytes::Bytes;
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Bounds that a number has to keep, all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits<T>(Vec<Limit<T>>);

/// A bound of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit<T> {
    /// How the number has to stand to the bound.
    pub order: Order,
    /// The bound.
    pub bound: T,
}

/// How a number has to stand to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Below it, or equal.
    AtMost,
    /// Above it, or equal.
    AtLeast,
    /// Below it.
    Below,
    /// Above it.
    Above,
}

/// The orders and how they are written; those of two characters first, since they begin with one of the others.
const ORDERS: [(&str, Order); 4] = [
    ("<=", Order::AtMost),
    (">=", Order::AtLeast),
    ("<", Order::Below),
    (">", Order::Above),
];

impl<T: PartialOrd + Copy> Limits<T> {
    /// Some bounds.
    pub fn new(limits: Vec<Limit<T>>) -> Limits<T> {
        Limits(limits)
    }

    /// Whether a number keeps all bounds.
    pub fn hold(&self, number: T) -> bool {
        self.0.iter().all(|limit| limit.holds(number))
    }
}

impl<T: PartialOrd + Copy> Limit<T> {
    /// Whether a number keeps the bound.
    pub fn holds(&self, number: T) -> bool {
        match self.order {
            Order::AtMost => number <= self.bound,
            Order::AtLeast => number >= self.bound,
            Order::Below => number < self.bound,
            Order::Above => number > self.bound,
        }
    }

    /// Whether no number keeps both bounds.
    pub fn excludes(&self, other: &Limit<T>) -> bool {
        let upper = |limit: &Limit<T>| matches!(limit.order, Order::AtMost | Order::Below);
        let (low, high) = match (upper(self), upper(other)) {
            (true, false) => (other, self),
            (false, true) => (self, other),
            _ => return false,
        };
        let touch = low.order == Order::AtLeast && high.order == Order::AtMost;
        high.bound < low.bound || (high.bound == low.bound && !touch)
    }
}

/// A bound on the bytes of a cache.
pub type CacheLimit = Limit<u64>;
/// A bound on a share of a step, 0 to 1.
pub type ShareLimit = Limit<f64>;

/// A text that is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// It does not begin with an order.
    #[error("it does not begin with `<=`, `>=`, `<` or `>`")]
    Order,
    /// What follows is no number of the kind.
    #[error("what follows the comparison is no bound")]
    Bound,
}

fn parted(text: &str) -> Result<(Order, &str), LimitError> {
    let text = text.trim();
    let found = ORDERS
        .iter()
        .find_map(|(written, order)| Some((*order, text.strip_prefix(written)?.trim())));
    found.ok_or(LimitError::Order)
}

impl FromStr for CacheLimit {
    type Err = LimitError;

    /// Reads `<= 8MiB`.
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let (order, bound) = parted(text)?;
        let Bytes(bound) = bound.parse().map_err(|()| LimitError::Bound)?;
        Ok(Limit { order, bound })
    }
}

impl FromStr for ShareLimit {
    type Err = LimitError;

    /// Reads `>= 0.01`.
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let (order, bound) = parted(text)?;
        let plain = bound.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let bound: f64 = bound.parse().ok().filter(|_| plain).ok_or(LimitError::Bound)?;
        match (0.0..=1.0).contains(&bound) {
            true => Ok(Limit { order, bound }),
            false => Err(LimitError::Bound),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = ORDERS.iter().find(|(_, order)| order == self);
        f.write_str(written.map_or("", |(written, _)| written))
    }
}

impl fmt::Display for CacheLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.order, Bytes(self.bound))
    }
}

impl fmt::Display for ShareLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.order, self.bound)
    }
}

impl<T> Serialize for Limits<T>
where
    Limit<T>: fmt::Display,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.collect_str(one),
            all => serializer.collect_seq(all.iter().map(Limit::to_string)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let small: CacheLimit = "<= 8MiB".parse().unwrap();
        assert!(small.holds(8 << 20) && !small.holds((8 << 20) + 1));
        assert_eq!(small.to_string(), "<= 8MiB");
        let share: ShareLimit = " >0.01 ".parse().unwrap();
        assert!(share.holds(0.011) && !share.holds(0.01) && !share.holds(f64::NAN));
        assert_eq!(share.to_string(), "> 0.01");
        assert_eq!("8MiB".parse::<CacheLimit>(), Err(LimitError::Order));
        for bad in ["<= 8", "< x", ">= -1B", "<="] {
            let read = bad.parse::<CacheLimit>();
            assert!(read.is_err() || bad == "<= 8", "{bad}");
        }
        for bad in ["> 1.5", "> 1e-2", "> -0.1", "> nan", ">"] {
            assert_eq!(bad.parse::<ShareLimit>(), Err(LimitError::Bound), "{bad}");
        }
    }

    #[test]
    fn bounds_that_exclude_one_another() {
        let excludes = |one: &str, other: &str| {
            let (one, other): (ShareLimit, ShareLimit) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.excludes(&other), other.excludes(&one));
            one.excludes(&other)
        };
        assert!(excludes("> 0.5", "< 0.5") && excludes(">= 0.5", "< 0.5") && excludes("> 0.6", "<= 0.5"));
        assert!(!excludes(">= 0.5", "<= 0.5") && !excludes("> 0.5", "> 0.9") && !excludes("> 0.1", "< 0.5"));
    }
}
