//! Boxes of tensors as bytes, and copies between them.

use std::ops::Range;

/// The most axes that a box has once neighbouring whole axes are taken together, and the bytes of an element.
const AXES: usize = 6;

/// A box of a row-major tensor, in bytes. Bytes of two boxes of the same extents belong together in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    offset: usize,
    extents: [usize; AXES],
    strides: [usize; AXES],
}

/// A box as rows of bytes, all of one length and equally far apart: what devices copy in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The first byte.
    pub offset: usize,
    /// Bytes of a row.
    pub width: usize,
    /// Bytes from one row's start to the next.
    pub pitch: usize,
    /// The number of rows.
    pub height: usize,
}

impl Region {
    /// The box as rows. `None` where they would not be equally far apart, which no box of [`Self::of`] is.
    #[must_use]
    pub fn rows(&self) -> Option<Rows> {
        let mut width = 1;
        let mut rows: Option<(usize, usize)> = None;
        for (extent, stride) in self.extents.into_iter().zip(self.strides).rev() {
            match rows {
                _ if extent == 1 => {}
                None if stride == width => width *= extent,
                None => rows = Some((extent, stride)),
                Some((height, pitch)) if stride == height * pitch => rows = Some((height * extent, pitch)),
                Some(_) => return None,
            }
        }
        let (height, pitch) = rows.unwrap_or((1, width));
        Some(Rows {
            offset: self.offset,
            width,
            pitch,
            height,
        })
    }

    /// The box of a tensor of `shape` (five axes, some of them 1) and elements of so many bytes that takes only `range` of
    /// `axis`. `None` where it does not lie in the tensor.
    pub fn of(shape: [usize; 5], element_bytes: usize, axis: usize, range: &Range<usize>) -> Option<Self> {
        let mut extents = [element_bytes; AXES];
        extents[..5].copy_from_slice(&shape);
        let mut strides = [1_usize; AXES];
        for place in (0..5).rev() {
            strides[place] = strides[place + 1].checked_mul(extents[place + 1])?;
        }
        strides[0].checked_mul(extents[0])?;
        if axis >= 5 || range.start > range.end || range.end > shape[axis] {
            return None;
        }
        extents[axis] = range.len();
        Some(Self {
            offset: range.start * strides[axis],
            extents,
            strides,
        })
    }

    /// So many bytes from `offset` on.
    pub fn bytes_at(offset: usize, bytes: usize) -> Self {
        let mut extents = [1; AXES];
        extents[AXES - 1] = bytes;
        Self {
            offset,
            extents,
            strides: [1; AXES],
        }
    }

    /// The number of bytes in the box.
    #[must_use]
    pub fn len(&self) -> usize {
        self.extents.iter().product()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.contains(&0)
    }

    /// The bytes from its first to its last, which may skip some; `0..0` where it has none.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        if self.is_empty() {
            return 0..0;
        }
        let last: usize = self
            .extents
            .iter()
            .zip(self.strides)
            .map(|(extent, stride)| (extent - 1) * stride)
            .sum();
        self.offset..self.offset + last + 1
    }

    /// Whether the bytes follow each other without gaps.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.span().len() == self.len()
    }

    /// Calls `copy(from, to, bytes)` for each run of bytes that follow each other in both boxes, with offsets into the two
    /// tensors. `None`, and no call, where the boxes have not the same number of bytes in the same order.
    pub fn runs(&self, to: &Region, mut copy: impl FnMut(usize, usize, usize)) -> Option<()> {
        let (from, to) = (self, to);
        if from.len() != to.len() {
            return None;
        }
        if from.is_empty() {
            return Some(());
        }
        if from.is_contiguous() && to.is_contiguous() {
            copy(from.offset, to.offset, from.len());
            return Some(());
        }
        let (from, to) = if from.extents == to.extents {
            (*from, *to)
        } else if from.is_contiguous() {
            (Region::packed(to).moved(from.offset), *to)
        } else if to.is_contiguous() {
            (*from, Region::packed(from).moved(to.offset))
        } else {
            return None;
        };
        // Axes at the end that follow each other in both are one run.
        let mut axes = AXES;
        let mut run = 1;
        while axes > 0 {
            let axis = axes - 1;
            if from.extents[axis] != 1 && (from.strides[axis] != run || to.strides[axis] != run) {
                break;
            }
            run *= from.extents[axis];
            axes -= 1;
        }
        let mut index = [0; AXES];
        let (mut source, mut target) = (from.offset, to.offset);
        loop {
            copy(source, target, run);
            let mut axis = axes;
            loop {
                if axis == 0 {
                    return Some(());
                }
                axis -= 1;
                index[axis] += 1;
                source += from.strides[axis];
                target += to.strides[axis];
                if index[axis] < from.extents[axis] {
                    break;
                }
                source -= from.strides[axis] * index[axis];
                target -= to.strides[axis] * index[axis];
                index[axis] = 0;
            }
        }
    }

    fn moved(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    /// A box of the same axes without gaps, from byte 0 on.
    #[must_use]
    pub fn packed(region: &Region) -> Self {
        let mut strides = [1; AXES];
        for axis in (0..AXES - 1).rev() {
            strides[axis] = strides[axis + 1] * region.extents[axis + 1];
        }
        Self {
            offset: 0,
            extents: region.extents,
            strides,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_bytes_of_the_box_in_their_order() {
        for shape in [[2, 3, 4, 5, 6], [1, 3, 1, 4, 1], [4, 1, 1, 1, 3], [1, 1, 1, 7, 2]] {
            for axis in 0..5 {
                for range in [0..shape[axis], 0..1, shape[axis] - 1..shape[axis]] {
                    let region = Region::of(shape, 2, axis, &range).unwrap();
                    let mut expected = Vec::new();
                    region
                        .runs(&Region::packed(&region), |from, _, bytes| {
                            expected.extend(from..from + bytes)
                        })
                        .unwrap();
                    let rows = region.rows().unwrap();
                    let row = |row: usize| rows.offset + row * rows.pitch..rows.offset + row * rows.pitch + rows.width;
                    let found: Vec<usize> = (0..rows.height).flat_map(row).collect();
                    assert_eq!(found, expected, "{shape:?} {axis} {range:?}");
                }
            }
        }
    }
}
