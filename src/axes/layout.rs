//! Orders of a latent's axes.

use super::label::Label::{self, Batch, Channels, Frames, Height, Tokens, Width};
use super::note::{Note, labelling};

/// Layouts of latents, in the order in which they are tried. One that makes a convolution or projection sum
/// over what it should not is wrong, and the next one is tried.
pub(super) static LATENTS: &[&[Label]] = &[
    &[Batch, Channels, Frames, Height, Width],
    &[Batch, Frames, Channels, Height, Width],
    &[Batch, Frames, Height, Width, Channels],
    &[Batch, Channels, Height, Width],
    &[Batch, Height, Width, Channels],
];

/// Layouts of latents whose tokens were put together before the model. The second one, of audio, is tried where a
/// convolution speaks against the first.
pub(super) static TOKEN_LATENTS: [&[Label]; 2] = [&[Batch, Tokens, Channels], &[Batch, Channels, Tokens]];

/// What the axes of an input were taken for.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Its name.
    pub input: String,
    /// What each axis counts.
    pub labels: &'static [Label],
}

impl Layout {
    /// The note that nothing in the graph tells this layout from `others`; none where there are no others.
    pub fn assumed(&self, others: &[Layout]) -> Option<Note> {
        let other = others.first()?;
        Some(Note::new(
            format!("input `{}`", self.input),
            format!(
                "its axes are assumed to be {}, but no convolution or projection tells so",
                self.words()
            ),
            format!(
                "say what they count: {}; or else {}",
                self.labelling(),
                other.labelling()
            ),
        ))
    }

    /// How to say that the input has this layout.
    pub fn labelling(&self) -> String {
        labelling(&self.input, &self.words())
    }

    fn words(&self) -> String {
        let words: Vec<&str> = self.labels.iter().map(|label| label.word()).collect();
        words.join(",")
    }
}
