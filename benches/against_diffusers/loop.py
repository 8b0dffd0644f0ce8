"""The shipped model's denoising loop by diffusers alone, as a process of its own.

    python loop.py FOLDER NOISE OUTPUT --steps 50 --threads 2 --clips 2 [--broadcast]

FOLDER is `models/latte-shapes`. Makes the clip several times, writes the last one's sample to OUTPUT (.npy), and prints the
milliseconds of each as JSON: the loop alone, without loading.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, LatteTransformer3DModel, PyramidAttentionBroadcastConfig
from diffusers.hooks import apply_pyramid_attention_broadcast

PROMPT, GUIDANCE = ("circle", "red", "right", "black"), 2.0

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("noise", type=Path)
parser.add_argument("output", type=Path)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--clips", type=int, required=True)
parser.add_argument("--broadcast", action="store_true")
options = parser.parse_args()

torch.set_num_threads(options.threads)
torch.set_grad_enabled(False)
words = json.loads((options.folder / "prompt_words.json").read_text())
rows = {word: group["first"] + place for group in words["groups"] for place, word in enumerate(group["words"])}
table = torch.from_numpy(np.load(options.folder / "prompt_table.npy"))
tokens = torch.tensor([rows[word] for word in PROMPT])
embeddings = torch.stack([table[torch.full_like(tokens, words["empty"])], table[tokens]])
scheduler = DDIMScheduler.from_pretrained(options.folder / "scheduler")
noise = torch.from_numpy(np.load(options.noise))


def clip():
    # diffusers' hooks keep what they cached, so each clip has a model of its own, made before the clock starts.
    model = LatteTransformer3DModel.from_pretrained(options.folder / "weights").eval()
    now = {"timestep": 999}
    if options.broadcast:
        apply_pyramid_attention_broadcast(model, PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, temporal_attention_block_skip_range=3, cross_attention_block_skip_range=6,
            # By default the spatial pattern also matches `temporal_transformer_blocks`.
            spatial_attention_block_identifiers=(r"(?<!temporal_)transformer_blocks",),
            current_timestep_callback=lambda: now["timestep"]))
    scheduler.set_timesteps(options.steps)
    latents = noise.clone()
    begun = time.perf_counter()
    for timestep in scheduler.timesteps:
        now["timestep"] = int(timestep)
        prediction = model(torch.cat([latents, latents]), encoder_hidden_states=embeddings, timestep=timestep.repeat(2),
                           return_dict=False)[0]
        empty, prompt = prediction.chunk(2)
        latents = scheduler.step(empty + GUIDANCE * (prompt - empty), timestep, latents).prev_sample
    return (time.perf_counter() - begun) * 1e3, latents


clips = []
for _ in range(options.clips):
    milliseconds, sample = clip()
    clips.append(milliseconds)
np.save(options.output, sample.numpy())
print(json.dumps(clips))
