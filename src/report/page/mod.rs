//! All results of a model on one page: what was found, rules, schedule, speed, quality, clips, and how to make it again.
//!
//! [`Results`] are read from what the other commands write; each part of the page is a file here. A part without results is left
//! out, and the page says how to get it.

mod chart;
mod clips;
mod drift;
mod found;
mod inspection;
mod markup;
mod quality;
mod reproduce;
mod results;
mod rules;
mod schedule;
mod speed;
mod strip;

use super::FramesPerSecond;
use super::html::{escaped, page};
use super::number;
use std::fmt::Write as _;

pub use drift::Drift;
pub use inspection::Inspection;
pub use results::{ClipFolders, Named, Results};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// How a page is made.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSettings {
    /// Its title; the model's name where there is none.
    pub title: Option<String>,
    /// How many clips of each comparison are shown, at most.
    pub clips: usize,
    /// How fast they play.
    pub rate: FramesPerSecond,
}

/// A page, and what is on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The page.
    pub html: String,
    /// The titles of its parts.
    pub parts: Vec<&'static str>,
    /// The titles of parts that were left out, with what to do to get them.
    pub missing: Vec<(&'static str, String)>,
    /// What could not be read or shown.
    pub warnings: Vec<String>,
}

/// A part of the page.
struct Part {
    /// Its anchor.
    anchor: &'static str,
    title: &'static str,
    content: Content,
}

enum Content {
    /// What stands below the title, as HTML.
    Shown(String),
    /// How to get it, as HTML.
    Missing(String),
}

impl Part {
    fn new(anchor: &'static str, title: &'static str, shown: Option<String>, otherwise: &str) -> Part {
        let content = match shown {
            Some(shown) => Content::Shown(shown),
            None => Content::Missing(otherwise.to_owned()),
        };
        Part { anchor, title, content }
    }
}

impl Results {
    /// The page of these results.
    #[must_use]
    pub fn page(&self, settings: &PageSettings) -> Page {
        let mut warnings: Vec<String> = Vec::new();
        let skipped = self.skipped.iter();
        warnings.extend(skipped.map(|(path, reason)| format!("{}: {reason}", path.display())));
        let parts = [
            found::part(self),
            rules::part(self),
            schedule::part(self),
            speed::part(self),
            drift::part(self),
            quality::part(self),
            clips::part(self, settings, &mut warnings),
            reproduce::part(self),
        ];
        let title = settings.title.clone().unwrap_or_else(|| self.title());
        let mut body = String::new();
        // Writing to a string does not fail.
        let _ = self.write_body(&mut body, &title, &parts, &warnings);
        let shown = |part: &&Part| matches!(part.content, Content::Shown(_));
        Page {
            html: page(&title, STYLE, &body, SCRIPT),
            parts: parts.iter().filter(shown).map(|part| part.title).collect(),
            missing: parts
                .iter()
                .filter_map(|part| match &part.content {
                    Content::Missing(how) => Some((part.title, markup::plain(how))),
                    Content::Shown(_) => None,
                })
                .collect(),
            warnings,
        }
    }

    /// What the page is called where nobody says.
    fn title(&self) -> String {
        let models = self.models();
        match models.as_slice() {
            [] => "Pyramid Attention Broadcast".to_owned(),
            [model] => format!("Pyramid Attention Broadcast on {model}"),
            [first, rest @ ..] => format!("Pyramid Attention Broadcast on {first} and {} more", rest.len()),
        }
    }

    fn write_body(&self, body: &mut String, title: &str, parts: &[Part], warnings: &[String]) -> std::fmt::Result {
        writeln!(
            body,
            "<a class=\"skip\" href=\"#main\">Skip to the results</a>\n<header>\n<h1>{}</h1>",
            escaped(title)
        )?;
        self.write_headline(body)?;
        body.push_str("<nav aria-label=\"Parts of this page\"><ul>\n");
        for part in parts.iter().filter(|part| matches!(part.content, Content::Shown(_))) {
            writeln!(body, "<li><a href=\"#{}\">{}</a></li>", part.anchor, part.title)?;
        }
        body.push_str("</ul></nav>\n</header>\n<main id=\"main\">\n");
        for part in parts {
            if let Content::Shown(shown) = &part.content {
                let (anchor, title) = (part.anchor, part.title);
                writeln!(
                    body,
                    "<section id=\"{anchor}\" aria-labelledby=\"{anchor}-title\">\n<h2 id=\"{anchor}-title\">{title}</h2>\n{shown}</section>"
                )?;
            }
        }
        write_missing(body, parts, warnings)?;
        body.push_str("</main>\n");
        Ok(())
    }

    /// The figures that people look for first, of the comparison that is fastest.
    fn write_headline(&self, body: &mut String) -> std::fmt::Result {
        let speed = |comparison: &&Named<super::Comparison>| comparison.value.speed_up.median_of_ratios;
        let fastest = self
            .comparisons
            .iter()
            .max_by(|one, other| speed(one).total_cmp(&speed(other)));
        let Some(Named { value: comparison, .. }) = fastest else {
            return Ok(());
        };
        body.push_str("<dl class=\"headline\">\n");
        let mut figure = |name: &str, value: String, note: String| {
            writeln!(
                body,
                "<div><dt>{name}</dt><dd>{}<small>{}</small></dd></div>",
                escaped(&value),
                escaped(&note)
            )
        };
        let speed_up = &comparison.speed_up;
        figure(
            "Speed-up",
            number::ratio(speed_up.median_of_ratios),
            format!(
                "quartiles {} to {}",
                number::ratio(speed_up.lower_quartile),
                number::ratio(speed_up.upper_quartile)
            ),
        )?;
        figure(
            "A clip",
            number::milliseconds(comparison.patched.clip_milliseconds.median),
            format!(
                "instead of {}",
                number::milliseconds(comparison.original.clip_milliseconds.median)
            ),
        )?;
        if let Some(quality) = &comparison.quality {
            let worst = |text: String| format!("worst clip {text}");
            figure(
                "PSNR",
                number::decibels(quality.psnr.mean),
                worst(number::decibels(quality.psnr.min)),
            )?;
            figure(
                "SSIM",
                number::similarity(quality.ssim.mean),
                worst(number::similarity(quality.ssim.min)),
            )?;
        }
        writeln!(
            body,
            "</dl>\n<p class=\"from\">By the rules of {}, against the original over {}.</p>",
            escaped(&comparison.facts.rules_from),
            match comparison.clips.len() {
                1 => "one clip".to_owned(),
                clips => format!("{clips} clips"),
            }
        )
    }
}

/// What is not on the page, and why.
fn write_missing(body: &mut String, parts: &[Part], warnings: &[String]) -> std::fmt::Result {
    let missing: Vec<_> = parts
        .iter()
        .filter_map(|part| match &part.content {
            Content::Missing(how) => Some((part.title, how)),
            Content::Shown(_) => None,
        })
        .collect();
    if missing.is_empty() && warnings.is_empty() {
        return Ok(());
    }
    body.push_str("<section id=\"missing\" aria-labelledby=\"missing-title\">\n<h2 id=\"missing-title\">Not on this page</h2>\n<ul>\n");
    for (title, how) in missing {
        writeln!(body, "<li><b>{title}</b>: {how}</li>")?;
    }
    for warning in warnings {
        writeln!(body, "<li>{}</li>", escaped(warning))?;
    }
    body.push_str("</ul>\n</section>\n");
    Ok(())
}
