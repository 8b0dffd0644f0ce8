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

macro_rules! preset {
    ($name:literal) => {
        Preset {
            name: $name,
            text: include_str!(concat!("../../rules/", $name, ".yaml")),
        }
    };
}

/// The presets, the default first.
static PRESETS: [Preset; 9] = [
    preset!("pab"),
    preset!("latte"),
    preset!("open-sora-1.2"),
    preset!("open-sora-plan-1.1"),
    preset!("open-sora-plan-1.2"),
    preset!("cogvideox"),
    preset!("vchitect"),
    preset!("full"),
    preset!("image"),
];

/// The name of the preset that is used where no rules are given: the paper's default.
pub const DEFAULT_PRESET: &str = "pab";

/// The presets, the default first.
pub fn presets() -> &'static [Preset] {
    &PRESETS
}

/// The names of all presets, for messages.
pub fn preset_names() -> String {
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

    /// Whether these are the rules of a preset, which may have rules for more kinds than a model has.
    pub fn is_preset(&self) -> bool {
        PRESETS.iter().any(|preset| preset.text == self.text)
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
            let file = format!("{}/rules/{}.yaml", env!("CARGO_MANIFEST_DIR"), preset.name);
            assert_eq!(Rules::load(file.as_ref()).unwrap().rules, rules.rules);
        }
        assert!(Rules::preset(DEFAULT_PRESET).is_ok());
    }

    #[test]
    fn presets_know_that_they_are() {
        assert!(Rules::preset("latte").unwrap().is_preset());
        let changed = presets()[0].text.replace("range: 2", "range: 3");
        assert!(!Rules::parse("mine.yaml", &changed).unwrap().is_preset());
    }

    #[test]
    fn every_file_in_the_folder_is_a_preset() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/rules")).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        for name in names.filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned)) {
            assert!(presets().iter().any(|preset| preset.name == name), "{name}");
        }
    }

    #[test]
    fn unknown_presets_name_the_known_ones() {
        let message = Rules::preset("lattte").unwrap_err().to_string();
        assert!(
            message.contains("lattte") && message.contains("pab, latte, open-sora-1.2"),
            "{message}"
        );
    }
}
