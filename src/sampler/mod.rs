//! The arithmetic of the denoising loop: noise and schedulers, read from diffusers' configuration.
