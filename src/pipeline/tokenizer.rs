//! Prompts into numbers, by the files of a tokenizer's folder.

use super::folder::read_object;
use super::{PipelineError, spiece};
use serde_json::{Map, Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokenizers::{Tokenizer, TruncationParams};

/// A prompt as tokens, cut or padded to one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The tokens' numbers.
    pub ids: Vec<i64>,
    /// 1 for each token, 0 for padding.
    pub mask: Vec<i64>,
    /// How many tokens the prompt has where that is more than fit.
    pub whole: Option<usize>,
}

/// A tokenizer of a pipeline.
#[derive(Debug)]
pub struct PromptTokenizer {
    inner: Tokenizer,
    path: PathBuf,
    padding: u32,
    longest: Option<usize>,
}

impl PromptTokenizer {
    /// Reads `tokenizer.json`, or else `spiece.model` as T5 has it, or `vocab.json` and `merges.txt` as CLIP has them; what the
    /// padding token is and how long a prompt may be, from `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`PipelineError::NoTokenizer`] where there are no such files, [`PipelineError::File`] for damaged ones.
    pub fn open(folder: &Path) -> Result<PromptTokenizer, PipelineError> {
        let config = folder.join("tokenizer_config.json");
        let config = match config.is_file() {
            true => read_object(&config)?,
            false => Map::new(),
        };
        let path = folder.join("tokenizer.json");
        let inner = match path.is_file() {
            true => caught(|| Tokenizer::from_file(&path)),
            false => {
                let written = match folder.join(spiece::FILE).is_file() {
                    true => spiece::read(folder, &config)?,
                    false => clip(folder, &config)?,
                };
                caught(|| Tokenizer::from_bytes(written.to_string()))
            }
        };
        let refuse = |reason: String| PipelineError::File {
            path: path.clone(),
            reason,
        };
        let mut inner = inner.map_err(|error| {
            refuse(format!(
                "no tokenizer that can be read ({error}); save it again with a current version of transformers"
            ))
        })?;
        // Lengths are chosen for each prompt; what the file says of them is for training.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        let named = token(&config, "pad_token").or_else(|| token(&special_tokens(folder), "pad_token"));
        let candidates = named.iter().map(String::as_str).chain(["<pad>", "<|endoftext|>"]);
        let padding = candidates.into_iter().find_map(|token| inner.token_to_id(token));
        Ok(PromptTokenizer {
            padding: padding.unwrap_or(0),
            longest: config
                .get("model_max_length")
                .and_then(Value::as_u64)
                .and_then(|length| usize::try_from(length).ok()),
            inner,
            path,
        })
    }

    /// How many tokens the encoder was trained for, where the files say it.
    pub fn longest(&self) -> Option<usize> {
        self.longest
    }

    /// The tokens of a prompt with the encoder's own at its ends, cut or padded to `length`.
    ///
    /// # Errors
    /// [`PipelineError::File`] where the tokenizer cannot read the prompt.
    pub fn tokens(&self, prompt: &str, length: usize) -> Result<Tokens, PipelineError> {
        let refuse = |error: tokenizers::Error| PipelineError::File {
            path: self.path.clone(),
            reason: format!("prompt `{prompt}`: {error}"),
        };
        let mut encoding = caught(|| self.inner.encode(prompt, true)).map_err(refuse)?;
        let whole = encoding.get_ids().len();
        if whole > length {
            let mut cutting = self.inner.clone();
            cutting
                .with_truncation(Some(TruncationParams {
                    max_length: length,
                    ..TruncationParams::default()
                }))
                .map_err(refuse)?;
            encoding = caught(|| cutting.encode(prompt, true)).map_err(refuse)?;
        }
        let mut ids: Vec<i64> = encoding.get_ids().iter().copied().map(i64::from).collect();
        ids.truncate(length);
        let mut mask = vec![1; ids.len()];
        ids.resize(length, i64::from(self.padding));
        mask.resize(length, 0);
        Ok(Tokens {
            ids,
            mask,
            whole: (whole > length).then_some(whole),
        })
    }
}

/// What the library makes of a tokenizer's tables. It goes by what they say, and panics where they are damaged: that ends here.
fn caught<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, tokenizers::Error> {
    let made = catch_unwind(AssertUnwindSafe(work));
    made.unwrap_or_else(|_| Err("its tables are damaged".into()))
}

/// A special token in a configuration: text, or an object with its `content`.
fn token(config: &Map<String, Value>, key: &str) -> Option<String> {
    let value = config.get(key)?;
    let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
    text.map(str::to_owned)
}

