"""A small pipeline in diffusers' layout, and what diffusers' own pipeline makes with it: what
`tests/end_to_end/pipeline.rs` compares with.

    python tests/oracle/pipeline_diffusers.py [FOLDER]   (made with torch 2.15, diffusers 0.42, transformers 5.24, onnx 1.23)

The transformer is the Latte of `tests/data/corpus` (`latte.ts17.dynamic.onnx`: same seed, so same weights, which is checked);
its file is not written again, so that a test puts it in its place. Text encoder (T5), tokenizer (Unigram, with an end token as
T5 has it) and VAE (`AutoencoderKL`, two pixels a side for each latent) are tiny, with seeded random weights.

FOLDER gets the pipeline without its transformer and `oracle.npz`: `latents` (what every run starts from), and for each run of
`oracle.json` its `RUN.sample` (latents at the end) and `RUN.frames` (`[channels, frames, height, width]`, in [0, 1]).
"""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from diffusers import AutoencoderKL, DDIMScheduler, LattePipeline, PyramidAttentionBroadcastConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

CORPUS = Path(__file__).parent.parent / "data" / "corpus"
FOLDER = Path(sys.argv.pop(1) if len(sys.argv) > 1 else Path(__file__).parent.parent / "data" / "pipeline")
sys.path.insert(0, str(CORPUS))
import export_latte  # noqa: E402

TRANSFORMER = "latte.ts17.dynamic.onnx"
SCHEDULER = dict(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False,
                 set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction")
WORDS = "a an the red green blue circle square ship moving left right on black white over sea , .".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
STEPS = 12
RUNS = {
    "plain": dict(prompt="A red circle, moving right on black. ", negative_prompt="", guidance=3.0, pab=False),
    "pab": dict(prompt="A red circle, moving right on black. ", negative_prompt="", guidance=3.0, pab=True),
    "negative": dict(prompt="Blue square", negative_prompt="the white ship over the sea moving left", guidance=4.5, pab=True),
    "unguided": dict(prompt="Blue square", negative_prompt="", guidance=1.0, pab=True),
    # Far more than the 120 tokens that the pipeline takes.
    "long": dict(prompt="green ship " * 150, negative_prompt="", guidance=3.0, pab=False),
}


def tokenizer():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(piece, -2.0 - index / 10) for index, word in enumerate(WORDS) for piece in (f"▁{word}", word) if len(word) > 1]
    pieces += [("▁", -4.0), (",", -4.0), (".", -4.0)] + [(letter, -8.0) for letter in LETTERS]
    made = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
                                   model_max_length=512)


def seeded(model):
    """Noise in every parameter, so that none is zero."""
    torch.manual_seed(0)
    model = model.eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def build():
    torch.manual_seed(0)
    text_encoder = seeded(T5EncoderModel(T5Config(vocab_size=80, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
                                                  feed_forward_proj="gated-gelu")))
    torch.manual_seed(0)
    vae = seeded(AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, layers_per_block=1,
                               down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                               sample_size=8, scaling_factor=0.4))
    return LattePipeline(tokenizer=tokenizer(), text_encoder=text_encoder, vae=vae, scheduler=DDIMScheduler(**SCHEDULER),
                         transformer=export_latte.build(export_latte.SIZES["latte"]))


