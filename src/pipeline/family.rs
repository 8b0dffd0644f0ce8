//! What diffusers' pipeline classes do with prompts and latents, as a table.

use super::Told;

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
    /// The pooled one alone (CLIP).
    Pooled,
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
    /// Of an image `[batch, height / 2 · width / 2, channels · 4]`: patches of 2 x 2 values, row by row.
    Patches,
}

/// What becomes of the scale of guidance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Guidance {
    /// Classifier-free: the transformer runs for the prompt and for the negative one. The scale where nobody says.
    ClassifierFree(f32),
    /// The transformer was trained with the scale as an input, and runs for the prompt alone. The scale where nobody says.
    Embedded(f32),
}

impl Guidance {
    /// The scale where nobody says.
    #[must_use]
    pub fn usual(self) -> f32 {
        match self {
            Guidance::ClassifierFree(scale) | Guidance::Embedded(scale) => scale,
        }
    }
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
    /// What becomes of the scale of guidance.
    pub guidance: Guidance,
    /// Inputs of the transformer that follow from sizes, texts and options.
    pub told: &'static [(&'static str, Told)],
    /// What the transformer's timestep is a part of: it is given the scheduler's, divided by this.
    pub timestep_unit: f64,
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

/// What most classes have in common.
const COMMON: Family = Family {
    class: "",
    encoders: &[],
    spelling: Spelling::AsGiven,
    padding: Padding::Kept,
    layout: Layout::ChannelsFirst,
    guidance: Guidance::ClassifierFree(1.0),
    told: &[],
    timestep_unit: 1.0,
};

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
        guidance: Guidance::ClassifierFree(7.5),
        ..COMMON
    },
    Family {
        class: "PixArtAlphaPipeline",
        encoders: &[t5(120, true)],
        spelling: Spelling::Lowercase,
        guidance: Guidance::ClassifierFree(4.5),
        ..COMMON
    },
    Family {
        class: "PixArtSigmaPipeline",
        encoders: &[t5(300, true)],
        spelling: Spelling::Lowercase,
        guidance: Guidance::ClassifierFree(4.5),
        ..COMMON
    },
    Family {
        class: "CogVideoXPipeline",
        encoders: &[t5(226, false)],
        layout: Layout::FramesFirst,
        guidance: Guidance::ClassifierFree(6.0),
        ..COMMON
    },
    Family {
        class: "LTXPipeline",
        encoders: &[t5(128, false)],
        layout: Layout::Packed,
        guidance: Guidance::ClassifierFree(3.0),
        told: &[
            ("num_frames", Told::Frames),
            ("height", Told::Height),
            ("width", Told::Width),
        ],
        ..COMMON
    },
    Family {
        class: "WanPipeline",
        encoders: &[t5(512, true)],
        spelling: Spelling::SingleSpaces,
        padding: Padding::Zeros,
        guidance: Guidance::ClassifierFree(5.0),
        ..COMMON
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
        guidance: Guidance::ClassifierFree(7.0),
        ..COMMON
    },
    Family {
        class: "FluxPipeline",
        encoders: &[
            Encoder {
                take: Take::Pooled,
                ..clip("text_encoder", "tokenizer")
            },
            Encoder {
                model: "text_encoder_2",
                tokenizer: "tokenizer_2",
                ..t5(512, false)
            },
        ],
        layout: Layout::Patches,
        guidance: Guidance::Embedded(3.5),
        told: &[
            ("img_ids", Told::Places),
            ("txt_ids", Told::TextPlaces),
            ("guidance", Told::Guidance),
        ],
        timestep_unit: 1000.0,
        ..COMMON
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
        assert_eq!(Family::of("LattePipeline").unwrap().guidance.usual(), 7.5);
        let family = Family::of("ORTStableDiffusion3Pipeline").unwrap();
        assert_eq!(family.encoders.len(), 3);
        assert!(Family::of("MochiPipeline").is_none());
        assert!(Family::known().contains("WanPipeline, StableDiffusion3Pipeline"));
    }
}
