//! What clips are made from besides noise: texts by a pipeline's encoders, by a table or from files, and what else the
//! transformer is told.

use super::pipeline::Pipeline;
use super::{Asked, Source};
use crate::cli::Failure;
use crate::cli::session::{conditioning, prompts, runtime_options};
use crate::cli::terminal::Terminal;
use crate::generation::{Conditioning, Text};
use crate::pipeline::{Telling, encode, pair};

impl Source {
    /// What each prompt's clips are made from. A pipeline's text encoders are opened and closed here.
    pub fn conditionings(
        &self,
        asked: &Asked<'_>,
        prompts_given: &[Option<String>],
        terminal: &Terminal,
    ) -> Result<Vec<Conditioning>, Failure> {
        let negative = asked.source.negative_prompt.as_deref();
        if negative.is_some() && !self.is_guided() {
            terminal.warning(match self.embedded {
                None => "--negative-prompt does nothing with --guidance 1, which runs the model for the prompt alone",
                Some(_) => "--negative-prompt does nothing: this transformer has guidance as an input, and runs for the prompt \
                            alone",
            });
        }
        let by_encoders = self
            .pipeline
            .as_ref()
            .filter(|_| asked.sampling.prompt_embeds.is_none());
        let mut made = match (by_encoders, &self.text) {
            (Some(pipeline), Some(text)) => self.encoded(pipeline, text, asked, prompts_given, terminal)?,
            (Some(_), None) => {
                if prompts_given.iter().any(Option::is_some) || negative.is_some() {
                    return Err(Failure::Usage(format!(
                        "--prompt: {} has no text input that is not given with --input",
                        self.model.display()
                    )));
                }
                vec![Conditioning::default(); prompts_given.len()]
            }
            (None, _) => {
                let beside = prompts(&self.model, asked.sampling)?;
                let one = |prompt: &Option<String>| {
                    conditioning(&self.model, &beside, prompt.as_deref(), negative, asked.sampling)
                };
                prompts_given.iter().map(one).collect::<Result<_, _>>()?
            }
        };
        for conditioning in &mut made {
            conditioning.guidance = self.guidance;
            let told = self.pipeline.iter().flat_map(|pipeline| {
                let telling = Telling {
                    latent: &self.latent,
                    text: conditioning
                        .prompt
                        .as_ref()
                        .map_or(0, |prompt| prompt.embeddings.nrows()),
                    guidance: self.asked_guidance(),
                    clips: asked.batch,
                };
                telling.inputs(pipeline.family, &self.ports)
            });
            conditioning.inputs = told.collect();
            // What the user gives counts.
            conditioning.inputs.extend(self.inputs.clone());
        }
        Ok(made)
    }

    fn encoded(
        &self,
        pipeline: &Pipeline,
        text: &str,
        asked: &Asked<'_>,
        prompts_given: &[Option<String>],
        terminal: &Terminal,
    ) -> Result<Vec<Conditioning>, Failure> {
        let missing = || {
            Failure::Usage(format!(
                "the pipeline makes clips of a text (input `{text}` of {}); give --prompt or --prompt-embeds FILE.npy",
                self.model.display()
            ))
        };
        let mut all: Vec<&str> = prompts_given
            .iter()
            .map(|prompt| prompt.as_deref().ok_or_else(missing))
            .collect::<Result<_, _>>()?;
        let guided = self.is_guided();
        if guided {
            all.push(asked.source.negative_prompt.as_deref().unwrap_or_default());
        }
        let encoded = encode(
            &pipeline.folder,
            pipeline.family,
            &all,
            self.lengths,
            &runtime_options(asked.session),
        );
        let encoded = encoded.map_err(|error| Failure::pipeline(pipeline.folder.root(), error))?;
        for (prompt, encoded) in all.iter().zip(&encoded) {
            if let Some((encoder, whole, fit)) = encoded.cut {
                let begin: String = prompt.chars().take(40).collect();
                terminal.warning(format!(
                    "prompt `{begin}…` has {whole} tokens, and {encoder} takes {fit}: the rest is cut off"
                ));
            }
        }
        let texts: Vec<Text> = encoded.into_iter().map(|encoded| encoded.text).collect();
        let (prompts, negative) = match (guided, texts.split_last()) {
            (true, Some((negative, prompts))) => (prompts, Some(negative)),
            _ => (texts.as_slice(), None),
        };
        let one = |prompt: &Text| {
            let (prompt, negative) = match negative {
                Some(negative) => {
                    let (prompt, negative) = pair(pipeline.family, self.lengths, prompt, negative);
                    (prompt, Some(negative))
                }
                None => (pair(pipeline.family, self.lengths, prompt, prompt).0, None),
            };
            Conditioning {
                prompt: Some(prompt),
                empty: negative,
                ..Conditioning::default()
            }
        };
        Ok(prompts.iter().map(one).collect())
    }
}
