//! How restless a clip is from frame to frame, against its reference.

use ndarray::{ArrayView4, Axis, Zip};
use serde::{Deserialize, Serialize};

/// Change from frame to frame: means of the absolute differences of consecutive frames, over all pixels and pairs of frames.
///
/// `ratio` tells whether a clip flickers more (above 1) or less than its reference. It does not see flicker that takes the
/// place of motion: `excess` does, the change of what the clip has beyond its reference. A clip that is off by the same in
/// every frame has an excess of 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flicker {
    /// Change of the reference, in values from 0 to 1.
    pub reference: f64,
    /// Change of the other clip.
    pub other: f64,
    /// Change of the difference of the two, other less reference.
    pub difference: f64,
    /// `other` over `reference`; `None` (JSON `null`) where the reference stands still.
    pub ratio: Option<f64>,
    /// `difference` over `reference`; `None` where the reference stands still.
    pub excess: Option<f64>,
}

/// The flicker of a clip against its reference, both `[channels, frames, height, width]` in [0, 1]; `None` where shapes differ,
/// there are fewer than two frames, or no pixels.
pub fn flicker(reference: ArrayView4<'_, f32>, other: ArrayView4<'_, f32>) -> Option<Flicker> {
    let pairs = reference.len_of(Axis(1)).checked_sub(1)?;
    if reference.shape() != other.shape() || pairs == 0 || reference.is_empty() {
        return None;
    }
    let (mut of_reference, mut of_other, mut of_difference) = (0.0, 0.0, 0.0);
    for frame in 0..pairs {
        let before = reference.index_axis(Axis(1), frame);
        let after = reference.index_axis(Axis(1), frame + 1);
        let other_before = other.index_axis(Axis(1), frame);
        let other_after = other.index_axis(Axis(1), frame + 1);
        Zip::from(&before)
            .and(&after)
            .and(&other_before)
            .and(&other_after)
            .for_each(|&before, &after, &other_before, &other_after| {
                let change = f64::from(after) - f64::from(before);
                let other_change = f64::from(other_after) - f64::from(other_before);
                of_reference += change.abs();
                of_other += other_change.abs();
                of_difference += (other_change - change).abs();
            });
    }
    let count = (reference.len() / (pairs + 1) * pairs) as f64;
    let over = |change: f64| (of_reference > 0.0).then(|| change / of_reference);
    Some(Flicker {
        reference: of_reference / count,
        other: of_other / count,
        difference: of_difference / count,
        ratio: over(of_other),
        excess: over(of_difference),
    })
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::super::test_clips::{cases, clips};
    use super::*;

    #[test]
    fn changes_equal_those_of_numpy() {
        let cases = cases("flicker");
        assert!(!cases.is_empty());
        for case in &cases {
            let (reference, other) = clips(case);
            let ours = flicker(reference.view(), other.view()).unwrap();
            for (name, ours) in [
                ("reference", ours.reference),
                ("other", ours.other),
                ("difference", ours.difference),
            ] {
                assert!((ours - case[name].as_f64().unwrap()).abs() < 1e-9, "{name} {ours}");
            }
            assert_eq!(ours.ratio, Some(ours.other / ours.reference));
        }
    }

    #[test]
    fn what_is_off_by_the_same_in_every_frame_does_not_flicker() {
        let moving = Array4::from_shape_fn((1, 4, 3, 5), |(_, frame, y, x)| ((frame + x + y) % 3) as f32 / 4.0);
        let brighter = &moving + 0.25;
        let found = flicker(moving.view(), brighter.view()).unwrap();
        assert_eq!(
            (found.difference, found.excess, found.ratio),
            (0.0, Some(0.0), Some(1.0))
        );
        // The same amount of change at other places: the ratio is 1, the excess is not 0.
        let mut turned = moving.clone();
        turned.invert_axis(Axis(1));
        let found = flicker(moving.view(), turned.view()).unwrap();
        assert!(
            (found.ratio.unwrap() - 1.0).abs() < 1e-12 && found.excess.unwrap() > 0.5,
            "{found:?}"
        );
    }

    #[test]
    fn stills_have_none_and_a_still_reference_no_ratio() {
        let still = Array4::<f32>::zeros((3, 1, 2, 2));
        assert_eq!(flicker(still.view(), still.view()), None);
        let still = Array4::<f32>::zeros((3, 2, 2, 2));
        let mut other = still.clone();
        other[[0, 0, 0, 0]] = 1.0;
        let found = flicker(still.view(), other.view()).unwrap();
        assert_eq!((found.ratio, found.excess), (None, None));
        assert!((found.other - 1.0 / 12.0).abs() < 1e-12);
        assert_eq!(flicker(still.view(), Array4::zeros((3, 3, 2, 2)).view()), None);
    }
}
