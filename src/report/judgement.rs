//! Clips judged against their references: the JSON of `pab-patch quality`, and its tables.

use serde::{Deserialize, Serialize};

use super::number::{decibels, similarity};
use super::provenance::Provenance;
use super::table::{Alignment, Table, TableStyle};
use crate::quality::{ClipQuality, DistanceSpread, QualitySummary, Spread};

/// The version of the JSON that [`Judgement`] serialises to; it grows when a field changes its meaning or goes.
const FORMAT: u32 = 1;

/// How close clips are to their references.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The version of this format.
    pub format: u32,
    /// How it was made.
    pub provenance: Provenance,
    /// The path of the references.
    pub reference: String,
    /// The path of the others.
    pub other: String,
    /// What LPIPS was measured with; `null` where it was not.
    pub lpips: Option<LpipsFiles>,
    /// All clips, summed up.
    pub summary: QualitySummary,
    /// One entry a clip.
    pub clips: Vec<JudgedClip>,
    /// Names of references without another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reference_only: Vec<String>,
    /// Names of others without a reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_only: Vec<String>,
}

/// What LPIPS was measured with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LpipsFiles {
    /// The path of the network.
    pub network: String,
    /// The path of its heads.
    pub heads: String,
}

/// A clip against its reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedClip {
    /// Its name.
    pub name: String,
    /// The path of the reference.
    pub reference: String,
    /// The path of the other.
    pub other: String,
    /// How close they are.
    #[serde(flatten)]
    pub quality: ClipQuality,
}

impl Judgement {
    /// Sums clips up; `None` where there are none.
    pub fn new(
        provenance: Provenance,
        [reference, other]: [String; 2],
        lpips: Option<LpipsFiles>,
        clips: Vec<JudgedClip>,
    ) -> Option<Judgement> {
        let qualities: Vec<ClipQuality> = clips.iter().map(|clip| clip.quality.clone()).collect();
        Some(Judgement {
            format: FORMAT,
            provenance,
            reference,
            other,
            lpips,
            summary: QualitySummary::of(&qualities)?,
            clips,
            reference_only: Vec::new(),
            other_only: Vec::new(),
        })
    }

    /// As text: a line a clip, with `frames` also one a frame, and what they come to.
    pub fn render(&self, style: TableStyle, frames: bool) -> String {
        let mut text = String::new();
        if frames {
            text.push_str(&self.frames().render(style));
            text.push('\n');
        }
        text.push_str(&self.clips().render(style));
        if self.clips.len() > 1 {
            text.push('\n');
            text.push_str(&self.summary().render(style));
        }
        if self.summary.equal > 0 {
            text.push_str(&format!(
                "\nEqual     {} of {} clips, in every pixel\n",
                self.summary.equal,
                self.clips.len()
            ));
        }
        text
    }

    fn clips(&self) -> Table {
        let flicker = self.clips.iter().any(|clip| clip.quality.flicker.is_some());
        let mut columns = self.columns(&[("clip", Alignment::Left)]);
        if flicker {
            columns.extend([("flicker", Alignment::Right), ("beyond", Alignment::Right)]);
        }
        let mut table = Table::new(columns);
        for clip in &self.clips {
            let quality = &clip.quality;
            let measures = [Some(quality.ssim), quality.ms_ssim, quality.lpips];
            let mut cells = self.cells(&clip.name, None, quality.psnr, measures);
            if let Some(flicker) = &quality.flicker {
                cells.extend([flicker.ratio, flicker.excess].map(share));
            }
            table.row(cells);
        }
        table
    }

    fn frames(&self) -> Table {
        let columns = self.columns(&[("clip", Alignment::Left), ("frame", Alignment::Right)]);
        let mut table = Table::new(columns);
        for clip in &self.clips {
            for (number, frame) in clip.quality.frames.iter().enumerate() {
                let measures = [Some(frame.ssim), frame.ms_ssim, frame.lpips];
                table.row(self.cells(&clip.name, Some(number), frame.psnr, measures));
            }
        }
        table
    }

