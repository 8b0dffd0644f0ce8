//! Prompts into texts: tokenizers and text encoders, each open only while it is used.

use super::family::{Encoder, Family, Padding, Take};
use super::{Folder, PipelineError, PromptTokenizer, Tokens};
use crate::generation::Text;
use crate::runtime::{Denoiser, ElementType, Options, Port, Session, Tensor};
use ndarray::{Array1, Array2, ArrayD, Axis, Ix1, Ix2, concatenate, s};
use std::path::Path;

/// A prompt after all encoders.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// What the transformer takes.
    pub text: Text,
    /// What was cut off: the encoder's folder, the tokens that the prompt has and those that fit.
    pub cut: Option<(&'static str, usize, usize)>,
}

/// How long the transformer wants its texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// The number of tokens that its text input fixes.
    pub fixed: Option<usize>,
    /// The width of its text input, where it fixes one: what encoders that are left out are filled up to.
    pub width: Option<usize>,
}

/// Encodes prompts with all text encoders of a pipeline, one encoder after another: each is opened, runs all prompts and is
/// closed. ONNX Runtime must be loaded.
///
/// # Errors
/// [`PipelineError`] for files that are missing or damaged, encoders of another form, and failing runs.
pub fn encode(
    folder: &Folder,
    family: &Family,
    prompts: &[&str],
    lengths: Lengths,
    options: &Options,
) -> Result<Vec<Encoded>, PipelineError> {
    let mut parts: Vec<Vec<(Encoder, Encoded)>> = vec![Vec::new(); prompts.len()];
    for encoder in family.encoders {
        if folder.is_without(encoder.model) {
            continue;
        }
        let encoder = match lengths.fixed {
            Some(tokens) if encoder.take == Take::Last && is_alone(family) => Encoder { tokens, ..*encoder },
            _ => *encoder,
        };
        let tokenizer = PromptTokenizer::open(&folder.component(encoder.tokenizer))?;
        let spelt = prompts.iter().map(|prompt| family.spelling.of(prompt));
        let tokens = spelt.map(|prompt| tokenizer.tokens(&prompt, encoder.tokens));
        let tokens: Vec<Tokens> = tokens.collect::<Result<_, _>>()?;
        let path = folder.model(encoder.model)?;
        let mut session = Denoiser::plain(Session::open(&path, options)?);
        for (part, tokens) in parts.iter_mut().zip(&tokens) {
            let text = run(&mut session, &path, encoder, tokens)?;
            let cut = tokens.whole.map(|whole| (encoder.model, whole, encoder.tokens));
            part.push((encoder, Encoded { text, cut }));
        }
    }
    parts.into_iter().map(|parts| joined(family, parts, lengths)).collect()
}

/// Whether one encoder alone gives embeddings of tokens, so that their number is the text's length.
fn is_alone(family: &Family) -> bool {
    let of_tokens = family.encoders.iter().filter(|encoder| encoder.take != Take::Pooled);
    of_tokens.count() == 1
}

