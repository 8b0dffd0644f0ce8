//! Which preset fits a model, told from its structure: what it makes, and which attentions its blocks have.

use super::preset::DEFAULT_PRESET;
use crate::attention::Kind;
use serde::Serialize;
use std::fmt;

/// What a model makes, told from the axes of its latent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// Its latent has frames.
    Video,
    /// Its latent has height and width, and no frames.
    Image,
    /// Its latent is a list of tokens, which may be those of an image or of a video.
    Tokens,
}

/// The preset that fits a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// Its name.
    pub name: &'static str,
    /// What in the structure of the model speaks for it.
    pub reason: String,
    /// Other presets that fit, the most particular first.
    pub alternatives: Vec<&'static str>,
}

impl Proposal {
    /// Whether it is the preset that is used where no rules are given.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_PRESET
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.name, self.reason)?;
        if !self.alternatives.is_empty() {
            write!(f, "; others that fit: {}", self.alternatives.join(", "))?;
        }
        f.write_str(")")
    }
}

/// The attentions of a model, as a form asks for them.
#[derive(Debug)]
enum Attentions {
    /// Exactly these for each unit of blocks, in any order.
    Unit(&'static [Kind]),
    /// At least one of each.
    AllOf(&'static [Kind]),
    /// At least one of one of these.
    AnyOf(&'static [Kind]),
}

/// What the models of a preset look like.
#[derive(Debug)]
struct Form {
    preset: &'static str,
    media: &'static [Medium],
    attentions: Attentions,
    /// The structure in words.
    reason: &'static str,
}

/// The forms, the most particular first: the first that a model has is proposed, and the others are named with it.
static FORMS: [Form; 9] = {
    use Attentions::{AllOf, AnyOf, Unit};
    use Kind::{Cross, Full, Joint, Spatial, Temporal};
    use Medium::{Image, Tokens, Video};
    [
        Form {
            preset: "open-sora-1.2",
            media: &[Video],
            attentions: Unit(&[Spatial, Cross, Temporal, Cross]),
            reason: "spatial and temporal blocks, both with cross-attention, as in Open-Sora 1.2",
        },
        Form {
            preset: "latte",
            media: &[Video],
            attentions: Unit(&[Spatial, Cross, Temporal]),
            reason: "spatial blocks with cross-attention, temporal ones without, as in Latte",
        },
        Form {
            preset: "open-sora-plan-1.1",
            media: &[Video],
            attentions: Unit(&[Spatial, Cross, Temporal]),
            reason: "spatial blocks with cross-attention, temporal ones without, as in Open-Sora-Plan 1.1",
        },
        Form {
            preset: "open-sora-plan-1.2",
            media: &[Video],
            attentions: Unit(&[Full, Cross]),
            reason: "blocks of attention over the whole clip and cross-attention, as in Open-Sora-Plan 1.2",
        },
        Form {
            preset: "vchitect",
            media: &[Video],
            attentions: Unit(&[Joint, Temporal, Cross]),
            reason: "blocks of joint, temporal and cross-attention side by side, as in Vchitect 2.0",
        },
        Form {
            preset: "cogvideox",
            media: &[Video],
            attentions: Unit(&[Joint]),
            reason: "all blocks attend over text and clip together, as in CogVideoX",
        },
        Form {
            preset: "pab",
            media: &[Video],
            attentions: AllOf(&[Spatial, Temporal]),
            reason: "a video model with spatial and temporal attention",
        },
        Form {
            preset: "full",
            media: &[Video, Tokens],
            attentions: AnyOf(&[Full, Joint]),
            reason: "attention over all latent tokens at once",
        },
        Form {
            preset: "image",
            media: &[Image, Tokens],
            attentions: AnyOf(&[Spatial, Full, Joint, Cross]),
            reason: "a model of single images",
        },
    ]
};

impl Attentions {
    fn are(&self, counts: &[usize; Kind::ALL.len()]) -> bool {
        let has = |kind: &Kind| count(counts, *kind) > 0;
        match self {
            Attentions::AllOf(kinds) => kinds.iter().all(has),
            Attentions::AnyOf(kinds) => kinds.iter().any(has),
            Attentions::Unit(unit) => {
                let of_unit = |kind: Kind| unit.iter().filter(|other| **other == kind).count();
                let first = unit.first().map_or(1, |kind| of_unit(*kind).max(1));
                let units = unit.first().map_or(0, |kind| count(counts, *kind)) / first;
                units > 0
                    && ATTENTIONS
                        .iter()
                        .all(|kind| count(counts, *kind) == units * of_unit(*kind))
            }
        }
    }
}

/// The kinds that tell one structure from another. Attention over text alone refines prompts before the blocks, and every
/// model has MLPs.
const ATTENTIONS: [Kind; 5] = [Kind::Spatial, Kind::Temporal, Kind::Cross, Kind::Full, Kind::Joint];

fn count(counts: &[usize; Kind::ALL.len()], kind: Kind) -> usize {
    let place = Kind::ALL.iter().position(|other| *other == kind);
    place.and_then(|place| counts.get(place)).copied().unwrap_or(0)
}

/// `3 spatial, 3 cross`.
fn listed(counts: &[usize; Kind::ALL.len()]) -> String {
    let kinds = ATTENTIONS
        .iter()
        .map(|kind| (count(counts, *kind), kind))
        .filter(|(count, _)| *count > 0)
        .map(|(count, kind)| format!("{count} {kind}"));
    kinds.collect::<Vec<_>>().join(", ")
}

/// The preset that fits a model which makes `medium` and has sites of these kinds; `None` where none does.
pub fn propose(medium: Option<Medium>, kinds: impl IntoIterator<Item = Kind>) -> Option<Proposal> {
    let mut counts = [0; Kind::ALL.len()];
    for kind in kinds {
        let place = Kind::ALL.iter().position(|other| *other == kind);
        if let Some(counter) = place.and_then(|place| counts.get_mut(place)) {
            *counter += 1;
        }
    }
    let medium = medium?;
    let mut fitting = FORMS
        .iter()
        .filter(|form| form.media.contains(&medium) && form.attentions.are(&counts));
    let first = fitting.next()?;
    Some(Proposal {
        name: first.preset,
        reason: format!("{}: {}", first.reason, listed(&counts)),
        alternatives: fitting.map(|form| form.preset).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{NamedSite, Rules, SiteFacts, presets};
    use super::*;
    use Kind::{Cross, Full, Joint, Mlp, Spatial, Temporal, Text};

    fn proposed(medium: Medium, unit: &[Kind], blocks: usize) -> Option<&'static str> {
        let kinds = (0..blocks).flat_map(|_| unit.iter().copied());
        propose(Some(medium), kinds).map(|proposal| proposal.name)
    }

    #[test]
    fn the_structure_tells_the_preset() {
        use Medium::{Image, Tokens, Video};
        for (medium, unit, expected) in [
            (Video, &[Spatial, Cross, Temporal][..], Some("latte")),
            (Video, &[Temporal, Spatial, Cross], Some("latte")),
            (
                Video,
                &[Spatial, Cross, Mlp, Temporal, Cross, Mlp],
                Some("open-sora-1.2"),
            ),
            (Video, &[Full, Cross], Some("open-sora-plan-1.2")),
            (Video, &[Joint], Some("cogvideox")),
            (Video, &[Text, Joint, Mlp], Some("cogvideox")),
            (Video, &[Joint, Temporal, Cross], Some("vchitect")),
            (Video, &[Spatial, Temporal], Some("pab")),
            (Video, &[Spatial, Spatial, Cross, Temporal], Some("pab")),
            (Video, &[Joint, Joint, Full], Some("full")),
            (Video, &[Full], Some("full")),
            (Tokens, &[Joint], Some("full")),
            (Image, &[Spatial], Some("image")),
            (Image, &[Spatial, Cross], Some("image")),
            (Image, &[Joint], Some("image")),
            (Video, &[Cross], None),
            (Video, &[Mlp], None),
            (Image, &[], None),
        ] {
            assert_eq!(proposed(medium, unit, 3), expected, "{medium:?} {unit:?}");
        }
        assert_eq!(propose(None, [Spatial]), None);
    }

    #[test]
    fn presets_of_one_structure_name_each_other() {
        let latte = propose(Some(Medium::Video), [Spatial, Cross, Temporal]).unwrap();
        assert_eq!(latte.alternatives, ["open-sora-plan-1.1", "pab"]);
        assert!(
            latte.reason.ends_with("as in Latte: 1 spatial, 1 temporal, 1 cross"),
            "{latte}"
        );
        assert!(latte.to_string().contains("others that fit: open-sora-plan-1.1, pab"));
        assert!(!latte.is_default());
    }

    #[test]
    fn every_form_is_that_of_a_preset_that_broadcasts_its_attentions() {
        for form in &FORMS {
            let rules = Rules::preset(form.preset).unwrap();
            let (Attentions::Unit(kinds) | Attentions::AllOf(kinds) | Attentions::AnyOf(kinds)) = &form.attentions;
            for kind in *kinds {
                let site = NamedSite {
                    name: "site",
                    facts: SiteFacts::new(*kind, 0, 1),
                };
                let assigned = rules.assign(&[site], &[]).unwrap();
                assert!(assigned[0].is_some(), "{} and {kind}", form.preset);
            }
        }
        for preset in presets() {
            assert!(
                FORMS.iter().any(|form| form.preset == preset.name),
                "{} is never proposed",
                preset.name
            );
        }
    }
}
