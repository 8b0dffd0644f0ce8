//! A pipeline as users have it: a folder in the layout of diffusers and Optimum, with `model_index.json` and one folder a
//! component.
//!
//! [`Folder`] reads which components there are, and [`Family`] is what diffusers' class of the pipeline does with them. The
//! parts are used one after another, so that only one model is open at a time: [`encode`] turns prompts into
//! [`Text`](crate::generation::Text)s and closes the text encoders, the transformer makes latents in the shape that
//! [`LatentShape`] gives, and a [`Vae`] makes pictures of them.

mod boundary;
mod config;
mod declared;
mod error;
mod family;
mod folder;
mod latent;
mod spiece;
mod text;
mod tokenizer;
mod told;
mod vae;
mod vae_weights;

pub use boundary::{Boundary, OneOfTwo, TRANSFORMERS};
pub use config::Config;
pub use declared::declared_inputs;
pub use error::PipelineError;
pub use family::{Encoder, Family, Guidance, Layout, Padding, Spelling, Take};
pub use folder::Folder;
pub use latent::{Factors, LatentShape, PixelSize};
pub use text::{Encoded, Lengths, encode, pair};
pub use tokenizer::{PromptTokenizer, Tokens};
pub use told::{Telling, Told};
pub use vae::{Decoder, LastStep, Vae};
