//! The memory that the caches of a patched model take.

use super::switch::differences;
use super::{Choice, SwitchOptions, Wide};
use crate::axes::Size;
use crate::onnx::tensor::element_bits;
use crate::rules::{Rule, Rules};

/// Bytes of caches; sizes that depend on the model's inputs stay in it by name, such as `4096*batch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMemory {
    /// Of all caches together.
    pub total: Size,
    /// By rule, in the order of the rules; those without a site are left out.
    pub rules: Vec<RuleMemory>,
}

/// Bytes of the caches of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleMemory {
    /// The rule's name.
    pub name: String,
    /// The number of its sites, spans of blocks and halves.
    pub sites: usize,
    /// Bytes of their caches.
    pub bytes: Size,
}

impl CacheMemory {
    /// The memory of the caches that [`super::switch_wide`] makes for these choices.
    pub fn of(choices: &[Choice<'_>], wide: &Wide, rules: &Rules, options: &SwitchOptions) -> CacheMemory {
        let of_rule = rules.rules.iter().enumerate().filter_map(|(index, rule)| {
            let sites = choices.iter().filter(|choice| choice.rule == index);
            let mut bytes: Vec<Size> = sites.map(|choice| choice.cache_bytes(rules, options)).collect();
            if wide.has(index) {
                bytes.push(wide.cache_bytes(index, options));
            }
            (!bytes.is_empty()).then(|| RuleMemory {
                name: rule.name.clone(),
                sites: bytes.len(),
                bytes: &sum(&bytes) + &wide.indicator_bytes(index, rules, choices),
            })
        });
        let rules: Vec<RuleMemory> = of_rule.collect();
        CacheMemory {
            total: sum(rules.iter().map(|rule| &rule.bytes)),
            rules,
        }
    }
}

impl Choice<'_> {
    /// Bytes of the caches that the site gets by its rule.
    pub fn cache_bytes(&self, rules: &Rules, options: &SwitchOptions) -> Size {
        let strategy = rules.rules.get(self.rule).and_then(Rule::strategy);
        let each = 1 + i64::try_from(differences(strategy.unwrap_or_default())).unwrap_or(0);
        let caches: Vec<Size> = self
            .cuts
            .iter()
            .map(|cut| {
                let bits = element_bits(options.element_type(cut.element_type)).unwrap_or(0);
                &Size::product(&cut.shape) * &Size::number(each * i64::from(bits / 8))
            })
            .collect();
        sum(&caches)
    }
}

fn sum<'s>(sizes: impl IntoIterator<Item = &'s Size>) -> Size {
    sizes.into_iter().fold(Size::number(0), |sum, size| &sum + size)
}
