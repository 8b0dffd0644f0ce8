//! What each input of a model is: latent, timestep, text.

use super::{Conditioning, GenerationError};
use crate::runtime::{ElementType, Port};
use std::collections::BTreeMap;

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The noisy clip, `[batch, channels, frames, height, width]`, or `[batch, channels, height, width]` of an image;
    /// where the model takes patches, `[batch, tokens, channels]`.
    Latent,
    /// The timestep, `[batch]`; where each token has its own, `[batch, tokens]`.
    Timestep,
    /// Prompt embeddings, `[batch, tokens, width]`.
    Text,
    /// Which tokens of the prompt are more than padding, `[batch, tokens]`.
    TextMask,
    /// One embedding for a whole prompt, `[batch, width]`.
    Pooled,
}

/// Names that exporters commonly give, and the ranks that a role can have. The first row that fits an input counts;
/// a row without names fits by rank alone, so that renamed models work too.
const ROLES: &[(Role, &[usize], &[&str])] = &[
    (Role::Timestep, &[0, 1, 2], &["timestep", "timesteps", "t"]),
    (
        Role::TextMask,
        &[2],
        &["encoder_attention_mask", "prompt_attention_mask", "text_mask"],
    ),
    (Role::Pooled, &[2], &["pooled_projections", "pooled_prompt_embeds"]),
    (
        Role::Text,
        &[3],
        &["encoder_hidden_states", "text_embeds", "prompt_embeds", "context", "y"],
    ),
    (Role::Latent, &[4, 5], &["hidden_states", "sample", "latents", "x"]),
    (Role::Latent, &[3], &["hidden_states"]),
    (Role::Latent, &[5], &[]),
    (Role::Latent, &[4], &[]),
    (Role::Text, &[3], &[]),
    (Role::Timestep, &[0, 1], &[]),
];

impl Role {
    /// What an input is, as far as name, rank and type tell.
    #[must_use]
    pub fn of(port: &Port) -> Option<Role> {
        role_of(port)
    }

    fn word(self) -> &'static str {
        match self {
            Role::Latent => "latent",
            Role::Timestep => "timestep",
            Role::Text => "text",
            Role::TextMask => "text mask",
            Role::Pooled => "pooled text",
        }
    }
}

/// The sizes of an input in a run with `latent` as the shape of the noise of all clips, as far as they follow from that and
/// from what clips are made from.
#[must_use]
pub fn sizes_in_run(port: &Port, latent: &[usize], conditioning: &Conditioning) -> Vec<Option<usize>> {
    if let Some(given) = conditioning.inputs.get(&port.name) {
        return given.shape().iter().copied().map(Some).collect();
    }
    let rows = conditioning.prompt.as_ref().map(|text| text.embeddings.nrows());
    let batch = conditioning.copies() * latent.first().copied().unwrap_or(1);
    match Role::of(port) {
        Some(Role::Latent) => latent
            .iter()
            .enumerate()
            .map(|(axis, size)| Some(if axis == 0 { batch } else { *size }))
            .collect(),
        Some(Role::Text | Role::TextMask) => vec![Some(batch), rows],
        Some(Role::Timestep) => vec![Some(batch), tokens_of(latent)],
        Some(Role::Pooled) => vec![Some(batch)],
        None => Vec::new(),
    }
}

/// The sizes that a clip gives to open dimensions of a model's inputs, by name: `latent` is the shape of the noise, of all
/// clips that are made side by side.
#[must_use]
pub fn sizes_of_run(inputs: &[Port], latent: &[usize], conditioning: &Conditioning) -> BTreeMap<String, i64> {
    let mut sizes = BTreeMap::new();
    for port in inputs {
        let known = sizes_in_run(port, latent, conditioning);
        for (symbol, size) in port.symbols.iter().zip(known) {
            if let (false, Some(Ok(size))) = (symbol.is_empty(), size.map(i64::try_from)) {
                sizes.entry(symbol.clone()).or_insert(size);
            }
        }
    }
    sizes
}

/// The tokens of a latent `[batch, channels, frames, height, width]` whose patches are two values a side in each frame, as of
/// transformers that take a timestep for each token.
pub(super) fn tokens_of(latent: &[usize]) -> Option<usize> {
    match latent {
        [_, _, frames, height, width] => Some(frames * height.div_ceil(2) * width.div_ceil(2)),
        _ => None,
    }
}