class Encoder(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        return self.encoder(input_ids, attention_mask=attention_mask)[0]


class Decoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        return self.vae.decode(latent_sample, return_dict=False)[0]


def export(model, inputs, path, names, output, axes):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(model, inputs, path, input_names=names, output_names=[output], dynamo=False, opset_version=17,
                      dynamic_axes=axes)
    print(f"{path.relative_to(FOLDER)}: {path.stat().st_size} bytes")


def encoder(model, inputs, path):
    """By torch's newer exporter: the older one fixes what the length of the text decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=512)
    program = torch.onnx.export(Encoder(model), inputs, input_names=["input_ids", "attention_mask"],
                                output_names=["last_hidden_state"], dynamo=True, opset_version=18, verbose=False,
                                dynamic_shapes=({0: batch, 1: sequence},) * 2)
    proto = program.model_proto
    for holder in [*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, proto.graph, proto]:
        del holder.metadata_props[:]
    onnx.save(proto, path)
    print(f"{path.relative_to(FOLDER)}: {path.stat().st_size} bytes")


def agrees(path, feeds, expected):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.numpy() for name, value in feeds.items()})[0]
    difference = np.abs(found - expected.numpy()).max() / np.abs(expected.numpy()).max()
    print(f"{path.name} of {path.parent.name}: ONNX Runtime differs from PyTorch by {difference:.1e}")
    assert difference < 1e-5


def write(pipe):
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    index = dict(_class_name="LattePipeline", _diffusers_version="0.42.1", scheduler=["diffusers", "DDIMScheduler"],
                 text_encoder=["transformers", "T5EncoderModel"], tokenizer=["transformers", "T5Tokenizer"],
                 transformer=["diffusers", "LatteTransformer3DModel"], vae=["diffusers", "AutoencoderKL"])
    (FOLDER / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    pipe.scheduler.save_pretrained(FOLDER / "scheduler")
    pipe.tokenizer.save_pretrained(FOLDER / "tokenizer")
    ids = torch.tensor([[5, 6, 7, 1, 0, 0]])
    mask = (ids != 0).long()
    path = FOLDER / "text_encoder/model.onnx"
    encoder(pipe.text_encoder, (ids, mask), path)
    longer = torch.arange(3, 14)[None]
    agrees(path, dict(input_ids=longer, attention_mask=torch.ones_like(longer)),
           pipe.text_encoder(longer, attention_mask=torch.ones_like(longer))[0])
    path = FOLDER / "vae_decoder/model.onnx"
    latents = torch.randn(1, 4, 4, 4)
    sizes = {0: "batch", 2: "height", 3: "width"}
    export(Decoder(pipe.vae), (latents,), path, ["latent_sample"], "sample", {"latent_sample": sizes, "sample": sizes})
    agrees(path, dict(latent_sample=latents), pipe.vae.decode(latents).sample)
    pipe.vae.save_config(FOLDER / "vae_decoder")
    latents, timestep, text = torch.randn(2, 4, 3, 4, 4), torch.tensor([500, 500]), torch.randn(2, 7, 24)
    agrees(CORPUS / TRANSFORMER, dict(hidden_states=latents, timestep=timestep, encoder_hidden_states=text),
           pipe.transformer(latents, timestep=timestep, encoder_hidden_states=text).sample)


def pyramid(pipe):
    """As `rules/latte.yaml` has it; spatial blocks are told from temporal ones."""
    window = (100, 800)
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, temporal_attention_block_skip_range=3, cross_attention_block_skip_range=6,
        spatial_attention_timestep_skip_range=window, temporal_attention_timestep_skip_range=window,
        cross_attention_timestep_skip_range=window,
        spatial_attention_block_identifiers=(r"(?<!temporal_)transformer_blocks",),
        current_timestep_callback=lambda: pipe._current_timestep)


def main():
    write(build())
    latents = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    arrays, before = dict(latents=latents.numpy()), None
    for name, run in RUNS.items():
        pipe = build()
        pipe.set_progress_bar_config(disable=True)
        if run["pab"]:
            pipe.transformer.enable_cache(pyramid(pipe))
        common = dict(prompt=run["prompt"], negative_prompt=run["negative_prompt"], num_inference_steps=STEPS,
                      guidance_scale=run["guidance"], video_length=3, height=8, width=8, clean_caption=False)
        with torch.no_grad():
            sample = pipe(**common, latents=latents.clone(), output_type="latent").frames
            if run["pab"]:
                pipe.transformer._reset_stateful_cache()
            frames = pipe(**common, latents=latents.clone(), output_type="np").frames
        frames = np.moveaxis(frames[0], -1, 0)
        inside = ((frames > 0.01) & (frames < 0.99)).mean()
        print(f"{name}: latents up to {sample.abs().max():.1f}, frames {frames.shape}: {inside:.0%} of the values inside, "
              f"deviation {frames.std():.3f}")
        assert inside > 0.6 and frames.std() > 0.05
        if name == "pab":
            effect = np.abs(frames - before).max()
            print(f"broadcasting changes frames by up to {effect:.3f}")
            assert effect > 0.005
        before = frames
        arrays[f"{name}.sample"], arrays[f"{name}.frames"] = sample.numpy(), frames.astype(np.float32)
    np.savez_compressed(FOLDER / "oracle.npz", **arrays)
    (FOLDER / "oracle.json").write_text(json.dumps(dict(steps=STEPS, runs=RUNS), indent=1) + "\n")
    print(f"{sum(path.stat().st_size for path in FOLDER.rglob('*') if path.is_file())} bytes in all")


if __name__ == "__main__":
    main()
