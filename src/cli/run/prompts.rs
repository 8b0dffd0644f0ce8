//! Prompts from a file.

use crate::cli::Failure;
use std::path::Path;

/// The prompts of a file: its lines that are not empty.
pub fn prompts_of(path: &Path) -> Result<Vec<Option<String>>, Failure> {
    let refuse = |reason: String| Failure::Usage(format!("--prompts {}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let prompts: Vec<Option<String>> = lines.map(|line| Some(line.to_owned())).collect();
    match prompts.is_empty() {
        true => Err(refuse("it has no prompts; write one in each line".to_owned())),
        false => Ok(prompts),
    }
}