/// The inputs of a model by role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// The noisy clip.
    pub latent: Port,
    /// The timestep.
    pub timestep: Port,
    /// Prompt embeddings, where the model takes any.
    pub text: Option<Port>,
    /// Which tokens are more than padding, where the model asks.
    pub mask: Option<Port>,
    /// Embeddings of whole prompts, where the model takes any.
    pub pooled: Option<Port>,
}

impl Roles {
    /// Tells the roles of `inputs` from names and ranks. `given` are inputs without a role: those that the user feeds,
    /// and the flags and caches of a patched model.
    ///
    /// # Errors
    /// [`GenerationError::UnknownInput`] for an input without a role, [`GenerationError::AmbiguousRole`] where there
    /// is not exactly one latent and one timestep, or several texts.
    pub fn of(inputs: &[Port], given: &[&str]) -> Result<Roles, GenerationError> {
        let own = inputs.iter().filter(|port| !given.contains(&port.name.as_str()));
        let mut found: BTreeMap<&str, Vec<&Port>> = BTreeMap::new();
        for port in own {
            let role = role_of(port).ok_or_else(|| GenerationError::UnknownInput {
                input: port.name.clone(),
                description: port.description.clone(),
            })?;
            found.entry(role.word()).or_default().push(port);
        }
        let mut one = |role: Role, needed: bool| {
            let ports = found.remove(role.word()).unwrap_or_default();
            match ports.as_slice() {
                [port] => Ok(Some((*port).clone())),
                [] if !needed => Ok(None),
                _ => Err(GenerationError::AmbiguousRole {
                    role: role.word(),
                    found: ports.len(),
                    candidates: ports
                        .iter()
                        .map(|port| port.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                    advice: if ports.len() > 1 {
                        "; give the others with --input NAME=FILE.npy"
                    } else {
                        ""
                    },
                }),
            }
        };
        let missing = |role: Role| GenerationError::AmbiguousRole {
            role: role.word(),
            found: 0,
            candidates: String::new(),
            advice: "",
        };
        let latent = one(Role::Latent, true)?.ok_or_else(|| missing(Role::Latent))?;
        let timestep = one(Role::Timestep, true)?.ok_or_else(|| missing(Role::Timestep))?;
        // How many tokens there are is told by the frames and sizes of a video alone.
        if matches!(timestep.shape.as_slice(), [_, None]) && latent.shape.len() != 5 {
            return Err(GenerationError::UnknownInput {
                input: timestep.name.clone(),
                description: timestep.description.clone(),
            });
        }
        Ok(Roles {
            latent,
            timestep,
            text: one(Role::Text, false)?,
            mask: one(Role::TextMask, false)?,
            pooled: one(Role::Pooled, false)?,
        })
    }
}

fn role_of(port: &Port) -> Option<Role> {
    let rank = port.shape.len();
    let fits_type = |role: Role| match port.element_type {
        Some(ElementType::Bool) => role == Role::TextMask,
        Some(_) => true,
        None => false,
    };
    let fits = |(_, ranks, names): &&(Role, &[usize], &[&str])| {
        ranks.contains(&rank) && (names.is_empty() || names.contains(&port.name.as_str()))
    };
    let role = ROLES.iter().find(fits).map(|(role, _, _)| *role);
    role.filter(|role| fits_type(*role))
}

/// The sizes of an input: those of the model, else of `sizes` by the dimension's name.
///
/// # Errors
/// [`GenerationError::OpenSize`] for a dimension that neither gives.
pub fn sizes_of(port: &Port, sizes: &BTreeMap<String, usize>) -> Result<Vec<usize>, GenerationError> {
    let dimension = |(axis, size): (usize, &Option<i64>)| {
        let symbol = symbol_of(port, axis);
        let known = size.and_then(|size| usize::try_from(size).ok());
        known
            .or_else(|| sizes.get(&symbol).copied())
            .ok_or_else(|| GenerationError::OpenSize {
                input: port.name.clone(),
                symbol,
            })
    };
    port.shape.iter().enumerate().map(dimension).collect()
}

/// Refuses sizes for dimensions that are open in none of `ports`.
///
/// # Errors
/// [`GenerationError::UnknownSize`].
pub fn known_sizes<'p>(
    ports: impl IntoIterator<Item = &'p Port>,
    sizes: &BTreeMap<String, usize>,
) -> Result<(), GenerationError> {
    let open = |port: &'p Port| {
        let axes = port.shape.iter().enumerate().filter(|(_, size)| size.is_none());
        axes.map(|(axis, _)| symbol_of(port, axis)).collect::<Vec<_>>()
    };
    let open: std::collections::BTreeSet<String> = ports.into_iter().flat_map(open).collect();
    match sizes.keys().find(|name| !open.contains(*name)) {
        None => Ok(()),
        Some(name) => Err(GenerationError::UnknownSize {
            name: name.clone(),
            open: if open.is_empty() {
                "none".to_owned()
            } else {
                open.into_iter().collect::<Vec<_>>().join(", ")
            },
        }),
    }
}

