//! A ceiling for the memory of caches: which sites are given up so that the rest stays below it.

/// What a cached site takes and saves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// Bytes of its caches.
    pub bytes: u64,
    /// The share of a step's operations that a broadcast saves, 0 to 1.
    pub share: f64,
}

impl Weight {
    /// What a byte saves. Sites that take nothing are worth most.
    fn worth(&self) -> f64 {
        if self.bytes == 0 {
            f64::INFINITY
        } else if self.share.is_finite() {
            self.share / self.bytes as f64
        } else {
            0.0
        }
    }
}

/// The sites to give up so that the bytes of the others together are at most `ceiling`: those that save the least for
/// each byte, of equal ones the later first. As indices, in the order in which they are given up; the last one was still
/// needed.
pub fn over_ceiling(sites: &[Weight], ceiling: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sites.len()).rev().collect();
    let worth = |index: &usize| sites.get(*index).map_or(0.0, Weight::worth);
    order.sort_by(|one, other| worth(one).total_cmp(&worth(other)));
    let bytes = |index: usize| sites.get(index).map_or(0, |site| u128::from(site.bytes));
    let mut left: u128 = (0..sites.len()).map(bytes).sum();
    let given_up = order.into_iter().take_while(|index| {
        let over = left > u128::from(ceiling);
        if over {
            left -= bytes(*index);
        }
        over
    });
    given_up.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights(sites: &[(u64, f64)]) -> Vec<Weight> {
        sites.iter().map(|&(bytes, share)| Weight { bytes, share }).collect()
    }

    #[test]
    fn the_worst_saving_a_byte_goes_first() {
        // Worth 1, 4, 2 and 4 a hundred bytes.
        let sites = weights(&[(100, 0.01), (100, 0.04), (200, 0.04), (50, 0.02)]);
        assert_eq!(over_ceiling(&sites, 450), [0; 0]);
        assert_eq!(over_ceiling(&sites, 449), [0]);
        assert_eq!(over_ceiling(&sites, 349), [0, 2]);
        // Of the two that are worth the same, the later one.
        assert_eq!(over_ceiling(&sites, 149), [0, 2, 3]);
        assert_eq!(over_ceiling(&sites, 99), [0, 2, 3, 1]);
        assert_eq!(over_ceiling(&[], 0), [0; 0]);
    }

    #[test]
    fn sites_without_bytes_stay_and_sums_do_not_overflow() {
        let sites = weights(&[(0, 0.0), (u64::MAX, 0.5), (u64::MAX, f64::NAN)]);
        assert_eq!(over_ceiling(&sites, 0), [2, 1]);
        assert_eq!(over_ceiling(&sites, u64::MAX), [2]);
    }

    proptest! {
        #[test]
        fn the_rest_fits_and_no_more_is_given_up_than_needed(
            sites in prop::collection::vec((0u64..1000, 0.0f64..1.0), 0..20),
            ceiling in 0u64..8000,
        ) {
            let sites = weights(&sites);
            let dropped = over_ceiling(&sites, ceiling);
            let kept = |without: &[usize]| -> u64 {
                let kept = (0..sites.len()).filter(|index| !without.contains(index));
                kept.map(|index| sites[index].bytes).sum()
            };
            prop_assert!(kept(&dropped) <= ceiling);
            if let Some((_, before)) = dropped.split_last() {
                prop_assert!(kept(before) > ceiling);
            }
            let worst_kept = (0..sites.len())
                .filter(|index| !dropped.contains(index))
                .map(|index| sites[index].worth())
                .fold(f64::INFINITY, f64::min);
            prop_assert!(dropped.iter().all(|index| sites[*index].worth() <= worst_kept));
            // A lower ceiling gives up the same ones and more.
            let lower = over_ceiling(&sites, ceiling / 2);
            prop_assert_eq!(&lower[..dropped.len()], &dropped[..]);
        }
    }
}