    /// Columns for the measures that there are, behind some others.
    fn columns(&self, before: &[(&'static str, Alignment)]) -> Vec<(&'static str, Alignment)> {
        let mut columns = before.to_vec();
        columns.extend([("PSNR", Alignment::Right), ("SSIM", Alignment::Right)]);
        if self.has_ms_ssim() {
            columns.push(("MS-SSIM", Alignment::Right));
        }
        if self.lpips.is_some() {
            columns.push(("LPIPS", Alignment::Right));
        }
        columns
    }

    fn cells(&self, name: &str, frame: Option<usize>, psnr: Option<f64>, measures: [Option<f64>; 3]) -> Vec<String> {
        let [ssim, ms_ssim, lpips] = measures;
        let mut cells = vec![name.to_owned()];
        cells.extend(frame.map(|frame| frame.to_string()));
        cells.extend([decibels(psnr), similarity(ssim)]);
        if self.has_ms_ssim() {
            cells.push(similarity(ms_ssim));
        }
        if self.lpips.is_some() {
            cells.push(similarity(lpips));
        }
        cells
    }

    fn has_ms_ssim(&self) -> bool {
        self.clips.iter().any(|clip| clip.quality.ms_ssim.is_some())
    }

    fn summary(&self) -> Table {
        let mut table = Table::new([
            ("over clips", Alignment::Left),
            ("mean", Alignment::Right),
            ("median", Alignment::Right),
            ("worst clip", Alignment::Right),
        ]);
        for [name, mean, median, worst] in summary_rows(&self.summary) {
            table.row([name, mean, median, worst]);
        }
        table
    }
}

/// The measures of a summary as name, mean, median and worst clip, in words.
pub(super) fn summary_rows(summary: &QualitySummary) -> Vec<[String; 4]> {
    let spread = |name: &str, spread: &Spread, show: fn(Option<f64>) -> String| {
        [
            name.to_owned(),
            show(spread.mean),
            show(spread.median),
            show(spread.min),
        ]
    };
    let distance = |name: &str, spread: &DistanceSpread, show: fn(Option<f64>) -> String| {
        let numbers = [spread.mean, spread.median, spread.max].map(|value| show(Some(value)));
        let [mean, median, worst] = numbers;
        [name.to_owned(), mean, median, worst]
    };
    let mut rows = vec![
        spread("PSNR", &summary.psnr, decibels),
        spread("SSIM", &summary.ssim, similarity),
    ];
    rows.extend(summary.ms_ssim.iter().map(|found| spread("MS-SSIM", found, similarity)));
    rows.extend(summary.lpips.iter().map(|found| distance("LPIPS", found, similarity)));
    let flicker = summary.flicker_excess.iter();
    rows.extend(flicker.map(|found| distance("flicker beyond the reference's", found, share)));
    rows
}

/// A share of the reference's change from frame to frame.
fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{:.1} %", value * 100.0))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::quality::{Flicker, FrameQuality};

    pub(crate) fn example() -> Judgement {
        let clip = |name: &str, psnr: Option<f64>, ssim, lpips| {
            let frame = FrameQuality {
                psnr,
                ssim,
                ms_ssim: None,
                lpips: Some(lpips),
            };
            JudgedClip {
                name: name.to_owned(),
                reference: format!("a/{name}.apng"),
                other: format!("b/{name}.apng"),
                quality: ClipQuality {
                    psnr,
                    mean_squared_error: psnr.map_or(0.0, |psnr| 10.0_f64.powf(-psnr / 10.0)),
                    ssim,
                    ms_ssim: None,
                    lpips: Some(lpips),
                    flicker: Some(Flicker {
                        reference: 0.02,
                        other: 0.021,
                        difference: 0.004,
                        ratio: Some(1.05),
                        excess: Some(0.2),
                    }),
                    frames: vec![frame; 2],
                },
            }
        };
        let provenance = Provenance {
            program: "pab-patch 0.1.0".to_owned(),
            command: ["pab-patch", "quality", "a", "b"].map(str::to_owned).to_vec(),
            system: "linux x86_64".to_owned(),
            processor: Some("Example 3000".to_owned()),
            cores: 2,
        };
        let lpips = LpipsFiles {
            network: "alex.onnx".to_owned(),
            heads: "alex.safetensors".to_owned(),
        };
        let clips = vec![
            clip("clip_000", Some(33.25), 0.9712, 0.021),
            clip("clip_001", None, 1.0, 0.0),
        ];
        Judgement::new(provenance, ["a".to_owned(), "b".to_owned()], Some(lpips), clips).unwrap()
    }

    #[test]
    fn a_judgement_for_people() {
        insta::assert_snapshot!(example().render(TableStyle::Plain, true));
    }

    #[test]
    fn the_json_is_read_back_and_its_form_is_fixed() {
        let judgement = example();
        let json = serde_json::to_string_pretty(&judgement).unwrap();
        assert_eq!(serde_json::from_str::<Judgement>(&json).unwrap(), judgement);
        insta::assert_snapshot!(json);
    }

    #[test]
    fn measures_that_were_not_taken_have_no_column() {
        let mut judgement = example();
        judgement.lpips = None;
        for clip in &mut judgement.clips {
            clip.quality.flicker = None;
        }
        judgement.clips.truncate(1);
        let text = judgement.render(TableStyle::Plain, false);
        assert!(
            !text.contains("LPIPS") && !text.contains("flicker") && !text.contains("MS-SSIM"),
            "{text}"
        );
        assert!(text.contains("33.2 dB") || text.contains("33.3 dB"), "{text}");
    }
}
