//! The rules files that come with the program.

use super::{Rules, RulesError};

/// Rules that are part of the program; the same text stands in the repository under `rules/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// The name by which they are asked for.
    pub name: &'static str,
    /// The YAML text.
    pub text: &'static str,
}

/// The presets, the default first.
static PRESETS: [Preset; 2] = [
    Preset {
        name: "pab",
        text: include_str!("../../rules/pab.yaml"),
    },
    Preset {
        name: "latte",
        text: include_str!("../../rules/latte.yaml"),
    },
];

/// The name of the preset that is used where no rules are given: the paper's default.
pub const DEFAULT_PRESET: &str = "pab";

/// The presets, the default first.
pub fn presets() -> &'static [Preset] {
    &PRESETS
}

/// The names of all presets, for messages.
pub(super) fn names() -> String {
    PRESETS.map(|preset| preset.name).join(", ")
}

impl Rules {
    /// The rules of a preset.
    ///
    /// # Errors
    /// [`RulesError::UnknownPreset`] if there is none of that name.
    pub fn preset(name: &str) -> Result<Rules, RulesError> {
        let preset = PRESETS.iter().find(|preset| preset.name == name);
        let preset = preset.ok_or_else(|| RulesError::UnknownPreset { name: name.to_owned() })?;
        Rules::parse(&format!("preset {name}"), preset.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        for preset in presets() {
            let rules = Rules::preset(preset.name).unwrap();
            assert!(rules.description.is_some(), "{} says what it is", preset.name);
        }
        assert!(Rules::preset(DEFAULT_PRESET).is_ok());
    }

    #[test]
    fn unknown_presets_name_the_known_ones() {
        let message = Rules::preset("lattte").unwrap_err().to_string();
        assert!(
            message.contains("lattte") && message.contains("pab, latte"),
            "{message}"
        );
    }
}
