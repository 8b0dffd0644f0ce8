//! How much a rank sends in a collective: closed formulas, exact for the parts that ranks have, and the mean where it does
//! not matter who has more.
//!
//! Of a tensor of `m · n` elements, of whose `n` entries a rank has `n_r`, an all-gather sends `m · n_r` to each of `N - 1`
//! others: `M · (N - 1) / N` of `M` bytes in the mean. An all-to-all from `n` entries to `k` others sends `m · n_r · (k - k_r)`,
//! `M / N · (N - 1) / N` in the mean. An all-reduce of `m` elements, of which the rank sums `m_r`, sends what others sum and
//! its own sums: `(m - m_r) + m_r · (N - 1)`.

use super::mesh::part;

/// Where a rank stands among those that take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many take part.
    pub ranks: usize,
    /// Which of them the rank is.
    pub place: usize,
}

impl Place {
    fn own(self, entries: usize) -> usize {
        part(entries, self.ranks, self.place).len()
    }

    /// Elements sent in an all-gather of `entries` with `rest` elements each; none where that is more than can be counted.
    pub fn all_gather(self, entries: usize, rest: usize) -> Option<usize> {
        rest.checked_mul(self.own(entries))?
            .checked_mul(self.ranks.checked_sub(1)?)
    }

    /// Elements sent in an all-to-all from parts of `from` entries to parts of `to`, with `rest` elements for each pair.
    pub fn all_to_all(self, from: usize, to: usize, rest: usize) -> Option<usize> {
        rest.checked_mul(self.own(from))?
            .checked_mul(to.checked_sub(self.own(to))?)
    }

    /// Elements sent in an all-reduce of `elements`.
    pub fn all_reduce(self, elements: usize) -> Option<usize> {
        let own = self.own(elements);
        (elements - own).checked_add(own.checked_mul(self.ranks.checked_sub(1)?)?)
    }
}

/// What a rank sends in the mean in an all-gather of a tensor of `bytes`.
pub fn mean_all_gather(bytes: f64, ranks: usize) -> f64 {
    let ranks = ranks.max(1) as f64;
    bytes * (ranks - 1.0) / ranks
}

/// What a rank sends in the mean in an all-to-all of a tensor of `bytes`.
pub fn mean_all_to_all(bytes: f64, ranks: usize) -> f64 {
    mean_all_gather(bytes, ranks) / ranks.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ranks_send_together_is_the_mean_times_ranks() {
        for ranks in 1..9 {
            let all = |sent: &dyn Fn(Place) -> Option<usize>| -> f64 {
                let sent = (0..ranks).map(|place| sent(Place { ranks, place }).unwrap() as f64);
                sent.sum::<f64>() / ranks as f64
            };
            // 7 entries over up to 8 ranks: uneven, and one without any. What is gathered is everything once a peer.
            let gathered = all(&|place| place.all_gather(7, 3));
            assert!((gathered - mean_all_gather(21.0, ranks)).abs() < 1e-9);
            // Where both sizes divide, all-to-alls have the mean at every rank.
            let even = Place { ranks, place: 0 }.all_to_all(2 * ranks, 3 * ranks, 5).unwrap() as f64;
            let elements = (2 * ranks * 3 * ranks * 5) as f64;
            assert!((even - mean_all_to_all(elements, ranks)).abs() < 1e-9);
            // A sum takes as much as scattering parts and gathering them.
            let summed = all(&|place| place.all_reduce(7));
            assert!((summed - 2.0 * mean_all_gather(7.0, ranks)).abs() < 1e-9);
        }
    }
}
