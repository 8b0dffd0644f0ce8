//! Arithmetic of single sizes, as the operators of ONNX do it.

use super::size::Size;

/// Without its sign.
pub(super) fn absolute(size: &Size) -> Option<Size> {
    match size.as_number() {
        Some(number) => number.checked_abs().map(Size::number),
        None => size.least().filter(|least| *least >= 0).map(|_| size.clone()),
    }
}

/// A truth value, where both are numbers.
pub(super) fn compare(left: &Size, right: &Size, holds: fn(i64, i64) -> bool) -> Option<Size> {
    Some(Size::number(i64::from(holds(left.as_number()?, right.as_number()?))))
}

/// ONNX divides integers as C does, towards zero.
pub(super) fn divide(left: &Size, right: &Size) -> Option<Size> {
    match (left.as_number(), right.as_number()) {
        (Some(a), Some(b)) => a.checked_div(b).map(Size::number),
        _ => Some(left.divide_down(right)),
    }
}

/// What a division leaves.
pub(super) fn modulo(left: i64, right: i64) -> Option<Size> {
    // The sign follows the divisor, unless `fmod` asks for C's rule; sizes are positive, where both agree.
    if left < 0 || right <= 0 {
        None
    } else {
        left.checked_rem(right).map(Size::number)
    }
}

/// The larger or the smaller one.
pub(super) fn choose(left: &Size, right: &Size, which: fn(i64, i64) -> i64) -> Option<Size> {
    if left == right {
        return Some(left.clone());
    }
    Some(Size::number(which(left.as_number()?, right.as_number()?)))
}

/// Whether they are equal, as 0 or 1.
pub(super) fn equal(left: &Size, right: &Size) -> Option<Size> {
    let negative = |size: &Size| size.as_number().is_some_and(|value| value < 0);
    match (left.as_number(), right.as_number()) {
        (Some(a), Some(b)) => Some(Size::number(i64::from(a == b))),
        _ if left == right => Some(Size::ONE),
        // A symbolic size is the size of an axis, so it is not the -1 that `expand` uses for "as it is".
        _ if negative(left) || negative(right) => Some(Size::number(0)),
        _ => None,
    }
}
