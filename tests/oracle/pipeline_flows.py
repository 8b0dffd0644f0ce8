"""Small pipelines on flows in diffusers' layout, and what diffusers' own classes make with them, as `pipeline_diffusers.py` has
them of others.

    python tests/oracle/pipeline_flows.py [FOLDER [NAME ...]]     (made with torch 2.15, diffusers 0.42, transformers 5.24)

A folder each, with seeded random weights:

  ltx   `LTXPipeline`: a latent of one value a token, dynamic shift with a terminal, text with a mask, a VAE whose means and
        deviations stand in its weights (`vae/diffusion_pytorch_model.safetensors`) and not in its configuration.
  ltx_timed  `LTXPipeline` whose VAE is a last step of denoising: its decoder is given a timestep, and noise in its latents. The
             rest of the folder is that of `ltx`.
  wan   `WanPipeline`: UniPC on a flow, zeros in the place of padding, a VAE over frames with means and deviations.
  wan22     `WanPipeline` of two transformers that a boundary of noise parts, as Wan 2.2 has them; plain, with a scale of guidance
            for each, and with Pyramid Attention Broadcast. The rest of the folder is that of `wan`.
  wan_ti2v  `WanPipeline` whose transformer has a timestep for each token (`expand_timesteps`). The rest is that of `wan`.
  flux  `FluxPipeline`: patches of 2 x 2 values with their places as inputs, guidance as an input of the transformer, a pooled
        CLIP beside T5.
"""

import diffusers
import safetensors.torch
import torch
from diffusers.hooks import pyramid_attention_broadcast
from diffusers.hooks.hooks import StateManager
from transformers import CLIPTextConfig, CLIPTextModel, UMT5Config, UMT5EncoderModel

import pipeline_diffusers as shared
from pipeline_diffusers import Decoder, agrees, bpe, exported, image_vae, seeded, t5, traced, unigram
from pipeline_diffusers import write_index, write_t5, write_vae

# What is open in a packed latent.
LTX_SIZE, FLUX_SIZE = dict(frames=5, height=32, width=64), dict(height=8, width=12)
PLAIN = dict(negative_prompt="", guidance=3.0, pab=False)
T5 = ["transformers", "T5EncoderModel"]


class Model(torch.nn.Module):
    """A transformer with positional inputs, and what it is told beside."""

    def __init__(self, model, names, **told):
        super().__init__()
        self.model, self.names, self.told = model, names, told

    def forward(self, *inputs):
        return self.model(**dict(zip(self.names, inputs)), **self.told, return_dict=False)[0]


def write_transformer(model, folder, inputs, component="transformer", shapes=None, **told):
    """By torch's newer exporter, since the older one does not export all of them; sizes are fixed but for `shapes`."""
    path, names = folder / component / "model.onnx", list(inputs)
    exported(Model(model, names, **told), tuple(inputs.values()), path, names, ["sample"], shapes)
    fed = {name: torch.randn_like(value) if value.ndim > 2 else value for name, value in inputs.items()}
    agrees(path, fed, model(**fed, **told, return_dict=False)[0])


class TimedDecoder(Decoder):
    def forward(self, latent_sample, timestep):
        return self.vae.decode(latent_sample, timestep, return_dict=False)[0]


def write_newer_vae(vae, folder, latents):
    """By torch's newer exporter: the older one does not export Wan's decoder, and ONNX Runtime refuses what it makes of LTX'."""
    path = folder / "vae_decoder" / "model.onnx"
    inputs, decoder = dict(latent_sample=latents), Decoder(vae)
    if vae.config.get("timestep_conditioning"):
        inputs, decoder = dict(inputs, timestep=torch.tensor([0.3])), TimedDecoder(vae)
    exported(decoder, tuple(inputs.values()), path, list(inputs), ["sample"], None)
    inputs["latent_sample"] = torch.randn_like(latents)
    agrees(path, inputs, decoder(**inputs))
    vae.save_config(folder / "vae_decoder")