fn special_tokens(folder: &Path) -> Map<String, Value> {
    read_object(&folder.join("special_tokens_map.json")).unwrap_or_default()
}

/// CLIP's tokenizer in the form of `tokenizer.json`, from its vocabulary and merges. Special tokens are whole wherever they
/// stand, also one for padding that is a mark as well (`!` of Stable Diffusion's larger CLIP).
fn clip(folder: &Path, config: &Map<String, Value>) -> Result<Value, PipelineError> {
    let (vocabulary, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    if !(vocabulary.is_file() && merges.is_file()) {
        return Err(PipelineError::NoTokenizer {
            folder: folder.to_owned(),
            found: match folder {
                _ if folder.is_dir() => "",
                _ => " (the folder itself is missing)",
            },
        });
    }
    let words = read_object(&vocabulary)?;
    let text = std::fs::read_to_string(&merges).map_err(|error| PipelineError::File {
        path: merges.clone(),
        reason: format!("cannot be read: {error}"),
    })?;
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("#version") && !line.is_empty());
    let merges: Vec<&str> = lines.collect();
    let [begin, end] = ["<|startoftext|>", "<|endoftext|>"];
    let number = |token: &str| {
        words.get(token).cloned().ok_or_else(|| PipelineError::File {
            path: vocabulary.clone(),
            reason: format!("it lacks CLIP's token `{token}`; make a tokenizer.json with transformers"),
        })
    };
    let added = |token: &str| -> Result<Value, PipelineError> {
        Ok(
            json!({"id": number(token)?, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                  "normalized": false, "special": true}),
        )
    };
    let mut special = vec![added(begin)?, added(end)?];
    let padding = token(config, "pad_token").or_else(|| token(&special_tokens(folder), "pad_token"));
    if let Some(padding) = padding.filter(|padding| words.contains_key(padding) && padding != begin && padding != end) {
        special.push(added(&padding)?);
    }
    // What a word is, as CLIP was trained.
    let pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {"type": "RobertaProcessing", "sep": [end, number(end)?], "cls": [begin, number(begin)?],
                           "trim_offsets": false, "add_prefix_space": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": end, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": words, "merges": merges},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(component: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/pipeline/latte")
            .join(component)
    }

    #[test]
    fn prompts_are_padded_and_cut_before_the_end_token() {
        let tokenizer = PromptTokenizer::open(&pipeline("tokenizer")).unwrap();
        assert_eq!(tokenizer.longest(), Some(512));
        let short = tokenizer.tokens("red circle", 5).unwrap();
        assert_eq!((short.ids[2], &short.ids[3..], short.whole), (1, &[0, 0][..], None));
        assert_eq!(short.mask, [1, 1, 1, 0, 0]);
        let long = tokenizer.tokens("red circle red circle red circle", 4).unwrap();
        assert_eq!((long.ids[3], long.whole), (1, Some(7)));
        assert_eq!(long.ids[..2], short.ids[..2]);
        assert_eq!(tokenizer.tokens("", 2).unwrap().ids, [1, 0]);
    }

    #[test]
    fn clip_is_read_from_its_vocabulary_and_merges() {
        let folder = tempfile::tempdir().unwrap();
        let vocabulary =
            r#"{"a": 0, "b": 1, "b</w>": 2, "ab</w>": 3, "a</w>": 4, "<|startoftext|>": 5, "<|endoftext|>": 6}"#;
        std::fs::write(folder.path().join("vocab.json"), vocabulary).unwrap();
        std::fs::write(folder.path().join("merges.txt"), "#version: 0.2\na b</w>\n").unwrap();
        let tokenizer = PromptTokenizer::open(folder.path()).unwrap();
        assert_eq!(tokenizer.tokens("AB   a", 6).unwrap().ids, [5, 3, 4, 6, 6, 6]);
        std::fs::write(folder.path().join("vocab.json"), r#"{"a": 0}"#).unwrap();
        let error = PromptTokenizer::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("vocab.json") && error.contains("startoftext"), "{error}");
    }

    #[test]
    fn without_a_tokenizer_it_is_said_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = PromptTokenizer::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("AutoTokenizer"), "{error}");
        let error = PromptTokenizer::open(&folder.path().join("none"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("itself is missing"), "{error}");
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let error = PromptTokenizer::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("tokenizer.json") && error.contains("save it again"),
            "{error}"
        );
    }
}
