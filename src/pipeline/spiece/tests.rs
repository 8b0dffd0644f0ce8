//! `spiece.model` against transformers' `T5Tokenizer`: `tests/data/tokenizer/t5`, made by `tests/oracle/spiece_transformers.py`.

use super::super::PromptTokenizer;
use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    extra_ids: usize,
    text: String,
    ids: Vec<i64>,
}

/// A folder with the model, and what the configuration says.
fn folder(model: &[u8], config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), model).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    folder
}

fn data(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizer/t5");
    std::fs::read(folder.join(file)).unwrap()
}

#[test]
fn tokens_are_those_of_transformers() {
    let cases: Vec<Case> = serde_json::from_slice(&data("cases.json")).unwrap();
    assert!(cases.len() > 30);
    let mut wrong = Vec::new();
    for case in cases {
        let folder = folder(&data(FILE), &format!(r#"{{"extra_ids": {}}}"#, case.extra_ids));
        let tokenizer = PromptTokenizer::open(folder.path()).unwrap();
        let tokens = tokenizer.tokens(&case.text, 512).unwrap();
        let count = tokens.mask.iter().filter(|counts| **counts == 1).count();
        if tokens.ids[..count] != case.ids {
            wrong.push(format!(
                "{:?}: {:?}, not {:?}",
                case.text,
                &tokens.ids[..count],
                case.ids
            ));
        }
        assert!(tokens.ids[count..].iter().all(|padding| *padding == 0));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_no_tokenizer_of_t5_is_refused() {
    let model = SentencePiece::decode(data(FILE).as_slice()).unwrap();
    let changed = |change: fn(&mut SentencePiece)| {
        let mut model = model.clone();
        change(&mut model);
        model.encode_to_vec()
    };
    for (bytes, part) in [
        (b"nothing".to_vec(), "no model of SentencePiece"),
        (Vec::new(), "no piece for unknown"),
        (
            changed(|model| {
                model.trainer = Some(Trainer {
                    model_type: Some(2),
                    unknown: None,
                })
            }),
            "no unigram",
        ),
        (changed(|model| model.pieces[5].score = Some(f32::NAN)), "score"),
        (
            changed(|model| model.trainer.as_mut().unwrap().unknown = Some(-1)),
            "no piece for unknown",
        ),
        (changed(|model| model.pieces[1].piece = Some("x".to_owned())), "`</s>`"),
        // A table of characters that is cut off.
        (
            changed(|model| {
                model.normalizer = Some(Normalizer {
                    characters: Some(vec![9, 9]),
                })
            }),
            "can be read",
        ),
    ] {
        let folder = folder(&bytes, "{}");
        let error = PromptTokenizer::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// A table whose entries lead nowhere makes the library panic, and our program say that the file is damaged.
#[test]
fn damaged_tables_are_an_error() {
    let mut model = SentencePiece::decode(data(FILE).as_slice()).unwrap();
    let mut table = 4_u32.to_le_bytes().to_vec();
    table.extend(u32::MAX.to_le_bytes());
    model.normalizer = Some(Normalizer {
        characters: Some(table),
    });
    let folder = folder(&model.encode_to_vec(), "{}");
    let tokenizer = PromptTokenizer::open(folder.path()).unwrap();
    let error = tokenizer.tokens("a ship", 8).unwrap_err().to_string();
    assert!(error.contains("its tables are damaged"), "{error}");
}

#[test]
fn cut_files_are_never_a_panic() {
    let whole = data(FILE);
    for length in (0..whole.len()).step_by(whole.len() / 40) {
        let folder = folder(&whole[..length], "{}");
        if let Ok(tokenizer) = PromptTokenizer::open(folder.path()) {
            let _ = tokenizer.tokens("a red ship", 8);
        }
    }
}
