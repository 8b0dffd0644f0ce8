"""Small pipelines in diffusers' layout, and what diffusers' own classes make with them: what `tests/end_to_end/pipeline.rs`
compares with.

    python tests/oracle/pipeline_diffusers.py [FOLDER [NAME ...]]
                                              (made with torch 2.15, diffusers 0.42, transformers 5.24, onnx 1.23)

Text encoders (T5, CLIP), tokenizers and VAEs are tiny, with seeded random weights. A folder each:

  latte      `LattePipeline`, also with diffusers' Pyramid Attention Broadcast. The transformer is the one of
             `tests/data/corpus` (`latte.ts17.dynamic.onnx`), which a test puts in its place; that both have the same weights is
             checked.
  cogvideox  `CogVideoXPipeline`: frames before channels, a VAE over frames. The transformer is the corpus' `cogvideox`.
  pixart     `PixArtSigmaPipeline`: an image, text with a mask. Text encoder, tokenizer and VAE are those of `latte`.
  sd3        `StableDiffusion3Pipeline`: two CLIPs, of which the tokenizers are vocab.json and merges.txt, and T5.

`pipeline_flows.py` makes those of pipelines on flows (LTX-Video, Wan, Flux).

Each folder gets the pipeline and `oracle.npz`: `latents` (what every run starts from), and for each run of `oracle.json` its
`RUN.sample` (latents at the end) and `RUN.frames` (`[channels, frames, height, width]`, in [0, 1]).
"""
import json
import shutil
import sys
from pathlib import Path

import diffusers
import numpy as np
import onnx
import onnxruntime
import torch
from diffusers import DDIMScheduler, PyramidAttentionBroadcastConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedTokenizerFast, T5Config
from transformers import T5EncoderModel

CORPUS = Path(__file__).parent.parent / "data" / "corpus"
arguments, sys.argv[1:] = sys.argv[1:], []
DATA = Path(arguments[0]) if arguments else Path(__file__).parent.parent / "data" / "pipeline"
sys.path.insert(0, str(CORPUS))
import export_latte  # noqa: E402
import export_models  # noqa: E402

SCHEDULER = dict(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False,
                 set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction")
WORDS = "a an the red green blue circle square ship moving left right on black white over sea , .".split()
LETTERS, MARKS = "abcdefghijklmnopqrstuvwxyz", "!.,0123456789'"
STEPS = 12


def unigram():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(piece, -2.0 - index / 10) for index, word in enumerate(WORDS) for piece in (f"▁{word}", word) if len(word) > 1]
    pieces += [("▁", -4.0), (",", -4.0), (".", -4.0)] + [(letter, -8.0) for letter in LETTERS]
    made = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
                                   model_max_length=512)


def bpe(pad):
    """CLIP's: letters, letters at the end of a word, and a few merges."""
    merges = ["r e", "re d</w>", "s h", "i p</w>", "sh ip</w>", "b l", "u e</w>", "bl ue</w>"]
    pieces = [*LETTERS, *MARKS, *[f"{letter}</w>" for letter in [*LETTERS, *MARKS]]]
    pieces += [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    pairs = [tuple(merge.split()) for merge in merges]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, pad_token=pad, model_max_length=77), vocabulary, merges


def seeded(build, amount=0.1):
    """Noise in every parameter, so that none is zero."""
    torch.manual_seed(0)
    model = build().eval().requires_grad_(False)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * amount)
    return model


def t5(width):
    return seeded(lambda: T5EncoderModel(T5Config(vocab_size=80, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                                                  feed_forward_proj="gated-gelu")))


def clip(width, projected, end):
    config = CLIPTextConfig(vocab_size=120, hidden_size=width, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
                            projection_dim=projected, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end)
    return seeded(lambda: CLIPTextModelWithProjection(config))


def image_vae(**options):
    return seeded(lambda: diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=8, **options))


