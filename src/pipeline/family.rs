//! What diffusers' pipeline classes do with prompts and latents, as a table.

/// How a prompt becomes an embedding by one encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoder {
    /// The encoder's folder.
    pub model: &'static str,
    /// Its tokenizer's folder.
    pub tokenizer: &'static str,
    /// How many tokens a prompt is cut or padded to.
    pub tokens: usize,
    /// Whether the encoder is told what is padding; else everything counts.
    pub masked: bool,
    /// What is taken of its outputs.
    pub take: Take,
}

/// Which output of an encoder is a prompt's embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The last layer's.
    Last,
    /// That of the layer before the last, and the pooled one (CLIP).
    PenultimateAndPooled,
}

/// How prompts are written before they become tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As they are.
    AsGiven,
    /// In small letters, without space around them.
    Lowercase,
    /// With one space between words.
    SingleSpaces,
}

impl Spelling {
    /// The prompt in this spelling.
    #[must_use]
    pub fn of(self, prompt: &str) -> String {
        match self {
            Spelling::AsGiven => prompt.to_owned(),
            Spelling::Lowercase => prompt.to_lowercase().trim().to_owned(),
            Spelling::SingleSpaces => prompt.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }
}

/// What becomes of the embeddings of padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// They stay, and the transformer is told by a mask where it has such an input.
    Kept,
    /// The embeddings end where the prompt ends, also those of the negative prompt.
    Cut,
    /// They are zeros.
    Zeros,
}

/// In which order a latent has its axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[batch, channels, frames, height, width]`, or without frames.
    ChannelsFirst,
    /// `[batch, frames, channels, height, width]`.
    FramesFirst,
    /// `[batch, frames · height · width, channels]`, row by row of each frame.
    Packed,
}

/// What a class of pipelines does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// The name in `model_index.json`.
    pub class: &'static str,
    /// Its encoders; several are joined as Stable Diffusion 3 does: CLIPs side by side, then the others behind.
    pub encoders: &'static [Encoder],
    /// How prompts are written before they become tokens.
    pub spelling: Spelling,
    /// What becomes of padding.
    pub padding: Padding,
    /// The order of the latent's axes.
    pub layout: Layout,
    /// The scale of guidance where nobody says.
    pub guidance: f32,
}

const fn t5(tokens: usize, masked: bool) -> Encoder {
    Encoder {
        model: "text_encoder",
        tokenizer: "tokenizer",
        tokens,
        masked,
        take: Take::Last,
    }
}

const fn clip(model: &'static str, tokenizer: &'static str) -> Encoder {
    Encoder {
        model,
        tokenizer,
        tokens: 77,
        masked: false,
        take: Take::PenultimateAndPooled,
    }
}

/// From diffusers 0.42.
const FAMILIES: &[Family] = &[
    Family {
        class: "LattePipeline",
        encoders: &[t5(120, true)],
        spelling: Spelling::Lowercase,
        padding: Padding::Cut,
        layout: Layout::ChannelsFirst,
        guidance: 7.5,
    },
    Family {
        class: "PixArtAlphaPipeline",
        encoders: &[t5(120, true)],
        spelling: Spelling::Lowercase,
        padding: Padding::Kept,
        layout: Layout::ChannelsFirst,
        guidance: 4.5,
    },
    Family {
        class: "PixArtSigmaPipeline",
        encoders: &[t5(300, true)],
        spelling: Spelling::Lowercase,
        padding: Padding::Kept,
        layout: Layout::ChannelsFirst,
        guidance: 4.5,
    },
    Family {
        class: "CogVideoXPipeline",
        encoders: &[t5(226, false)],
        spelling: Spelling::AsGiven,
        padding: Padding::Kept,
        layout: Layout::FramesFirst,
        guidance: 6.0,
    },
    Family {
        class: "LTXPipeline",
        encoders: &[t5(128, false)],
        spelling: Spelling::AsGiven,
        padding: Padding::Kept,
        layout: Layout::Packed,
        guidance: 3.0,
    },
    Family {
        class: "WanPipeline",
        encoders: &[t5(512, true)],
        spelling: Spelling::SingleSpaces,
        padding: Padding::Zeros,
        layout: Layout::ChannelsFirst,
        guidance: 5.0,
    },
    Family {
        class: "StableDiffusion3Pipeline",
        encoders: &[
            clip("text_encoder", "tokenizer"),
            clip("text_encoder_2", "tokenizer_2"),
            Encoder {
                model: "text_encoder_3",
                tokenizer: "tokenizer_3",
                ..t5(256, false)
            },
        ],
        spelling: Spelling::AsGiven,
        padding: Padding::Kept,
        layout: Layout::ChannelsFirst,
        guidance: 7.0,
    },
];

impl Family {
    /// The family of a class; exporters write it with a prefix of their own (`ORTStableDiffusion3Pipeline`).
    pub fn of(class: &str) -> Option<&'static Family> {
        let plain = ["ORT", "Onnx"].iter().find_map(|prefix| class.strip_prefix(prefix));
        let plain = plain.unwrap_or(class);
        FAMILIES.iter().find(|family| family.class == plain)
    }

    /// The known classes, for messages.
    pub fn known() -> String {
        let names: Vec<&str> = FAMILIES.iter().map(|family| family.class).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_spelt_as_the_class_was_trained() {
        let spelt = |class: &str| Family::of(class).unwrap().spelling.of(" A  Ship\n");
        assert_eq!(spelt("LattePipeline"), "a  ship");
        assert_eq!(spelt("WanPipeline"), "A Ship");
        assert_eq!(spelt("CogVideoXPipeline"), " A  Ship\n");
    }

    #[test]
    fn classes_are_found_with_and_without_a_prefix() {
        assert_eq!(Family::of("LattePipeline").unwrap().guidance, 7.5);
        let family = Family::of("ORTStableDiffusion3Pipeline").unwrap();
        assert_eq!(family.encoders.len(), 3);
        assert!(Family::of("FluxPipeline").is_none());
        assert!(Family::known().contains("WanPipeline, StableDiffusion3Pipeline"));
    }
}
