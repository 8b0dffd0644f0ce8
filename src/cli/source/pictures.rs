//! From latents to pictures: by the pipeline's decoder, or the sample itself where it is a picture.

use super::Source;
use crate::cli::Failure;
use crate::cli::args::SessionOptions;
use crate::cli::session::runtime_options;
use crate::cli::terminal::Terminal;
use crate::pipeline::Decoder;
use ndarray::{ArrayD, ArrayView4, Axis, Ix4};

impl Source {
    /// Opens the decoder, where there is one.
    pub fn open_decoder(&self, session: &SessionOptions, terminal: &Terminal) -> Result<Option<Decoder>, Failure> {
        let Some(vae) = self.pipeline.as_ref().and_then(|pipeline| pipeline.vae.as_ref()) else {
            return Ok(None);
        };
        terminal.stop().check()?;
        let opened = vae.open(&runtime_options(session));
        opened.map(Some).map_err(|error| Failure::pipeline(&self.model, error))
    }

    /// The pictures of clip `number`, about -1 to 1, of what came out of its loop.
    pub fn decode(&self, decoder: &mut Decoder, sample: ArrayD<f32>, number: usize) -> Result<ArrayD<f32>, Failure> {
        let latent = self.latent.to_decoder(sample);
        let last = self.decoding.as_ref();
        let last = last
            .map(|decoding| decoding.of_clip(number, latent.shape()))
            .transpose()?;
        let decoded = decoder.decode(latent, last.as_ref());
        decoded.map_err(|error| Failure::pipeline(&self.model, error))
    }
}

/// A clip `[channels, frames, height, width]` that can be shown, out of a sample `[1, channels, frames, height, width]`
/// or of an image `[1, channels, height, width]`.
pub fn picture(sample: &ArrayD<f32>) -> Option<ArrayView4<'_, f32>> {
    let view = match sample.ndim() {
        5 => sample.index_axis(Axis(0), 0),
        4 => sample.index_axis(Axis(0), 0).insert_axis(Axis(1)),
        _ => return None,
    };
    let view = view.into_dimensionality::<Ix4>().ok()?;
    matches!(view.shape().first(), Some(1 | 3)).then_some(view)
}