/// How an open dimension is called: by its symbol, else by input and axis.
#[must_use]
pub fn symbol_of(port: &Port, axis: usize) -> String {
    match port.symbols.get(axis) {
        Some(symbol) if !symbol.is_empty() => symbol.clone(),
        _ => format!("{}.{axis}", port.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, element_type: ElementType, shape: &[Option<i64>]) -> Port {
        Port {
            name: name.into(),
            element_type: Some(element_type),
            description: format!("{element_type} of rank {}", shape.len()),
            shape: shape.to_vec(),
            symbols: shape
                .iter()
                .map(|size| {
                    if size.is_none() {
                        "batch".to_owned()
                    } else {
                        String::new()
                    }
                })
                .collect(),
        }
    }

    fn latte(names: [&str; 3]) -> Vec<Port> {
        vec![
            port(
                names[0],
                ElementType::Float32,
                &[None, Some(3), Some(8), Some(32), Some(32)],
            ),
            port(names[1], ElementType::Int64, &[None]),
            port(names[2], ElementType::Float32, &[None, Some(4), Some(64)]),
        ]
    }

    #[test]
    fn roles_are_told_by_name_or_by_rank() {
        for names in [["hidden_states", "timestep", "encoder_hidden_states"], ["q", "w", "e"]] {
            let roles = Roles::of(&latte(names), &[]).unwrap();
            let found = [roles.latent.name, roles.timestep.name, roles.text.unwrap().name];
            assert_eq!(found, names);
        }
    }

    #[test]
    fn masks_and_pooled_text_are_told_by_name() {
        let mut inputs = latte(["hidden_states", "timestep", "encoder_hidden_states"]);
        inputs.push(port("encoder_attention_mask", ElementType::Bool, &[None, Some(4)]));
        inputs.push(port("pooled_projections", ElementType::Float32, &[None, Some(8)]));
        let roles = Roles::of(&inputs, &[]).unwrap();
        assert_eq!(roles.mask.unwrap().name, "encoder_attention_mask");
        assert_eq!(roles.pooled.unwrap().name, "pooled_projections");
        // Patches of a latent stand beside the text by their name alone.
        inputs[0] = port("hidden_states", ElementType::Float32, &[None, None, Some(8)]);
        assert_eq!(Roles::of(&inputs, &[]).unwrap().latent.name, "hidden_states");
    }

    #[test]
    fn given_inputs_have_no_role() {
        let mut inputs = latte(["hidden_states", "timestep", "encoder_hidden_states"]);
        inputs.push(port("mask", ElementType::Bool, &[None, Some(4)]));
        let error = Roles::of(&inputs, &[]).unwrap_err().to_string();
        assert!(error.contains("--input mask=FILE.npy"), "{error}");
        assert!(Roles::of(&inputs, &["mask"]).is_ok());
    }

    #[test]
    fn two_latents_are_ambiguous_and_none_is_too_few() {
        let mut inputs = latte(["hidden_states", "timestep", "encoder_hidden_states"]);
        inputs.push(port(
            "other",
            ElementType::Float32,
            &[None, Some(3), Some(8), Some(32), Some(32)],
        ));
        let error = Roles::of(&inputs, &[]).unwrap_err().to_string();
        assert!(error.contains("hidden_states, other"), "{error}");
        let error = Roles::of(&inputs[1..3], &[]).unwrap_err().to_string();
        assert!(error.contains("0 inputs could be the latent"), "{error}");
    }

    #[test]
    fn open_sizes_come_from_the_user() {
        let latent = &latte(["x", "t", "y"])[0];
        let error = sizes_of(latent, &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("--size batch=N"), "{error}");
        let sizes = BTreeMap::from([("batch".to_owned(), 2)]);
        assert_eq!(sizes_of(latent, &sizes).unwrap(), [2, 3, 8, 32, 32]);
        assert!(known_sizes([latent], &sizes).is_ok());
        let error = known_sizes([latent], &BTreeMap::from([("frames".to_owned(), 2)]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("those are: batch"), "{error}");
    }
}
