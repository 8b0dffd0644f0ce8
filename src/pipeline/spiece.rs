//! SentencePiece's `spiece.model` as the tokenizer of T5: a unigram model in the form of `tokenizer.json`.
//!
//! The numbers of its protocol buffer are those of SentencePiece's `sentencepiece_model.proto`. What T5 does with spaces and
//! ends of texts is transformers' `T5Tokenizer`.

use super::PipelineError;
use base64::Engine;
use prost::Message;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The file in a tokenizer's folder.
pub const FILE: &str = "spiece.model";

/// Tokens that T5 has behind its vocabulary where `tokenizer_config.json` says nothing of `extra_ids`.
const EXTRA: u64 = 100;

/// More extra tokens than any tokenizer has; keeps a hostile file from asking for all memory.
const MOST_EXTRA: u64 = 10_000;

/// The kind of model that T5 has (`model_type`, and its default).
const UNIGRAM: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct SentencePiece {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(int32, optional, tag = "40")]
    unknown: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    /// A table of characters and what is written in their place.
    #[prost(bytes = "vec", optional, tag = "2")]
    characters: Option<Vec<u8>>,
}

/// Reads `spiece.model` of a folder with this `tokenizer_config.json`.
///
/// # Errors
/// [`PipelineError::File`] where it cannot be read, or is no unigram model with the ends of texts that T5 has.
pub fn read(folder: &Path, config: &Map<String, Value>) -> Result<Value, PipelineError> {
    let path = folder.join(FILE);
    let refuse = |reason: String| PipelineError::File {
        path: path.clone(),
        reason: format!("{reason}; make a tokenizer.json with transformers"),
    };
    let bytes = std::fs::read(&path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let model = SentencePiece::decode(bytes.as_slice())
        .map_err(|error| refuse(format!("it is no model of SentencePiece ({error})")))?;
    let trainer = model.trainer.unwrap_or_default();
    if trainer.model_type.unwrap_or(UNIGRAM) != UNIGRAM {
        return Err(refuse("it is no unigram model, which T5 has".to_owned()));
    }
    let mut vocabulary: Vec<(String, f64)> = Vec::with_capacity(model.pieces.len());
    for piece in model.pieces {
        let score = f64::from(piece.score.unwrap_or(0.0));
        if !score.is_finite() {
            return Err(refuse("a piece's score is no number".to_owned()));
        }
        vocabulary.push((piece.piece.unwrap_or_default(), score));
    }
    let unknown = usize::try_from(trainer.unknown.unwrap_or(0)).unwrap_or(usize::MAX);
    if unknown >= vocabulary.len() {
        return Err(refuse("it has no piece for unknown characters".to_owned()));
    }
    let extra = config.get("extra_ids").and_then(Value::as_u64).unwrap_or(EXTRA);
    let extra = (0..extra.min(MOST_EXTRA))
        .rev()
        .map(|number| format!("<extra_id_{number}>"));
    let pieces = vocabulary.len();
    vocabulary.extend(extra.map(|token| (token, 0.0)));
    let number_of = |token: &str| vocabulary.iter().position(|(piece, _)| piece == token);
    let end = number_of("</s>").ok_or_else(|| refuse("it lacks `</s>`, which ends T5's texts".to_owned()))?;
    // Whole wherever they stand.
    let ends = ["<pad>", "</s>", "<unk>"]
        .into_iter()
        .filter_map(|token| Some((number_of(token)?, token)));
    let extra = vocabulary.iter().enumerate().skip(pieces);
    let whole = ends.chain(extra.map(|(number, (token, _))| (number, token.as_str())));
    let added = whole.map(|(number, token)| {
        json!({"id": number, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
               "special": true})
    });
    let added: Vec<Value> = added.collect();
    let characters = model.normalizer.and_then(|normalizer| normalizer.characters);
    let normalizer = characters.filter(|table| !table.is_empty()).map(|table| {
        let table = base64::engine::general_purpose::STANDARD.encode(table);
        json!({"type": "Precompiled", "precompiled_charsmap": table})
    });
    let space = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                           "special_tokens": {"</s>": {"id": "</s>", "ids": [end], "tokens": ["</s>"]}}},
        "decoder": space,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": false},
    }))
}

#[cfg(test)]
mod tests;