class Ltx:
    shape, call = (1, 4, 2, 2, 4), dict(num_frames=5, height=32, width=64, max_sequence_length=128)
    runs = {
        "plain": dict(PLAIN, prompt="A red ship moving left", size=LTX_SIZE),
        "negative": dict(PLAIN, prompt="Blue square", negative_prompt="white circle over the sea", guidance=4.0,
                         size=LTX_SIZE),
    }

    def packed(self, latents):
        return diffusers.LTXPipeline._pack_latents(latents, 1, 1)

    vae_options, brightness = dict(), 1.0

    def build(self):
        transformer = seeded(lambda: diffusers.LTXVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24, num_layers=2,
            caption_channels=24))
        vae = seeded(lambda: diffusers.AutoencoderKLLTXVideo(
            latent_channels=4, block_out_channels=(8, 8), down_block_types=("LTXVideoDownBlock3D",) * 2,
            decoder_block_out_channels=(8, 8), layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
            spatio_temporal_scaling=(True, True), decoder_spatio_temporal_scaling=(True, True),
            decoder_inject_noise=(False,) * 3, downsample_type=("conv",) * 2, upsample_residual=(False,) * 2,
            upsample_factor=(1, 1), patch_size=4, scaling_factor=0.8, **self.vae_options))
        for parameter in vae.decoder.conv_out.parameters():
            parameter.mul_(self.brightness)
        vae.latents_mean.copy_(torch.linspace(-0.3, 0.4, 4))
        vae.latents_std.copy_(torch.linspace(0.6, 1.4, 4))
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
            shift_terminal=0.1)
        return diffusers.LTXPipeline(scheduler=scheduler, vae=vae, text_encoder=t5(24), tokenizer=unigram(),
                                     transformer=transformer)

    def write(self, pipe, folder):
        write_index(pipe, folder, text_encoder=T5, tokenizer=["transformers", "T5Tokenizer"],
                    transformer=["diffusers", "LTXVideoTransformer3DModel"], vae=["diffusers", "AutoencoderKLLTXVideo"])
        pipe.tokenizer.save_pretrained(folder / "tokenizer")
        write_t5(pipe.text_encoder, folder / "text_encoder")
        self.write_vae(pipe, folder)
        mask = torch.ones(2, 128, dtype=torch.int64)
        mask[0, 3:] = 0
        write_transformer(
            pipe.transformer, folder,
            dict(hidden_states=torch.randn(2, 16, 4), encoder_hidden_states=torch.randn(2, 128, 24),
                 timestep=torch.tensor([500.5, 500.5]), encoder_attention_mask=mask),
            num_frames=2, height=2, width=4, rope_interpolation_scale=(4 / 25, 16, 16))

    def write_vae(self, pipe, folder):
        write_newer_vae(pipe.vae, folder, torch.randn(1, 4, 2, 2, 4))
        # Of the weights that diffusers saves, those that our program reads.
        (folder / "vae").mkdir()
        (folder / "vae_decoder" / "config.json").rename(folder / "vae" / "config.json")
        buffers = dict(latents_mean=pipe.vae.latents_mean, latents_std=pipe.vae.latents_std)
        safetensors.torch.save_file(buffers, folder / "vae" / "diffusion_pytorch_model.safetensors")


class LtxTimed(Ltx):
    runs = {
        "plain": dict(PLAIN, prompt="A red ship moving left", size=LTX_SIZE, decode=dict()),
        "same": dict(PLAIN, prompt="A red ship moving left", size=LTX_SIZE, decode=dict(decode_timestep=0.1)),
        "both": dict(PLAIN, prompt="Blue square", size=LTX_SIZE, decode=dict(decode_timestep=0.05, decode_noise_scale=0.4)),
    }
    vae_options, brightness = dict(timestep_conditioning=True), 0.3

    def write(self, pipe, folder):
        write_index(pipe, folder, text_encoder=T5, tokenizer=["transformers", "T5Tokenizer"],
                    transformer=["diffusers", "LTXVideoTransformer3DModel"], vae=["diffusers", "AutoencoderKLLTXVideo"])
        self.write_vae(pipe, folder)