/// One prompt by one encoder.
fn run(session: &mut Denoiser, path: &Path, encoder: Encoder, tokens: &Tokens) -> Result<Text, PipelineError> {
    let refuse = |reason: String| PipelineError::Ports {
        model: path.to_owned(),
        reason,
    };
    let count = tokens.ids.len();
    let row = |values: Vec<i64>, port: &Port| {
        let array = Array2::from_shape_vec((1, count), values).map_err(|error| refuse(error.to_string()))?;
        Ok::<_, PipelineError>(Tensor::from_array(array).cast(port.element_type.unwrap_or(ElementType::Int64)))
    };
    let mut fed = Vec::new();
    for port in session.session().inputs() {
        if let Some(Some(fixed)) = port.shape.get(1)
            && usize::try_from(*fixed) != Ok(count)
        {
            return Err(refuse(format!(
                "its input `{}` is made for {fixed} tokens, and the pipeline gives {count}; export it with an open length",
                port.name
            )));
        }
        let values = match port.name.as_str() {
            "input_ids" => tokens.ids.clone(),
            "attention_mask" if encoder.masked => tokens.mask.clone(),
            "attention_mask" => vec![1; count],
            _ => {
                return Err(refuse(format!(
                    "its input `{}` ({}) is neither input_ids nor attention_mask; export the encoder with those two alone",
                    port.name, port.description
                )));
            }
        };
        fed.push((port.name.clone(), row(values, port)?));
    }
    if !fed.iter().any(|(name, _)| name == "input_ids") {
        return Err(refuse(
            "it has no input `input_ids`; export the text encoder again".to_owned(),
        ));
    }
    let fed: Vec<(&str, &Tensor)> = fed.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let outputs = session.step(&fed, &[])?;
    let mask = Array1::from_iter(tokens.mask.iter().map(|counts| *counts as f32));
    let named = |wanted: &dyn Fn(&str) -> bool, rank: usize| {
        let of_rank = outputs.iter().filter(|(_, tensor)| tensor.shape().len() == rank);
        let mut found = of_rank.filter(|(name, _)| wanted(name));
        found.next_back().map(|(_, tensor)| tensor.clone().into_f32())
    };
    let embeddings = match encoder.take {
        Take::Last => named(&|name| name == "last_hidden_state", 3).or_else(|| {
            let mut tensors = outputs.iter().filter(|(_, tensor)| tensor.shape().len() == 3);
            tensors.next().map(|(_, tensor)| tensor.clone().into_f32())
        }),
        // The prompt as a whole, and nothing of its tokens.
        Take::Pooled => Some(ArrayD::zeros(vec![1, count, 0])),
        Take::PenultimateAndPooled => {
            let layer = |name: &str| {
                name.strip_prefix("hidden_states.")
                    .and_then(|layer| layer.parse::<usize>().ok())
            };
            let last = outputs.iter().filter_map(|(name, _)| layer(name)).max();
            let before = last.and_then(|last| last.checked_sub(1));
            before.and_then(|before| named(&|name| layer(name) == Some(before), 3))
        }
    };
    let embeddings = embeddings
        .filter(|embeddings| embeddings.len_of(Axis(0)) == 1)
        .map(|embeddings| embeddings.index_axis_move(Axis(0), 0))
        .and_then(|embeddings: ArrayD<f32>| embeddings.into_dimensionality::<Ix2>().ok())
        .filter(|embeddings| embeddings.nrows() == count)
        .ok_or_else(|| {
            refuse(match encoder.take {
                Take::Last | Take::Pooled => "no output is [1, tokens, width]; export its last hidden state".to_owned(),
                Take::PenultimateAndPooled => {
                    "no outputs `hidden_states.0`, `hidden_states.1`, … are [1, tokens, width], of which the one before the \
                     last is needed; export the encoder with output_hidden_states"
                        .to_owned()
                }
            })
        })?;
    let pooled = match encoder.take {
        Take::Last => None,
        Take::PenultimateAndPooled | Take::Pooled => {
            let pooled = named(&|name| name == "text_embeds", 2).or_else(|| named(&|name| name == "pooler_output", 2));
            let pooled = pooled.and_then(|pooled| pooled.index_axis_move(Axis(0), 0).into_dimensionality::<Ix1>().ok());
            Some(pooled.ok_or_else(|| {
                refuse(
                    "no output is `text_embeds` or `pooler_output`; export the encoder with its projection".to_owned(),
                )
            })?)
        }
    };
    Ok(Text {
        embeddings,
        mask: Some(mask),
        pooled,
    })
}

/// What the encoders say of one prompt as one text: those with a pooled embedding side by side, filled up with zeros to the
/// width of the others, which follow behind.
fn joined(family: &Family, parts: Vec<(Encoder, Encoded)>, lengths: Lengths) -> Result<Encoded, PipelineError> {
    let cut = parts.iter().find_map(|(_, part)| part.cut);
    if family.encoders.len() == 1 {
        let text = parts.into_iter().next().map(|(_, part)| part.text).unwrap_or_default();
        let text = match family.padding {
            Padding::Zeros => zeroed(text),
            Padding::Kept | Padding::Cut => text,
        };
        return Ok(Encoded { text, cut });
    }
    let (beside, behind): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(encoder, _)| encoder.take != Take::Last);
    let join = |axis: usize, arrays: &[ndarray::ArrayView2<'_, f32>]| {
        concatenate(Axis(axis), arrays).map_err(|error| PipelineError::File {
            path: "text encoders".into(),
            reason: format!("their outputs do not fit each other ({error}); export them from one pipeline"),
        })
    };
    let of_tokens = beside.iter().filter(|(encoder, _)| encoder.take != Take::Pooled);
    let clips: Vec<_> = of_tokens.map(|(_, part)| part.text.embeddings.view()).collect();
    let clips = match clips.as_slice() {
        [] => Array2::zeros((0, 0)),
        clips => join(1, clips)?,
    };
    let mut rest: Vec<Array2<f32>> = behind.into_iter().map(|(_, part)| part.text.embeddings).collect();
    // An encoder that is left out leaves zeros.
    for missing in family
        .encoders
        .iter()
        .filter(|encoder| encoder.take == Take::Last)
        .skip(rest.len())
    {
        rest.push(Array2::zeros((missing.tokens, lengths.width.unwrap_or(clips.ncols()))));
    }
    let width = rest
        .iter()
        .map(|text| text.ncols())
        .max()
        .unwrap_or(0)
        .max(clips.ncols());
    let mut wide = Array2::zeros((clips.nrows(), width));
    wide.slice_mut(s![.., ..clips.ncols()]).assign(&clips);
    let mut all = vec![wide.view()];
    all.extend(rest.iter().map(|text| text.view()));
    let pooled: Vec<_> = beside
        .iter()
        .filter_map(|(_, part)| part.text.pooled.as_ref())
        .collect();
    let pooled = pooled.into_iter().flat_map(|pooled| pooled.iter().copied()).collect();
    Ok(Encoded {
        text: Text {
            embeddings: join(0, &all)?,
            mask: None,
            pooled: Some(pooled),
        },
        cut,
    })
}

