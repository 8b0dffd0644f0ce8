//! What is told of the ranks of a run.

use crate::report::number;
use crate::shard::Mesh;
use serde::Serialize;

/// The ranks, and what they sent.
#[derive(Clone, Debug, Serialize)]
pub struct RanksReport {
    pub ranks: usize,
    /// `threads` or `processes`.
    pub kind: &'static str,
    pub mesh: Mesh,
    /// Threads within an operator, of this rank.
    pub threads: Option<usize>,
    /// For each step of a clip the bytes that the rank with most to send sent.
    pub step_bytes: Vec<u64>,
    /// The bytes that the rank with most to send sent for a clip to be put together, where ranks keep their parts of it.
    pub gathered_bytes: Option<u64>,
    /// For each rank the bytes that it sent during a clip.
    pub rank_bytes: Vec<u64>,
    /// Steps in which no rank sent anything.
    pub silent_steps: usize,
}

impl RanksReport {
    /// From the bytes that each rank sent in each step, and those that it sent behind the last one, where there are such.
    pub fn new(
        kind: &'static str,
        mesh: Mesh,
        threads: Option<usize>,
        sent: &[Vec<u64>],
        gathered: Option<&[u64]>,
    ) -> RanksReport {
        let steps = sent.iter().map(Vec::len).max().unwrap_or(0);
        let most = |step: usize| sent.iter().filter_map(|rank| rank.get(step)).copied().max();
        let step_bytes: Vec<u64> = (0..steps).map(|step| most(step).unwrap_or(0)).collect();
        RanksReport {
            ranks: sent.len(),
            kind,
            mesh,
            threads,
            silent_steps: step_bytes.iter().filter(|bytes| **bytes == 0).count(),
            gathered_bytes: gathered.and_then(|gathered| gathered.iter().max()).copied(),
            rank_bytes: sent
                .iter()
                .enumerate()
                .map(|(rank, steps)| {
                    let behind = gathered.and_then(|gathered| gathered.get(rank)).copied();
                    steps.iter().sum::<u64>() + behind.unwrap_or(0)
                })
                .collect(),
            step_bytes,
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        let steps = self.step_bytes.len();
        let mean = self.step_bytes.iter().sum::<u64>() / (steps as u64).max(1);
        let behind = self.gathered_bytes.map_or_else(String::new, |bytes| {
            format!("; {} to put the clip together", number::bytes(bytes))
        });
        format!(
            "{} ranks as {} ({}): a rank sent {} a step on average, and in {} of {steps} steps nothing{behind}",
            self.ranks,
            self.kind,
            self.mesh,
            number::bytes(mean),
            self.silent_steps
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_silent_where_no_rank_sends() {
        let sent = [vec![8, 0, 0], vec![4, 2, 0]];
        let report = RanksReport::new("threads", Mesh::sequence(2), None, &sent, None);
        assert_eq!((report.step_bytes.as_slice(), report.silent_steps), (&[8, 2, 0][..], 1));
        assert_eq!(report.rank_bytes, [8, 6]);
        assert!(report.text().ends_with("in 1 of 3 steps nothing"), "{}", report.text());
        // What puts the clip together is no step's.
        let kept = RanksReport::new("threads", Mesh::sequence(2), None, &sent, Some(&[3, 5]));
        assert_eq!((kept.step_bytes.as_slice(), kept.silent_steps), (&[8, 2, 0][..], 1));
        assert_eq!(
            (kept.rank_bytes.as_slice(), kept.gathered_bytes),
            (&[11, 11][..], Some(5))
        );
        assert!(
            kept.text().ends_with("; 5 B to put the clip together"),
            "{}",
            kept.text()
        );
    }
}