class Wan:
    shape, call = (1, 4, 2, 4, 8), dict(num_frames=3, height=16, width=32, max_sequence_length=512)
    runs = {
        "plain": dict(PLAIN, prompt="  A red ship,  moving   left "),
        "negative": dict(PLAIN, prompt="Blue square", negative_prompt="white circle over the sea", guidance=5.0),
    }

    def build(self):
        transformer = seeded(lambda: diffusers.WanTransformer3DModel(**WAN))
        vae = seeded(lambda: diffusers.AutoencoderKLWan(
            base_dim=4, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True],
            latents_mean=[-0.3, 0.1, 0.2, 0.5], latents_std=[0.7, 1.2, 0.9, 1.4], scale_factor_temporal=2,
            scale_factor_spatial=4))
        encoder = seeded(lambda: UMT5EncoderModel(UMT5Config(
            vocab_size=80, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")))
        scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
        return diffusers.WanPipeline(tokenizer=unigram(), text_encoder=encoder, transformer=transformer, vae=vae,
                                     scheduler=scheduler)

    def write(self, pipe, folder):
        write_index(pipe, folder, text_encoder=["transformers", "UMT5EncoderModel"],
                    tokenizer=["transformers", "T5TokenizerFast"],
                    transformer=["diffusers", "WanTransformer3DModel"], vae=["diffusers", "AutoencoderKLWan"])
        pipe.tokenizer.save_pretrained(folder / "tokenizer")
        write_t5(pipe.text_encoder, folder / "text_encoder")
        write_newer_vae(pipe.vae, folder, torch.randn(1, 4, 2, 4, 8))
        write_transformer(
            pipe.transformer, folder,
            dict(hidden_states=torch.randn(2, 4, 2, 4, 8), timestep=torch.tensor([500, 500]),
                 encoder_hidden_states=torch.randn(2, 512, 24)))


class EachContext(pyramid_attention_broadcast.PyramidAttentionBroadcastHook):
    """diffusers' hook with a state for each context: Wan runs the transformer for the prompt and for the negative one in turn,
    and the hook as it is would count both as steps and give one what the other computed."""

    def initialize_hook(self, module):
        self.states = StateManager(pyramid_attention_broadcast.PyramidAttentionBroadcastState)
        return module

    def new_forward(self, module, *args, **kwargs):
        self.state = self.states.get_state()
        return super().new_forward(module, *args, **kwargs)

    def reset_state(self, module):
        self.states.reset()
        return module


WAN = dict(patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=24,
           freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=16)


class Wan22(Wan):
    # The scheduler's twelve timesteps are 999 to 200: four of them are above the boundary.
    boundary = 0.875
    runs = {
        "plain": dict(PLAIN, prompt="A red ship, moving left"),
        "two": dict(PLAIN, prompt="Blue square", negative_prompt="white circle over the sea", guidance=4.0, guidance_2=2.5),
        "pab": dict(PLAIN, prompt="A red ship, moving left", pab=True),
        "unguided": dict(PLAIN, prompt="Blue square", guidance=1.0, pab=True),
    }

    def build(self):
        pipe = super().build()
        second = seeded(lambda: diffusers.WanTransformer3DModel(**WAN), 0.13)
        return diffusers.WanPipeline(**pipe.components | dict(transformer_2=second), boundary_ratio=self.boundary)

    def broadcast(self, pipe):
        """Both transformers: each counts its own steps. `tests/end_to_end/pipeline.rs` has the same rules."""
        pyramid_attention_broadcast.PyramidAttentionBroadcastHook = EachContext
        window = (300, 990)
        for transformer in (pipe.transformer, pipe.transformer_2):
            transformer.enable_cache(diffusers.PyramidAttentionBroadcastConfig(
                spatial_attention_block_skip_range=2, cross_attention_block_skip_range=3,
                spatial_attention_timestep_skip_range=window, cross_attention_timestep_skip_range=window,
                current_timestep_callback=lambda: pipe.current_timestep))

    def write(self, pipe, folder):
        model = ["diffusers", "WanTransformer3DModel"]
        write_index(pipe, folder, boundary_ratio=self.boundary, expand_timesteps=False,
                    text_encoder=["transformers", "UMT5EncoderModel"], tokenizer=["transformers", "T5TokenizerFast"],
                    transformer=model, transformer_2=model, vae=["diffusers", "AutoencoderKLWan"])
        inputs = dict(hidden_states=torch.randn(2, 4, 2, 4, 8), timestep=torch.tensor([500, 500]),
                      encoder_hidden_states=torch.randn(2, 512, 24))
        for component in ("transformer", "transformer_2"):
            write_transformer(getattr(pipe, component), folder, inputs, component,
                              shapes=(tuple({0: torch.export.Dim("batch")} for _ in inputs),))


class WanTi2v(Wan):
    runs = {"plain": dict(PLAIN, prompt="A red ship, moving left")}

    def build(self):
        return diffusers.WanPipeline(**super().build().components, expand_timesteps=True)

    def write(self, pipe, folder):
        write_index(pipe, folder, boundary_ratio=None, expand_timesteps=True,
                    text_encoder=["transformers", "UMT5EncoderModel"], tokenizer=["transformers", "T5TokenizerFast"],
                    transformer=["diffusers", "WanTransformer3DModel"], transformer_2=[None, None],
                    vae=["diffusers", "AutoencoderKLWan"])
        write_transformer(
            pipe.transformer, folder,
            dict(hidden_states=torch.randn(2, 4, 2, 4, 8), timestep=torch.full((2, 16), 500.0),
                 encoder_hidden_states=torch.randn(2, 512, 24)))


class Pooled(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids):
        output = self.encoder(input_ids)
        return output.last_hidden_state, output.pooler_output


class Flux:
    shape, call = (1, 4, 4, 6), dict(height=8, width=12)
    runs = {
        "plain": dict(prompt="A red ship, moving left", negative_prompt=None, guidance=3.5, pab=False, size=FLUX_SIZE),
        "weak": dict(prompt="Blue square over the sea", negative_prompt=None, guidance=1.5, pab=False,
                     size=FLUX_SIZE),
    }

    def packed(self, latents):
        return diffusers.FluxPipeline._pack_latents(latents, 1, *self.shape[1:])

    def build(self):
        first, vocabulary, _ = bpe("<|endoftext|>")
        end = vocabulary["<|endoftext|>"]
        config = CLIPTextConfig(vocab_size=120, hidden_size=8, intermediate_size=16, num_hidden_layers=2, bos_token_id=end - 1,
                                num_attention_heads=2, eos_token_id=end, pad_token_id=end)
        transformer = seeded(lambda: diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, num_attention_heads=2, attention_head_dim=12,
            joint_attention_dim=24, pooled_projection_dim=8, guidance_embeds=True, axes_dims_rope=(4, 4, 4)))
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        return diffusers.FluxPipeline(
            scheduler=scheduler, vae=image_vae(scaling_factor=0.4, shift_factor=0.2), text_encoder=seeded(lambda: CLIPTextModel(config)),
            tokenizer=first, text_encoder_2=t5(24), tokenizer_2=unigram(), transformer=transformer)

    def write(self, pipe, folder):
        write_index(
            pipe, folder, transformer=["diffusers", "FluxTransformer2DModel"], vae=["diffusers", "AutoencoderKL"],
            text_encoder=["transformers", "CLIPTextModel"], tokenizer=["transformers", "CLIPTokenizer"], text_encoder_2=T5,
            tokenizer_2=["transformers", "T5TokenizerFast"])
        pipe.tokenizer.save_pretrained(folder / "tokenizer")
        pipe.tokenizer_2.save_pretrained(folder / "tokenizer_2")
        ids = torch.full((1, 77), pipe.text_encoder.config.eos_token_id)
        ids[0, :4] = torch.tensor([pipe.text_encoder.config.bos_token_id, 5, 6, 7])
        path = folder / "text_encoder" / "model.onnx"
        traced(Pooled(pipe.text_encoder), (ids,), path, ["input_ids"], ["last_hidden_state", "pooler_output"], None)
        agrees(path, dict(input_ids=ids), pipe.text_encoder(ids).last_hidden_state)
        write_t5(pipe.text_encoder_2, folder / "text_encoder_2")
        write_vae(pipe.vae, folder, torch.randn(1, 4, 4, 4), shared.IMAGE_AXES)
        places = diffusers.FluxPipeline._prepare_latent_image_ids(1, 2, 3, "cpu", torch.float32)
        inputs = dict(hidden_states=torch.randn(1, 6, 16), encoder_hidden_states=torch.randn(1, 512, 24),
                      pooled_projections=torch.randn(1, 8), timestep=torch.tensor([0.5]), img_ids=places,
                      txt_ids=torch.zeros(512, 3), guidance=torch.tensor([3.5]))
        # By the older exporter, which works out the frequencies of the timestep's embedding as PyTorch does.
        shared.write_transformer(pipe.transformer, folder, tuple(inputs.values()), list(inputs))


if __name__ == "__main__":
    shared.KINDS = dict(ltx=Ltx, ltx_timed=LtxTimed, wan=Wan, wan22=Wan22, wan_ti2v=WanTi2v, flux=Flux)
    shared.main()
