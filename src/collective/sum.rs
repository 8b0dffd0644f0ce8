//! Sums over ranks.

use half::{bf16, f16};

use super::Element;

/// Adds the parts of all ranks, each of as many bytes as `sum`, in order. Elements of 16 bits are added as float32 and
/// rounded once. `false`, and nothing done, for elements that are no floating-point numbers.
pub(super) fn add_in_order(element: Element, parts: &[&[u8]], sum: &mut [u8]) -> bool {
    match element {
        Element::Float32 => add(
            parts,
            sum,
            f32::from_ne_bytes,
            |first: f32, second| first + second,
            f32::to_ne_bytes,
        ),
        Element::Float64 => add(
            parts,
            sum,
            f64::from_ne_bytes,
            |first: f64, second| first + second,
            f64::to_ne_bytes,
        ),
        Element::Float16 => add(
            parts,
            sum,
            |bytes| f16::from_ne_bytes(bytes).to_f32(),
            |first, second| first + second,
            |number| f16::from_f32(number).to_ne_bytes(),
        ),
        Element::Bfloat16 => add(
            parts,
            sum,
            |bytes| bf16::from_ne_bytes(bytes).to_f32(),
            |first, second| first + second,
            |number| bf16::from_f32(number).to_ne_bytes(),
        ),
        Element::Int32 | Element::Int64 | Element::Bool => return false,
    }
    true
}

fn add<const BYTES: usize, Number: Copy>(
    parts: &[&[u8]],
    sum: &mut [u8],
    read: impl Fn([u8; BYTES]) -> Number,
    plus: impl Fn(Number, Number) -> Number,
    write: impl Fn(Number) -> [u8; BYTES],
) {
    let Some((first, others)) = parts.split_first() else {
        return;
    };
    match others {
        // The common cases as one loop over elements, which the compiler makes vector instructions of.
        [] => sum.copy_from_slice(first),
        [second] => {
            let elements = sum.as_chunks_mut::<BYTES>().0.iter_mut();
            let terms = first.as_chunks::<BYTES>().0.iter().zip(second.as_chunks::<BYTES>().0);
            for (element, (first, second)) in elements.zip(terms) {
                *element = write(plus(read(*first), read(*second)));
            }
        }
        _ => {
            for (place, element) in sum.as_chunks_mut::<BYTES>().0.iter_mut().enumerate() {
                let term = |part: &[u8]| part.as_chunks::<BYTES>().0.get(place).copied();
                let mut total = term(first).map(&read);
                for part in others {
                    if let (Some(so_far), Some(term)) = (total, term(part)) {
                        total = Some(plus(so_far, read(term)));
                    }
                }
                if let Some(total) = total {
                    *element = write(total);
                }
            }
        }
    }
}
