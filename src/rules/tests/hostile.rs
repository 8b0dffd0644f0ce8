//! Texts that were made to break the reader.

use super::EXAMPLE;
use super::errors::errors;
use crate::rules::{Rules, diagnostic};
use proptest::prelude::*;

#[test]
fn floods_of_errors_are_counted_and_not_shown() {
    let text = format!("version: 1\nrules: [{}]\n", "*a, ".repeat(200));
    let error = errors(&text);
    assert!(
        error.ends_with("200 errors in rules.yaml, of which 150 are not shown"),
        "{error}"
    );
}

#[test]
fn hostile_files_are_refused_quickly() {
    let wide = format!("version: 1\nrules: &r [{}]\n", "{}, ".repeat(50_000));
    assert!(errors(&wide).contains("256 are the most"));
    // Nine lists, each of nine times the one before: 3.8e8 values if written out.
    let mut bomb = "version: 1\nrules:\n  - &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("  - &a{level} [{before}]\n"));
    }
    assert!(errors(&bomb).contains("a rule is keys and values, but here is a list of 9"));
    let keys: String = (0..20_000).map(|key| format!("k{key}: 1\n")).collect();
    assert!(errors(&keys).contains("unknown key"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_rules_or_an_error_with_a_place(text in "[ -~\n\t\u{0}\u{85}\u{feff}äß]{0,200}") {
        check_places(&text)?;
    }

    /// Valid rules with a piece replaced, which reach deeper than random text.
    #[test]
    fn damaged_rules_are_rules_or_an_error_with_a_place(
        at in 0usize..EXAMPLE.len(), length in 0usize..20, piece in "[a-z0-9:{}\\[\\],.&*!|>'\"#\n\t -]{0,12}"
    ) {
        let mut text = EXAMPLE.to_owned();
        text.replace_range(at..(at + length).min(EXAMPLE.len()), &piece);
        check_places(&text)?;
    }

    #[test]
    fn any_bytes_can_be_loaded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        if let Err(error) = Rules::load(file.path()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

/// Every error lies in the text, and says what is wrong and what to do.
fn check_places(text: &str) -> Result<(), TestCaseError> {
    let Err(error) = Rules::parse("rules.yaml", text) else {
        return Ok(());
    };
    prop_assert!(!error.diagnostics().is_empty());
    let lines = diagnostic::lines(text);
    for found in error.diagnostics() {
        prop_assert!((1..=lines.len()).contains(&found.line), "{error}");
        let width = lines[found.line - 1].chars().count();
        prop_assert!(found.column >= 1 && found.length >= 1, "{error}");
        prop_assert!(found.column + found.length <= width + 2, "{error}");
        prop_assert!(!found.message.is_empty() && !found.help.is_empty());
    }
    prop_assert!(error.to_string().starts_with("error: "));
    Ok(())
}
