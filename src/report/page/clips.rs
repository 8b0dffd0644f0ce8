//! Clips of original and patched model side by side, with what differs.

use super::markup::command;
use super::strip::Strips;
use super::{ClipFolders, PageSettings, Part, Results};
use crate::report::html::escaped;
use crate::report::{number, read_clip};
use std::fmt::Write as _;

/// Small frames are shown with hard edges, large ones smoothed.
const SMALL: u32 = 160;

pub fn part(results: &Results, settings: &PageSettings, warnings: &mut Vec<String>) -> Part {
    let mut html = String::new();
    let mut longest = 1;
    for clips in &results.clips {
        let chosen = chosen(clips, settings.clips);
        let mut shown = String::new();
        for place in &chosen {
            let Some((name, reference, other)) = clips.pairs.get(*place) else {
                continue;
            };
            let strips = read_clip(reference, None)
                .and_then(|reference| Ok((reference, read_clip(other, None)?)))
                .and_then(|(reference, other)| Strips::of(reference.view(), other.view()));
            match strips {
                Ok(strips) => {
                    longest = longest.max(strips.frames);
                    let psnr = clips.psnr.get(*place).copied().flatten();
                    write_clip(&mut shown, name, psnr, &strips, settings);
                }
                Err(error) => warnings.push(error.to_string()),
            }
        }
        if shown.is_empty() {
            continue;
        }
        let _ = writeln!(html, "<h3>{}</h3>", escaped(&clips.title));
        if chosen.len() < clips.pairs.len() {
            let _ = writeln!(
                html,
                "<p class=\"remark\">{} of {} clips, from the one that differs most to the one that differs least.</p>",
                chosen.len(),
                clips.pairs.len()
            );
        }
        let _ = writeln!(html, "<div class=\"clips\">\n{shown}</div>");
    }
    let how = format!(
        "{} writes them beside its figures; {} names those that it compared.",
        command("pab-patch compare MODEL --rules RULES"),
        command("pab-patch quality ORIGINALS OTHERS -o quality.json")
    );
    if html.is_empty() {
        return Part::new("clips", "Clips", None, &how);
    }
    let controls = format!(
        "<div class=\"player\"><label><input type=\"checkbox\" id=\"play\" checked> Play</label>\n<label class=\"needs-script\" \
         hidden>Frame <input type=\"range\" id=\"frame\" min=\"0\" max=\"{}\" value=\"0\"> <output id=\"frame-number\">0</output></label>\n\
         <label class=\"needs-script\" hidden>Speed <select id=\"speed\"><option value=\"4\">¼</option><option value=\"2\">½</option><option \
         value=\"1\" selected>1</option></select></label></div>\n",
        longest - 1
    );
    Part::new("clips", "Clips", Some(controls + &html), &how)
}

/// Places of the clips that are shown: all, or as many as may be, spread evenly from the most different to the least.
fn chosen(clips: &ClipFolders, most: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..clips.pairs.len()).collect();
    if places.len() <= most {
        return places;
    }
    let psnr = |place: usize| {
        clips
            .psnr
            .get(place)
            .copied()
            .flatten()
            .flatten()
            .unwrap_or(f64::INFINITY)
    };
    places.sort_by(|one, other| psnr(*one).total_cmp(&psnr(*other)));
    let last = places.len() - 1;
    let spread = (0..most).map(|number| if most == 1 { 0 } else { number * last / (most - 1) });
    spread.filter_map(|place| places.get(place).copied()).collect()
}

fn write_clip(html: &mut String, name: &str, psnr: Option<Option<f64>>, strips: &Strips, settings: &PageSettings) {
    let Strips {
        size: (width, height),
        frames,
        gain,
        ..
    } = *strips;
    let class = if width.max(height) <= SMALL {
        "clip hard"
    } else {
        "clip"
    };
    let _ = writeln!(
        html,
        "<figure class=\"{class}\" style=\"--frames:{frames};--rate:{};--ratio:{width}/{height};--middle:{}\">\n<div class=\"panes\">",
        settings.rate.number(),
        frames / 2
    );
    let brightened = match gain {
        1 => "difference".to_owned(),
        gain => format!("difference × {gain}"),
    };
    for (address, what) in strips.addresses.iter().zip(["original", "patched", &brightened]) {
        let _ = writeln!(
            html,
            "<div class=\"pane\"><div class=\"frame\"><img src=\"{address}\" alt=\"{}\"></div><small>{}</small></div>",
            escaped(&format!("{name}: {what}")),
            escaped(what)
        );
    }
    let mut caption = escaped(name);
    if let Some(psnr) = psnr {
        let psnr = match psnr {
            Some(_) => number::decibels(psnr),
            None => "equal in every pixel".to_owned(),
        };
        let _ = write!(caption, " <small>{}</small>", escaped(&psnr));
    }
    if strips.all_frames > frames as usize {
        let _ = write!(
            caption,
            " <small>the first {frames} of {} frames</small>",
            strips.all_frames
        );
    }
    let _ = writeln!(html, "</div>\n<figcaption>{caption}</figcaption>\n</figure>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn clips_are_chosen_from_worst_to_best() {
        let psnr = [30.0, 20.0, 50.0, 40.0, 25.0];
        let clips = ClipFolders {
            title: String::new(),
            pairs: psnr
                .iter()
                .map(|psnr| (psnr.to_string(), PathBuf::new(), PathBuf::new()))
                .collect(),
            psnr: psnr.iter().map(|psnr| Some(Some(*psnr))).collect(),
        };
        assert_eq!(chosen(&clips, 5), [0, 1, 2, 3, 4]);
        assert_eq!(chosen(&clips, 3), [1, 0, 2]);
        assert_eq!(chosen(&clips, 1), [1]);
        assert!(chosen(&clips, 0).is_empty());
    }
}
