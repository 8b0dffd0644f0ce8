//! Sums of arrays, and the model outputs that a scheduler remembers.

use std::collections::VecDeque;

use ndarray::{ArrayD, ArrayViewD};

use super::SamplerError;

/// The sum of arrays of one shape, each times its weight. Arrays of weight 0 are left out: what they hold, infinities
/// too, does not matter.
///
/// # Errors
/// [`SamplerError::Shape`] where shapes differ.
pub(super) fn weighted_sum(terms: &[(f32, ArrayViewD<'_, f32>)]) -> Result<ArrayD<f32>, SamplerError> {
    let mut terms_with_weight = terms.iter().filter(|(weight, _)| *weight != 0.0);
    let Some((weight, first)) = terms_with_weight.next() else {
        let shape = terms.first().map_or(&[][..], |(_, array)| array.shape());
        return Ok(ArrayD::zeros(shape));
    };
    let mut sum = first.map(|value| weight * value);
    for (weight, term) in terms_with_weight {
        check_shapes(term, &sum.view())?;
        sum.zip_mut_with(term, |sum, value| *sum += weight * value);
    }
    Ok(sum)
}

/// Refuses a model output and a sample of different shapes.
pub(super) fn check_shapes(output: &ArrayViewD<'_, f32>, sample: &ArrayViewD<'_, f32>) -> Result<(), SamplerError> {
    if output.shape() == sample.shape() {
        return Ok(());
    }
    let (output, sample) = (output.shape().to_vec(), sample.shape().to_vec());
    Err(SamplerError::Shape { output, sample })
}

/// Refuses an index that is not below the number of model calls.
pub(super) fn check_index(index: usize, steps: usize) -> Result<(), SamplerError> {
    if index < steps {
        Ok(())
    } else {
        Err(SamplerError::NoSuchStep { index, steps })
    }
}

/// What was computed for step `index`, out of one entry for each model call.
pub(super) fn of_step<T>(entries: &[T], index: usize) -> Result<&T, SamplerError> {
    let steps = entries.len();
    entries.get(index).ok_or(SamplerError::NoSuchStep { index, steps })
}

/// What the model predicted in the last steps, the newest first.
#[derive(Clone, Debug)]
pub(super) struct History {
    kept: VecDeque<ArrayD<f32>>,
    depth: usize,
    next: usize,
}

impl History {
    /// Keeps `depth` predictions.
    pub(super) fn new(depth: usize) -> History {
        History {
            kept: VecDeque::with_capacity(depth),
            depth,
            next: 0,
        }
    }

    /// Begins step `index`; step 0 forgets everything, any other must follow the one before it.
    pub(super) fn enter(&mut self, index: usize) -> Result<(), SamplerError> {
        if index == 0 {
            self.kept.clear();
        } else if index != self.next {
            let expected = self.next;
            return Err(SamplerError::OutOfOrder { index, expected });
        }
        self.next = index + 1;
        Ok(())
    }

    /// Keeps a prediction, and forgets the oldest of more than `depth`.
    pub(super) fn push(&mut self, prediction: ArrayD<f32>) {
        self.kept.truncate(self.depth.saturating_sub(1));
        self.kept.push_front(prediction);
    }

    /// How many predictions are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The predictions, from the newest on.
    pub(super) fn arrays_mut(&mut self) -> Vec<&mut ArrayD<f32>> {
        self.kept.iter_mut().collect()
    }

    /// The weights with the predictions, from the newest on.
    pub(super) fn weighted<'a>(&'a self, weights: &[f32]) -> Vec<(f32, ArrayViewD<'a, f32>)> {
        let weights = weights.iter().copied();
        weights.zip(self.kept.iter().map(|array| array.view())).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::IxDyn;

    use super::*;

    fn full(value: f32) -> ArrayD<f32> {
        ArrayD::from_elem(IxDyn(&[2]), value)
    }

    #[test]
    fn what_has_no_weight_does_not_count() {
        let (one, infinite) = (full(1.0), full(f32::INFINITY));
        let sum = weighted_sum(&[(0.0, infinite.view()), (2.0, one.view()), (0.5, one.view())]);
        assert_eq!(sum.unwrap(), full(2.5));
        assert_eq!(weighted_sum(&[(0.0, infinite.view())]).unwrap(), full(0.0));
        let other = ArrayD::zeros(IxDyn(&[3]));
        assert!(weighted_sum(&[(1.0, one.view()), (1.0, other.view())]).is_err());
    }

    #[test]
    fn the_newest_comes_first_and_the_oldest_goes() {
        let mut history = History::new(2);
        for index in 0..3 {
            history.enter(index).unwrap();
            history.push(full(index as f32));
        }
        let kept: Vec<f32> = history
            .weighted(&[1.0; 3])
            .iter()
            .map(|(_, array)| array[[0]])
            .collect();
        assert_eq!(kept, [2.0, 1.0]);
        let message = history.enter(7).unwrap_err().to_string();
        assert!(message.contains("step 7") && message.contains("step 3"), "{message}");
        history.enter(0).unwrap();
        assert_eq!(history.len(), 0);
    }
}
