//! The presets decide as VideoSys does, at every step, for every kind and block.
//!
//! `tests/data/videosys/decide.py` has written the rule of VideoSys anew and applied it to its published configurations
//! with the timesteps of the schedulers that they are for.

use crate::attention::Kind;
use crate::rules::{NamedSite, Rules, SiteFacts};
use crate::schedule::Schedule;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Decisions {
    /// The preset.
    name: String,
    scheduler: String,
    timesteps: Vec<f64>,
    /// By what VideoSys calls the attention: 1 where it computes, 0 where it is reused, in all blocks alike.
    attention: BTreeMap<String, String>,
    /// By the block that the feed-forward stands in, spatial or temporal: the same for each block.
    mlp: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Configuration {
    name: String,
    depth: usize,
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/data/videosys/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What we call the attention that VideoSys calls spatial, temporal or cross.
fn kind(preset: &str, word: &str) -> Kind {
    match (preset, word) {
        ("cogvideox" | "vchitect", "spatial") => Kind::Joint,
        ("open-sora-plan-1.2", "spatial") => Kind::Full,
        _ => word.parse().unwrap(),
    }
}

#[test]
fn presets_decide_as_videosys() {
    let depths: BTreeMap<String, usize> = read::<Configuration>("configurations.json")
        .into_iter()
        .map(|configuration| (configuration.name, configuration.depth))
        .collect();
    let all = read::<Decisions>("decisions.json");
    let mut presets: Vec<&str> = all.iter().map(|decisions| decisions.name.as_str()).collect();
    presets.dedup();
    assert_eq!(
        presets,
        [
            "open-sora-1.2",
            "open-sora-plan-1.1",
            "open-sora-plan-1.2",
            "latte",
            "cogvideox",
            "vchitect"
        ]
    );
    for decisions in &all {
        let depth = depths[&decisions.name];
        let mut expected: Vec<(Kind, usize, String)> = Vec::new();
        for (word, pattern) in &decisions.attention {
            let blocks = (0..depth).map(|block| (kind(&decisions.name, word), block, pattern.clone()));
            expected.extend(blocks);
        }
        // Models without tables compute all feed-forwards.
        let computed = vec!["1".repeat(decisions.timesteps.len()); depth];
        for block in 0..depth {
            for (place, word) in ["spatial", "temporal"].into_iter().enumerate() {
                // Spatial and temporal blocks alternate.
                let patterns = decisions.mlp.get(word).unwrap_or(&computed);
                expected.push((Kind::Mlp, 2 * block + place, patterns[block].clone()));
            }
        }
        let sites: Vec<NamedSite<'_>> = expected
            .iter()
            .map(|(kind, block, _)| NamedSite {
                name: "a site",
                facts: SiteFacts::new(*kind, *block, if *kind == Kind::Mlp { 2 * depth } else { depth }),
            })
            .collect();
        let rules = Rules::preset(&decisions.name).unwrap();
        let assigned = rules.assign(&sites, &[]).unwrap();
        for ((kind, block, pattern), rule) in expected.iter().zip(assigned) {
            let timing = rule.map(|rule| rules.rules[rule].action.clone().unwrap().timing);
            let schedule = Schedule::new(timing.as_slice(), &decisions.timesteps);
            let decided = match rule {
                Some(_) => schedule.pattern(0),
                None => "1".repeat(decisions.timesteps.len()),
            };
            assert_eq!(
                decided, *pattern,
                "{} with {}: {kind}.{block}",
                decisions.name, decisions.scheduler
            );
        }
    }
}
