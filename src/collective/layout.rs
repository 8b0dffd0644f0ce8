//! A tensor's shape as a collective sees it: the axis that is cut and the one that is put together, and the boxes along them.

use super::{Announcement, CollectiveError, Element, Mesh, Region, operation::Call, part};

/// A tensor's shape as a collective sees it: five axes, of which the one that is cut and the one that is put together stand
/// alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axes {
    pub(super) shape: [usize; 5],
    pub(super) cut: Option<usize>,
    pub(super) gathered: Option<usize>,
}

/// A result that is put together: a box for each member's part, its bytes, and its entries on the two axes.
pub(super) struct Placed {
    pub(super) regions: Vec<Region>,
    pub(super) bytes: usize,
    pub(super) cut: usize,
    pub(super) gathered: usize,
}

impl Axes {
    /// The axis that is cut and its entries.
    pub(super) fn of_cut(&self) -> (usize, usize) {
        let axis = self.cut.unwrap_or(0);
        (axis, self.shape[axis])
    }

    pub(super) fn region(&self, element: Element, axis: usize, range: &std::ops::Range<usize>) -> Option<Region> {
        Region::of(self.shape, element.bytes(), axis, range)
    }
}

impl Call {
    /// The box of this rank's tensor that each member of the group gets.
    pub(super) fn offered(&self, axes: Axes, element: Element, ranks: usize) -> Result<Vec<Region>, CollectiveError> {
        let boxes = (0..ranks).map(|member| {
            let (axis, range) = match (axes.cut, axes.gathered) {
                (Some(axis), _) => (axis, part(axes.shape[axis], ranks, member)),
                (None, gathered) => {
                    let axis = gathered.unwrap_or(0);
                    (axis, 0..axes.shape[axis])
                }
            };
            axes.region(element, axis, &range).ok_or_else(|| self.refuse_region())
        });
        boxes.collect()
    }

    /// Where in the result of AllGather and AllToAll the boxes of those who announced these shapes go.
    pub(super) fn placed(
        &self,
        axes: Axes,
        element: Element,
        announcements: &[Announcement],
        ranks: usize,
        place: usize,
    ) -> Result<Placed, CollectiveError> {
        let axis = axes.gathered.unwrap_or(0);
        let gathered = announcements.iter().map(|announcement| announcement.shape[axis]).sum();
        let mut received = axes;
        received.shape[axis] = gathered;
        let mut cut = 0;
        if let Some(axis) = axes.cut {
            cut = part(axes.shape[axis], ranks, place).len();
            received.shape[axis] = cut;
        }
        let bytes = received
            .shape
            .iter()
            .try_fold(element.bytes(), |bytes, size| bytes.checked_mul(*size));
        let bytes = bytes.ok_or_else(|| self.refuse_region())?;
        let mut start = 0;
        let boxes = announcements.iter().map(|announcement| {
            let range = start..start + announcement.shape[axis];
            start = range.end;
            received
                .region(element, axis, &range)
                .ok_or_else(|| self.refuse_region())
        });
        Ok(Placed {
            regions: boxes.collect::<Result<_, _>>()?,
            bytes,
            cut,
            gathered,
        })
    }

    /// The shape of the result, as far as this rank alone can know it: `None` for an axis whose size depends on the parts of
    /// others. Sizes of the input that are not known are `None` as well.
    ///
    /// # Errors
    /// [`CollectiveError::Node`] for an axis that the tensor does not have.
    pub fn result_shape(
        &self,
        mesh: Mesh,
        rank: usize,
        shape: &[Option<usize>],
    ) -> Result<Vec<Option<usize>>, CollectiveError> {
        let (ranks, place) = (mesh.size(self.group), mesh.place(self.group, rank));
        let mut result = shape.to_vec();
        if let Some(axis) = self.cut {
            let axis = self.resolve(axis, shape.len())?;
            result[axis] = shape[axis].map(|entries| part(entries, ranks, place).len());
        }
        if let Some(axis) = self.gathered {
            let axis = self.resolve(axis, shape.len())?;
            result[axis] = shape[axis].filter(|_| ranks == 1);
        }
        Ok(result)
    }

    pub(super) fn axes(&self, shape: &[usize]) -> Result<Axes, CollectiveError> {
        let cut = self.cut.map(|axis| self.resolve(axis, shape.len())).transpose()?;
        let gathered = self.gathered.map(|axis| self.resolve(axis, shape.len())).transpose()?;
        let size = |sizes: &[usize]| {
            sizes
                .iter()
                .try_fold(1_usize, |product, size| product.checked_mul(*size))
        };
        let taken = |sizes: &[usize]| size(sizes).ok_or_else(|| self.refuse_region());
        Ok(match (cut, gathered) {
            (None, None) => Axes {
                shape: [1, 1, 1, 1, taken(shape)?],
                cut,
                gathered,
            },
            (Some(axis), None) | (None, Some(axis)) => Axes {
                shape: [taken(&shape[..axis])?, shape[axis], 1, 1, taken(&shape[axis + 1..])?],
                cut: cut.map(|_| 1),
                gathered: gathered.map(|_| 1),
            },
            (Some(cut), Some(gathered)) => {
                if cut == gathered {
                    return Err(self.refuse(format!("`split_axis` and `concat_axis` are both {cut}")));
                }
                let (low, high) = (cut.min(gathered), cut.max(gathered));
                Axes {
                    shape: [
                        taken(&shape[..low])?,
                        shape[low],
                        taken(&shape[low + 1..high])?,
                        shape[high],
                        taken(&shape[high + 1..])?,
                    ],
                    cut: Some(if cut == low { 1 } else { 3 }),
                    gathered: Some(if gathered == low { 1 } else { 3 }),
                }
            }
        })
    }

    pub(super) fn resolve(&self, axis: i64, rank: usize) -> Result<usize, CollectiveError> {
        let resolved = if axis < 0 {
            axis.checked_add(rank as i64)
        } else {
            Some(axis)
        };
        let resolved = resolved
            .and_then(|axis| usize::try_from(axis).ok())
            .filter(|axis| *axis < rank);
        resolved.ok_or_else(|| self.refuse(format!("axis {axis} is none of a tensor with {rank}")))
    }
}
