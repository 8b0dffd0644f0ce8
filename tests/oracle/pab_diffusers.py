"""Whole denoising loops with diffusers' own Pyramid Attention Broadcast: what `tests/end_to_end/pab_loops.rs` compares with.

    python tests/oracle/pab_diffusers.py [FOLDER]        (made with torch 2.15, diffusers 0.42, numpy, onnxruntime 1.31)

The models are those of `tests/data/corpus` (`latte`, `cogvideox`): same seeds, so same weights, which is checked against
the exports. DDIM with classifier-free guidance by a batch of two (unconditional, conditional), 30 and 50 steps.

Identifiers are set so that temporal blocks are temporal: by default `transformer_blocks` also matches
`temporal_transformer_blocks`, which then get the spatial range. CogVideoX has one kind of attention, which takes the
spatial range, so that 2/3/6 and 2/4/6 are one run.

FOLDER gets for each model `MODEL.npz` (`latents`, `text`: what every run starts from; `timesteps.STEPS`) and `runs.json`
(for each run its ranges, window and file, and for each attention module the steps at which it really computed), and for each
run a file with `output` (the model's output at every step, [steps, 2, ...]), `latents` (of every tenth step and the last
one, after it) and `effect` (for each step the largest difference from the plain model's output on the same latents, as part
of the largest value).
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from diffusers import DDIMScheduler, PyramidAttentionBroadcastConfig
from diffusers.hooks import apply_pyramid_attention_broadcast

CORPUS = Path(__file__).parent.parent / "data" / "corpus"
sys.path.insert(0, str(CORPUS))
FOLDER = Path(sys.argv.pop(1) if len(sys.argv) > 1 else Path(__file__).parent / "pab")
import export_latte  # noqa: E402
import export_models  # noqa: E402

STEPS = (30, 50)
RANGES = ((2, 3, 6), (2, 4, 6), (3, 5, 7))
WINDOWS = ((100, 800), (250, 950))
GUIDANCE = 3.0
# With `v_prediction` the latents of random weights stay near 1, so that what a broadcast changes is not drowned in them.
SCHEDULER = dict(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False,
                 set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction")
KEPT = 10  # latents of every so many steps are kept


class Latte:
    name, export = "latte", "latte.ts17.static.onnx"

    def build(self):
        return export_latte.build(export_latte.SIZES["latte"])

    def start(self, generator):
        return torch.randn(1, 4, 3, 4, 4, generator=generator), torch.randn(2, 5, 24, generator=generator)

    def predict(self, output):
        """Noise without the learned variance."""
        return output[:, :4]

    def runs(self):
        return [(ranges, window) for ranges in RANGES for window in WINDOWS]


class CogVideoX:
    name, export = "cogvideox", "cogvideox/cogvideox.ts17.static.onnx"

    def build(self):
        torch.manual_seed(0)
        model = export_models.cogvideox()[0].eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        return model

    def start(self, generator):
        return torch.randn(1, 3, 4, 8, 8, generator=generator), torch.randn(2, 5, 12, generator=generator)

    def predict(self, output):
        return output

    def runs(self):
        return [(ranges, window) for ranges in (RANGES[0], RANGES[2]) for window in WINDOWS]


def call(model, latents, timestep, text):
    return model(torch.cat([latents, latents]), timestep=timestep.repeat(2), encoder_hidden_states=text, return_dict=False)[0]


def equals_export(kind, latents, timestep, text):
    """The weights are those of the export."""
    session = onnxruntime.InferenceSession(str(CORPUS / kind.export), providers=["CPUExecutionProvider"])
    feeds = dict(hidden_states=torch.cat([latents, latents]).numpy(), timestep=timestep.repeat(2).numpy(),
                 encoder_hidden_states=text.numpy())
    found, expected = session.run(None, feeds)[0], call(kind.build(), latents, timestep, text).numpy()
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{kind.name}: ONNX Runtime differs from PyTorch by {difference:.1e}")
    assert difference < 1e-5


def watched(model, state):
    """Notes for each attention module the steps at which it really runs: those at which its first projection does."""
    computed = {}
    for name, module in model.named_modules():
        if name.endswith(("attn1", "attn2")):
            computed[name] = []
            module.to_q.register_forward_hook(lambda *_, steps=computed[name]: steps.append(state["step"]))
    return computed


def loop(kind, steps, ranges, window, latents, text):
    """One run with broadcasts; beside it the plain model on the same latents."""
    model, plain, state = kind.build(), kind.build(), dict(step=0, timestep=0)
    computed = watched(model, state)
    spatial, temporal, cross = ranges
    apply_pyramid_attention_broadcast(model, PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=spatial, temporal_attention_block_skip_range=temporal,
        cross_attention_block_skip_range=cross, spatial_attention_timestep_skip_range=window,
        temporal_attention_timestep_skip_range=window, cross_attention_timestep_skip_range=window,
        spatial_attention_block_identifiers=(r"(?<!temporal_)transformer_blocks",),
        current_timestep_callback=lambda: state["timestep"]))
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    outputs, kept, effect = [], [], []
    for step, timestep in enumerate(scheduler.timesteps):
        state.update(step=step, timestep=int(timestep))
        output = call(model, latents, timestep, text)
        exact = call(plain, latents, timestep, text)
        effect.append(float((output - exact).abs().max() / output.abs().max()))
        outputs.append(output.numpy())
        empty, given = kind.predict(output).chunk(2)
        latents = scheduler.step(empty + GUIDANCE * (given - empty), timestep, latents).prev_sample
        if step % KEPT == 0 or step == steps - 1:
            kept.append(latents.numpy())
    arrays = dict(output=np.stack(outputs), latents=np.stack(kept), effect=np.array(effect, np.float32))
    return arrays, {name: "".join(str(int(step in at)) for step in range(steps)) for name, at in computed.items()}


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    runs = []
    for kind in (Latte(), CogVideoX()):
        latents, text = kind.start(torch.Generator().manual_seed(1))
        equals_export(kind, latents, torch.tensor(500), text)
        timesteps = {}
        for steps in STEPS:
            scheduler = DDIMScheduler(**SCHEDULER)
            scheduler.set_timesteps(steps)
            timesteps[f"timesteps.{steps}"] = scheduler.timesteps.numpy().astype(np.float64)
        np.savez_compressed(FOLDER / f"{kind.name}.npz", latents=latents.numpy(), text=text.numpy(), **timesteps)
        for steps in STEPS:
            for ranges, window in kind.runs():
                file = f"{kind.name}.{steps}.{'-'.join(map(str, ranges))}.{window[0]}-{window[1]}.npz"
                arrays, computed = loop(kind, steps, ranges, window, latents, text)
                np.savez_compressed(FOLDER / file, **arrays)
                broadcast = [effect for effect in arrays["effect"] if effect > 0]
                # Cross attention alone changes least.
                assert min(broadcast) > 0.002 and np.median(broadcast) > 0.01, broadcast
                print(f"{file}: {len(broadcast)} steps changed by {min(broadcast):.1%} to {max(broadcast):.1%}, "
                      f"latents up to {np.abs(arrays['latents']).max():.1f}")
                runs.append(dict(model=kind.name, export=kind.export, steps=steps, ranges=ranges, window=window,
                                 guidance=GUIDANCE, file=file, computed=computed))
    scheduler = dict(_class_name="DDIMScheduler", **SCHEDULER)
    (FOLDER / "scheduler_config.json").write_text(json.dumps(scheduler, indent=1) + "\n")
    (FOLDER / "runs.json").write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