class Encoder(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        return self.encoder(input_ids, attention_mask=attention_mask)[0]


class Clip(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids):
        output = self.encoder(input_ids, output_hidden_states=True)
        return output.text_embeds, output.last_hidden_state, *output.hidden_states


class Decoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        return self.vae.decode(latent_sample, return_dict=False)[0]


def bare(proto):
    for holder in [*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, proto.graph, proto]:
        del holder.metadata_props[:]
    return proto


def traced(model, inputs, path, names, outputs, axes):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(model, inputs, path, input_names=names, output_names=outputs, dynamo=False, opset_version=17,
                      dynamic_axes=axes)


def exported(model, inputs, path, names, outputs, shapes):
    """By torch's newer exporter: the older one fixes what the length of the text decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(model, inputs, input_names=names, output_names=outputs, dynamo=True, opset_version=18,
                                verbose=False, dynamic_shapes=shapes)
    onnx.save(bare(program.model_proto), path)


def agrees(path, feeds, expected):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.numpy() for name, value in feeds.items()})[0]
    difference = np.abs(found - expected.numpy()).max() / np.abs(expected.numpy()).max()
    print(f"{path.parent.name}/{path.name}: {path.stat().st_size} bytes, {difference:.1e} from PyTorch")
    assert difference < 1e-5


def write_t5(encoder, folder):
    path = folder / "model.onnx"
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=512)
    ids = torch.tensor([[5, 6, 7, 1, 0, 0]])
    exported(Encoder(encoder), (ids, (ids != 0).long()), path, ["input_ids", "attention_mask"], ["last_hidden_state"],
             ({0: batch, 1: sequence},) * 2)
    longer = torch.arange(3, 14)[None]
    agrees(path, dict(input_ids=longer, attention_mask=torch.ones_like(longer)), encoder(longer)[0])


def write_clip(encoder, folder):
    path = folder / "model.onnx"
    ids = torch.full((1, 77), encoder.config.eos_token_id)
    ids[0, :4] = torch.tensor([encoder.config.bos_token_id, 5, 6, 7])
    outputs = ["text_embeds", "last_hidden_state", *[f"hidden_states.{layer}" for layer in range(4)]]
    traced(Clip(encoder), (ids,), path, ["input_ids"], outputs, None)
    ids[0, 1:3] = torch.tensor([9, 30])
    agrees(path, dict(input_ids=ids), encoder(ids).text_embeds)


def write_vae(vae, folder, latents, axes):
    path = folder / "vae_decoder" / "model.onnx"
    traced(Decoder(vae), (latents,), path, ["latent_sample"], ["sample"], axes and {"latent_sample": axes, "sample": axes})
    latents = torch.randn_like(latents)
    agrees(path, dict(latent_sample=latents), vae.decode(latents).sample)
    vae.save_config(folder / "vae_decoder")


def write_transformer(model, folder, inputs, names):
    """With fixed sizes, as most exports have them: a batch of two, and the length of the text."""
    path = folder / "transformer" / "model.onnx"
    traced(export_models.Plain(model, names), inputs, path, names, ["sample"], None)
    fed = {name: torch.randn_like(value) if value.is_floating_point() else value for name, value in zip(names, inputs)}
    agrees(path, fed, model(**fed, return_dict=False)[0])


def write_index(pipe, folder, **components):
    index = dict(_class_name=type(pipe).__name__, _diffusers_version="0.42.1",
                 scheduler=["diffusers", type(pipe.scheduler).__name__], **components)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    pipe.scheduler.save_pretrained(folder / "scheduler")


T5 = dict(text_encoder=["transformers", "T5EncoderModel"], tokenizer=["transformers", "T5Tokenizer"])
IMAGE_AXES = {0: "batch", 2: "height", 3: "width"}


def pyramid(pipe):
    """As `rules/latte.yaml` has it; spatial blocks are told from temporal ones."""
    window = (100, 800)
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, temporal_attention_block_skip_range=3, cross_attention_block_skip_range=6,
        spatial_attention_timestep_skip_range=window, temporal_attention_timestep_skip_range=window,
        cross_attention_timestep_skip_range=window,
        spatial_attention_block_identifiers=(r"(?<!temporal_)transformer_blocks",),
        current_timestep_callback=lambda: pipe._current_timestep)


class Latte:
    shape, call = (1, 4, 3, 4, 4), dict(video_length=3, height=8, width=8, clean_caption=False)
    runs = {
        "plain": dict(prompt="A red circle, moving right on black. ", negative_prompt="", guidance=3.0, pab=False),
        "pab": dict(prompt="A red circle, moving right on black. ", negative_prompt="", guidance=3.0, pab=True),
        "negative": dict(prompt="Blue square", negative_prompt="the white ship over the sea moving left", guidance=4.5,
                         pab=True),
        "unguided": dict(prompt="Blue square", negative_prompt="", guidance=1.0, pab=True),
        # Far more than the 120 tokens that the pipeline takes.
        "long": dict(prompt="green ship " * 150, negative_prompt="", guidance=3.0, pab=False),
    }

    def broadcast(self, pipe):
        pipe.transformer.enable_cache(pyramid(pipe))

    def build(self):
        return diffusers.LattePipeline(
            tokenizer=unigram(), text_encoder=t5(24), vae=image_vae(scaling_factor=0.4), scheduler=DDIMScheduler(**SCHEDULER),
            transformer=export_latte.build(export_latte.SIZES["latte"]))

    def write(self, pipe, folder):
        write_index(pipe, folder, **T5, transformer=["diffusers", "LatteTransformer3DModel"],
                    vae=["diffusers", "AutoencoderKL"])
        pipe.tokenizer.save_pretrained(folder / "tokenizer")
        write_t5(pipe.text_encoder, folder / "text_encoder")
        write_vae(pipe.vae, folder, torch.randn(1, 4, 4, 4), IMAGE_AXES)
        latents, timestep, text = torch.randn(2, 4, 3, 4, 4), torch.tensor([500, 500]), torch.randn(2, 7, 24)
        agrees(CORPUS / "latte.ts17.dynamic.onnx",
               dict(hidden_states=latents, timestep=timestep, encoder_hidden_states=text),
               pipe.transformer(latents, timestep=timestep, encoder_hidden_states=text).sample)


class CogVideoX:
    # The transformer of the corpus takes 5 tokens, 3 frames and 8 x 8 values of a latent.
    shape, call = (1, 3, 4, 8, 8), dict(num_frames=5, height=16, width=16, max_sequence_length=5)
    runs = {
        "plain": dict(prompt="Red ship", negative_prompt="", guidance=3.0, pab=False),
        "long": dict(prompt="Blue square moving left over the sea", negative_prompt="circle", guidance=2.0, pab=False),
    }

    def build(self):
        torch.manual_seed(0)
        transformer = export_models.cogvideox()[0].eval().requires_grad_(False)
        for parameter in transformer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        vae = seeded(lambda: diffusers.AutoencoderKLCogVideoX(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, layers_per_block=1,
            temporal_compression_ratio=2, scaling_factor=0.7, sample_height=16, sample_width=16,
            down_block_types=("CogVideoXDownBlock3D",) * 2, up_block_types=("CogVideoXUpBlock3D",) * 2), 0.05)
        return diffusers.CogVideoXPipeline(tokenizer=unigram(), text_encoder=t5(12), vae=vae, transformer=transformer,
                                           scheduler=DDIMScheduler(**SCHEDULER))

    def write(self, pipe, folder):
        write_index(pipe, folder, **T5, transformer=["diffusers", "CogVideoXTransformer3DModel"],
                    vae=["diffusers", "AutoencoderKLCogVideoX"])
        pipe.tokenizer.save_pretrained(folder / "tokenizer")
        write_t5(pipe.text_encoder, folder / "text_encoder")
        write_vae(pipe.vae, folder, torch.randn(1, 4, 3, 8, 8), None)
        latents, timestep, text = torch.randn(2, 3, 4, 8, 8), torch.tensor([500, 500]), torch.randn(2, 5, 12)
        agrees(CORPUS / "cogvideox/cogvideox.ts17.static.onnx",
               dict(hidden_states=latents, timestep=timestep, encoder_hidden_states=text),
               pipe.transformer(latents, timestep=timestep, encoder_hidden_states=text).sample)


class PixArt:
    shape, call = (1, 4, 8, 8), dict(height=16, width=16, clean_caption=False, use_resolution_binning=False)
    runs = {
        "plain": dict(prompt="A Red ship", negative_prompt="circle on black", guidance=3.0, pab=False),
        "short": dict(prompt="blue", negative_prompt="", guidance=4.5, pab=False),
    }

    def build(self):
        transformer = seeded(lambda: diffusers.PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=16,
            sample_size=8, patch_size=2, caption_channels=24, use_additional_conditions=False, norm_type="ada_norm_single"))
        return diffusers.PixArtSigmaPipeline(
            tokenizer=unigram(), text_encoder=t5(24), vae=image_vae(scaling_factor=0.4), transformer=transformer,
            scheduler=DDIMScheduler(**SCHEDULER))

    def write(self, pipe, folder):
        write_index(pipe, folder, **T5, transformer=["diffusers", "PixArtTransformer2DModel"],
                    vae=["diffusers", "AutoencoderKL"])
        mask = torch.ones(2, 300, dtype=torch.int64)
        mask[0, 3:] = 0
        write_transformer(
            pipe.transformer, folder,
            (torch.randn(2, 4, 8, 8), torch.randn(2, 300, 24), torch.tensor([500, 500]), mask),
            ["hidden_states", "encoder_hidden_states", "timestep", "encoder_attention_mask"])


class Sd3:
    shape, call = (1, 4, 8, 8), dict(height=16, width=16)
    runs = {
        "plain": dict(prompt="A Red ship, over  the sea's 42 circles! Over!", negative_prompt="blue", guidance=3.0, pab=False),
        "long": dict(prompt="green ship " * 150, negative_prompt="", guidance=2.0, pab=False),
    }

    def build(self):
        first, vocabulary, _ = bpe("<|endoftext|>")
        end = vocabulary["<|endoftext|>"]
        transformer = seeded(lambda: diffusers.SD3Transformer2DModel(
            num_attention_heads=2, attention_head_dim=8, sample_size=8, patch_size=2, in_channels=4, num_layers=2,
            joint_attention_dim=24, caption_projection_dim=16, pooled_projection_dim=14, out_channels=4, pos_embed_max_size=8))
        return diffusers.StableDiffusion3Pipeline(
            tokenizer=first, tokenizer_2=bpe("!")[0], tokenizer_3=unigram(), text_encoder=clip(8, 6, end),
            text_encoder_2=clip(12, 8, end), text_encoder_3=t5(24), vae=image_vae(scaling_factor=0.4, shift_factor=0.2),
            transformer=transformer, scheduler=DDIMScheduler(**SCHEDULER))

    def write(self, pipe, folder):
        write_index(
            pipe, folder, transformer=["diffusers", "SD3Transformer2DModel"], vae=["diffusers", "AutoencoderKL"],
            text_encoder=["transformers", "CLIPTextModelWithProjection"], tokenizer=["transformers", "CLIPTokenizer"],
            text_encoder_2=["transformers", "CLIPTextModelWithProjection"], tokenizer_2=["transformers", "CLIPTokenizer"],
            text_encoder_3=["transformers", "T5EncoderModel"], tokenizer_3=["transformers", "T5Tokenizer"])
        for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
            _, vocabulary, merges = bpe(pad)
            (folder / name).mkdir()
            (folder / name / "vocab.json").write_text(json.dumps(vocabulary) + "\n")
            (folder / name / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
            config = dict(tokenizer_class="CLIPTokenizer", pad_token=pad, model_max_length=77)
            (folder / name / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
        pipe.tokenizer_3.save_pretrained(folder / "tokenizer_3")
        write_clip(pipe.text_encoder, folder / "text_encoder")
        write_clip(pipe.text_encoder_2, folder / "text_encoder_2")
        write_t5(pipe.text_encoder_3, folder / "text_encoder_3")
        write_vae(pipe.vae, folder, torch.randn(1, 4, 4, 4), IMAGE_AXES)
        write_transformer(
            pipe.transformer, folder,
            (torch.randn(2, 4, 8, 8), torch.randn(2, 77 + 256, 24), torch.randn(2, 14), torch.tensor([500, 500])),
            ["hidden_states", "encoder_hidden_states", "pooled_projections", "timestep"])


KINDS = dict(latte=Latte, cogvideox=CogVideoX, pixart=PixArt, sd3=Sd3)


def frames_of(output):
    """Frames of a video or an image as [channels, frames, height, width]."""
    pictures = output.frames[0] if hasattr(output, "frames") else output.images
    return np.moveaxis(np.asarray(pictures), -1, 0)


def compute(kind, folder):
    latents = torch.randn(kind.shape, generator=torch.Generator().manual_seed(1))
    arrays = dict(latents=latents.numpy())
    # Pipelines of patches are given them as such.
    latents = kind.packed(latents) if hasattr(kind, "packed") else latents
    for name, run in kind.runs.items():
        pipe = kind.build()
        pipe.set_progress_bar_config(disable=True)
        if run["pab"]:
            kind.broadcast(pipe)
        common = dict(prompt=run["prompt"], num_inference_steps=STEPS, guidance_scale=run["guidance"], **kind.call)
        if "guidance_2" in run:
            common["guidance_scale_2"] = run["guidance_2"]
        if run["negative_prompt"] is not None:
            common["negative_prompt"] = run["negative_prompt"]
        with torch.no_grad():
            sample = pipe(**common, latents=latents.clone(), output_type="latent")
            sample = sample.frames if hasattr(sample, "frames") else sample.images
            for name_of_part in ("transformer", "transformer_2"):
                if run["pab"] and getattr(pipe, name_of_part, None) is not None:
                    getattr(pipe, name_of_part)._reset_stateful_cache()
            if "decode" in run:
                # Latents are given, so that what is drawn first is the noise before the decoder.
                common |= dict(run["decode"], generator=torch.Generator().manual_seed(2))
                arrays["decode_noise"] = torch.randn(kind.shape, generator=torch.Generator().manual_seed(2)).numpy()
            frames = frames_of(pipe(**common, latents=latents.clone(), output_type="np"))
        inside = ((frames > 0.01) & (frames < 0.99)).mean()
        print(f"{name}: latents up to {sample.abs().max():.1f}, frames {frames.shape}: {inside:.0%} of the values inside, "
              f"deviation {frames.std():.3f}")
        assert inside > 0.6 and frames.std() > 0.05
        arrays[f"{name}.sample"], arrays[f"{name}.frames"] = sample.numpy(), frames.astype(np.float32)
    if "pab.frames" in arrays:
        effect = np.abs(arrays["pab.frames"] - arrays["plain.frames"]).max()
        print(f"broadcasting changes frames by up to {effect:.3f}")
        assert effect > 0.005
    np.savez_compressed(folder / "oracle.npz", **arrays)
    (folder / "oracle.json").write_text(json.dumps(dict(steps=STEPS, runs=kind.runs), indent=1) + "\n")


def main():
    for name in arguments[1:] or KINDS:
        kind, folder = KINDS[name](), DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kind.write(kind.build(), folder)
        compute(kind, folder)
        print(f"{name}: {sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())} bytes in all")


if __name__ == "__main__":
    main()