fn zeroed(mut text: Text) -> Text {
    if let Some(mask) = &text.mask {
        let rows = text.embeddings.axis_iter_mut(Axis(0)).zip(mask);
        rows.filter(|(_, counts)| **counts == 0.0)
            .for_each(|(mut row, _)| row.fill(0.0));
    }
    text
}

/// Prompt and negative prompt as one run takes them: where the family cuts padding off, both end where the prompt does.
/// Transformers that fix the length of their text take both whole.
#[must_use]
pub fn pair(family: &Family, lengths: Lengths, prompt: &Text, negative: &Text) -> (Text, Text) {
    let kept = prompt
        .mask
        .as_ref()
        .map(|mask| mask.iter().filter(|counts| **counts != 0.0).count());
    match (family.padding, lengths.fixed, kept) {
        (Padding::Cut, None, Some(kept)) => (ended(prompt, kept), ended(negative, kept)),
        _ => (prompt.clone(), negative.clone()),
    }
}

fn ended(text: &Text, kept: usize) -> Text {
    let kept = kept.min(text.embeddings.nrows());
    Text {
        embeddings: text.embeddings.slice(s![..kept, ..]).to_owned(),
        mask: text.mask.as_ref().map(|mask| mask.slice(s![..kept]).to_owned()),
        pooled: text.pooled.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr1;

    fn text(rows: usize, width: usize, counts: usize) -> Text {
        Text {
            embeddings: Array2::from_elem((rows, width), 2.0),
            mask: Some((0..rows).map(|row| f32::from(u8::from(row < counts))).collect()),
            pooled: None,
        }
    }

    #[test]
    fn padding_is_kept_cut_or_zeros() {
        let family = |class: &str| Family::of(class).unwrap();
        let (prompt, negative) = (text(6, 3, 4), text(6, 3, 1));
        let open = Lengths::default();
        let (cut, other) = pair(family("LattePipeline"), open, &prompt, &negative);
        assert_eq!((cut.embeddings.nrows(), other.embeddings.nrows()), (4, 4));
        assert_eq!(other.mask.unwrap(), arr1(&[1.0, 0.0, 0.0, 0.0]));
        let fixed = Lengths {
            fixed: Some(6),
            width: None,
        };
        assert_eq!(pair(family("LattePipeline"), fixed, &prompt, &negative).0, prompt);
        assert_eq!(pair(family("CogVideoXPipeline"), open, &prompt, &negative).1, negative);
        let part = Encoded {
            text: prompt,
            cut: None,
        };
        let encoder = family("WanPipeline").encoders[0];
        let wan = joined(family("WanPipeline"), vec![(encoder, part)], open).unwrap();
        assert_eq!(wan.text.embeddings.column(0), arr1(&[2.0, 2.0, 2.0, 2.0, 0.0, 0.0]));
    }

    #[test]
    fn a_pooled_encoder_gives_no_tokens() {
        let family = Family::of("FluxPipeline").unwrap();
        let pooled = Text {
            pooled: Some(Array1::from_elem(5, 1.0)),
            ..text(77, 0, 77)
        };
        let parts = [pooled, text(9, 12, 4)].into_iter().zip(family.encoders);
        let parts = parts.map(|(text, encoder)| (*encoder, Encoded { text, cut: None }));
        let joined = joined(family, parts.collect(), Lengths::default()).unwrap().text;
        assert_eq!((joined.embeddings.dim(), joined.pooled.unwrap().len()), ((9, 12), 5));
        assert!(is_alone(family) && !is_alone(Family::of("StableDiffusion3Pipeline").unwrap()));
    }

    #[test]
    fn clips_stand_side_by_side_before_the_others() {
        let family = Family::of("StableDiffusion3Pipeline").unwrap();
        let pooled = |width: usize| Text {
            pooled: Some(Array1::from_elem(width, 1.0)),
            ..text(77, width, 77)
        };
        let part = |index: usize, text: Text| (family.encoders[index], Encoded { text, cut: None });
        let parts = || vec![part(0, pooled(3)), part(1, pooled(5))];
        let mut with = parts();
        with.push(part(2, text(256, 12, 256)));
        let joined_text = joined(family, with, Lengths::default()).unwrap().text;
        assert_eq!(joined_text.embeddings.dim(), (77 + 256, 12));
        assert_eq!(
            (joined_text.embeddings[[0, 7]], joined_text.embeddings[[0, 8]]),
            (2.0, 0.0)
        );
        assert_eq!(joined_text.pooled.unwrap().len(), 8);
        // Without T5, zeros stand in its place.
        let lengths = Lengths {
            fixed: None,
            width: Some(10),
        };
        let without = joined(family, parts(), lengths).unwrap().text;
        assert_eq!(without.embeddings.dim(), (77 + 256, 10));
        assert_eq!(without.embeddings[[77, 0]], 0.0);
    }
}
