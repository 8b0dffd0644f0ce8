//! What a clip is made from besides its noise: texts, and further inputs of the model.

use super::GenerationError;
use crate::runtime::{Port, Tensor};
use ndarray::{Array1, Array2, ArrayD, Axis};
use std::collections::BTreeMap;

/// A prompt as models take it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    /// An embedding for each token, `[tokens, width]`.
    pub embeddings: Array2<f32>,
    /// For each token 1, or 0 where it is padding, `[tokens]`; without, all count.
    pub mask: Option<Array1<f32>>,
    /// One embedding of the whole prompt, `[width]`.
    pub pooled: Option<Array1<f32>>,
}

impl From<Array2<f32>> for Text {
    fn from(embeddings: Array2<f32>) -> Text {
        Text {
            embeddings,
            mask: None,
            pooled: None,
        }
    }
}

/// What a clip is made from besides its noise.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// Scale of classifier-free guidance; 1 is without, and the model is then run for the prompt alone.
    pub guidance: f32,
    /// The prompt.
    pub prompt: Option<Text>,
    /// What guidance leads away from: the empty or the negative prompt.
    pub empty: Option<Text>,
    /// Further inputs of the model by name.
    pub inputs: BTreeMap<String, Tensor>,
}

impl Conditioning {
    /// How often the sample stands in the model's batch: twice under guidance (empty prompt, prompt).
    pub fn copies(&self) -> usize {
        if self.guidance == 1.0 { 1 } else { 2 }
    }
}

/// Refuses a model whose latent has another batch than `copies` of each of `clips` need.
///
/// # Errors
/// [`GenerationError::Batch`].
pub fn check_batch(latent: &Port, copies: usize, clips: usize) -> Result<(), GenerationError> {
    let needed = copies * clips;
    match latent.shape.first().copied().flatten() {
        Some(batch) if usize::try_from(batch) != Ok(needed) => Err(GenerationError::Batch {
            batch,
            needed,
            guided: copies != 1,
            clips,
            option: "--guidance",
        }),
        _ => Ok(()),
    }
}

/// What an input takes of a prompt.
pub(super) type Part = fn(&Text) -> Option<ArrayD<f32>>;

pub(super) fn part_embeddings(text: &Text) -> Option<ArrayD<f32>> {
    Some(text.embeddings.clone().into_dyn())
}

/// Where nobody says what is padding, nothing is.
pub(super) fn part_mask(text: &Text) -> Option<ArrayD<f32>> {
    let all = || Array1::ones(text.embeddings.nrows());
    Some(text.mask.clone().unwrap_or_else(all).into_dyn())
}

pub(super) fn part_pooled(text: &Text) -> Option<ArrayD<f32>> {
    text.pooled.clone().map(Array1::into_dyn)
}

/// One part of all texts along the batch, each `clips` times: `[texts * clips, ...]`.
pub(super) fn stacked(
    port: &Port,
    texts: &[&Option<Text>],
    part: Part,
    clips: usize,
) -> Result<ArrayD<f32>, GenerationError> {
    let missing = || GenerationError::NoText {
        input: port.name.clone(),
    };
    let parts: Vec<ArrayD<f32>> = texts
        .iter()
        .map(|text| text.as_ref().and_then(part).ok_or_else(missing))
        .collect::<Result<_, _>>()?;
    let views: Vec<_> = parts
        .iter()
        .flat_map(|part| std::iter::repeat_n(part.view(), clips))
        .collect();
    ndarray::stack(Axis(0), &views).map_err(|_| GenerationError::TextShape {
        prompt: parts.last().map_or_else(Vec::new, |part| part.shape().to_vec()),
        empty: parts.first().map_or_else(Vec::new, |part| part.shape().to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ElementType;

    #[test]
    fn a_fixed_batch_says_which_option_makes_another() {
        let latent = |batch| Port {
            name: "x".to_owned(),
            element_type: Some(ElementType::Float32),
            description: String::new(),
            shape: vec![batch, Some(4)],
            symbols: vec![String::new(); 2],
        };
        for (batch, copies, clips) in [(None, 2, 3), (Some(2), 2, 1), (Some(1), 1, 1)] {
            assert!(check_batch(&latent(batch), copies, clips).is_ok());
        }
        for (batch, copies, clips, said) in [
            (
                2,
                1,
                1,
                "without classifier-free guidance needs 1; use --guidance-2 other than 1",
            ),
            (1, 2, 1, "with classifier-free guidance needs 2; use --guidance-2 1"),
            (2, 2, 3, "with so many clips needs 6; use another --batch"),
        ] {
            let error = check_batch(&latent(Some(batch)), copies, clips).unwrap_err();
            let error = error.with_guidance_option("--guidance-2").to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
