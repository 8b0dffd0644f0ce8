//! Prompts of models that ship a table of prompt embeddings instead of a text encoder.

use super::GenerationError;
use ndarray::{Array2, ArrayView2, Axis};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The table's file beside a model.
const TABLE: &str = "prompt_table.npy";
/// The words' file beside a model.
const WORDS: &str = "prompt_words.json";

/// A table of prompt embeddings `[rows, width]`, and the words that name its rows.
#[derive(Clone, Debug)]
pub struct PromptTable {
    table: Array2<f32>,
    words: Words,
}

/// `prompt_words.json`: a prompt is one word of each group, in the order of the groups.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    groups: Vec<Group>,
    /// Words that mean nothing and may stand anywhere.
    #[serde(default)]
    ignored: Vec<String>,
    /// The row of the empty prompt.
    empty: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    /// The row of the group's first word; the others follow.
    first: usize,
    words: Vec<String>,
}

impl PromptTable {
    /// The files of the table that stands beside a model, if there is one.
    pub fn beside(model: &Path) -> Option<[PathBuf; 2]> {
        let files = [TABLE, WORDS].map(|name| model.with_file_name(name));
        files.iter().all(|file| file.is_file()).then_some(files)
    }

    /// A table `[rows, width]` with the words of the file `words`.
    ///
    /// # Errors
    /// [`GenerationError::PromptTable`] where the words are not readable or name rows that are not there.
    pub fn new(table: Array2<f32>, words: &Path) -> Result<PromptTable, GenerationError> {
        let refuse = |reason: String| GenerationError::PromptTable {
            path: words.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(words).map_err(|error| refuse(error.to_string()))?;
        let words: Words = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let ends = words
            .groups
            .iter()
            .map(|group| group.first.saturating_add(group.words.len()));
        match ends.chain([words.empty.saturating_add(1)]).max() {
            Some(end) if end > table.nrows() => Err(refuse(format!(
                "it names row {}, and the table has {}",
                end - 1,
                table.nrows()
            ))),
            _ if words.groups.is_empty() => Err(refuse("it has no groups".to_owned())),
            _ => Ok(PromptTable { table, words }),
        }
    }

    /// The embeddings of a prompt, `[tokens, width]`: one word of each group, in any order and case.
    ///
    /// # Errors
    /// [`GenerationError::Prompt`] for unknown words, two words of one group, or a group without a word.
    pub fn embed(&self, prompt: &str) -> Result<Array2<f32>, GenerationError> {
        let refuse = |reason: String| GenerationError::Prompt {
            prompt: prompt.to_owned(),
            reason,
            allowed: self.allowed(),
        };
        let mut rows: Vec<Option<usize>> = vec![None; self.words.groups.len()];
        for word in prompt
            .split_whitespace()
            .map(|word| word.trim_matches([',', '.']).to_lowercase())
        {
            if word.is_empty() || self.words.ignored.contains(&word) {
                continue;
            }
            let groups = self.words.groups.iter().zip(&mut rows);
            let place = groups.filter_map(|(group, row)| {
                let position = group.words.iter().position(|known| *known == word)?;
                Some((group, row, group.first + position))
            });
            match place.last() {
                None => return Err(refuse(format!("`{word}` is no word that the model knows"))),
                Some((group, Some(_), _)) => return Err(refuse(format!("`{word}` is a second {}", group.name))),
                Some((_, row, found)) => *row = Some(found),
            }
        }
        let missing = self.words.groups.iter().zip(&rows).find(|(_, row)| row.is_none());
        if let Some((group, _)) = missing {
            return Err(refuse(format!("it names no {}", group.name)));
        }
        let rows: Vec<usize> = rows.into_iter().flatten().collect();
        Ok(self.table.select(Axis(0), &rows))
    }

    /// The embeddings of the empty prompt, `[tokens, width]`.
    pub fn empty(&self) -> Array2<f32> {
        self.table
            .select(Axis(0), &vec![self.words.empty; self.words.groups.len()])
    }

    /// Prompt number `index` of an endless list that goes through the words of every group.
    ///
    /// Neighbours differ in every group, so that a few prompts show much of what the model can draw.
    pub fn sample(&self, index: usize) -> String {
        let words = self.words.groups.iter().filter_map(|group| {
            let round = index / group.words.len().max(1);
            group
                .words
                .get((index + round) % group.words.len().max(1))
                .map(String::as_str)
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// The whole table, `[rows, width]`.
    pub fn table(&self) -> ArrayView2<'_, f32> {
        self.table.view()
    }

    /// What a prompt may say, for messages.
    fn allowed(&self) -> String {
        let groups = self
            .words
            .groups
            .iter()
            .map(|group| format!("{}: {}", group.name, group.words.join(", ")));
        format!(
            "a prompt has one word of each of {}",
            groups.collect::<Vec<_>>().join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (tempfile::TempDir, PromptTable) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(WORDS);
        let words = r#"{"groups": [{"name": "shape", "first": 0, "words": ["circle", "square"]},
            {"name": "colour", "first": 2, "words": ["red", "green", "blue"]}], "ignored": ["a"], "empty": 5}"#;
        std::fs::write(&path, words).unwrap();
        let table = Array2::from_shape_fn((6, 2), |(row, _)| row as f32);
        let table = PromptTable::new(table, &path).unwrap();
        (folder, table)
    }

    #[test]
    fn words_name_rows_in_any_order() {
        let (_folder, table) = table();
        for prompt in ["square blue", "a Blue square", "blue, a square."] {
            assert_eq!(table.embed(prompt).unwrap().column(0).to_vec(), [1.0, 4.0], "{prompt}");
        }
        assert_eq!(table.empty().column(0).to_vec(), [5.0, 5.0]);
    }

    #[test]
    fn wrong_prompts_say_what_is_allowed() {
        let (_folder, table) = table();
        for (prompt, reason) in [
            ("square pink", "`pink` is no word"),
            ("square circle", "`circle` is a second shape"),
            ("square", "it names no colour"),
            ("", "it names no shape"),
        ] {
            let message = table.embed(prompt).unwrap_err().to_string();
            assert!(
                message.contains(reason) && message.contains("colour: red, green, blue"),
                "{message}"
            );
        }
    }

    #[test]
    fn sampled_prompts_are_valid_and_differ() {
        let (_folder, table) = table();
        let prompts: std::collections::BTreeSet<_> = (0..6).map(|index| table.sample(index)).collect();
        assert_eq!(prompts.len(), 6, "{prompts:?}");
        assert!(prompts.iter().all(|prompt| table.embed(prompt).is_ok()));
    }

    #[test]
    fn words_without_rows_are_refused() {
        let (folder, _) = table();
        let error = PromptTable::new(Array2::zeros((4, 2)), &folder.path().join(WORDS)).unwrap_err();
        assert!(error.to_string().contains("row 5"), "{error}");
    }
}
