"""What VideoSys decides in a run of each of its published configurations: decisions.json.

configurations.json has the figures of the six *PABConfig classes, each with the file that it is from. The rule is that
of videosys/core/pab/pab_mgr.py, written anew here:

- an attention counts the evaluations of its block from 0; it is reused if the count is not divisible by its range and
  the timestep, cut off to a whole number, lies strictly between the thresholds;
- a feed-forward computes and keeps its output at a listed timestep, if its block is listed there. It is reused at a
  timestep that is among those of the first listed entry whose stretch of the run (its own step and the next skip_count)
  holds it, if its block is listed there. Entries whose timestep the run does not have count for nothing.

The runs are those of VideoSys' examples:

- Open-Sora 1.2: rectified flow with its timestep transform (videosys/schedulers/scheduling_rflow_open_sora.py), 30
  steps, 51 frames of 854x480. VideoSys rounds the timesteps to bfloat16, which is what the model and the tables see.
- Open-Sora-Plan 1.1: diffusers' PNDMScheduler as it is made without arguments, 150 steps.
- Open-Sora-Plan 1.2: diffusers' EulerAncestralDiscreteScheduler as it is made without arguments, 150 steps.
- Latte: diffusers' DDIMScheduler, 50 steps from 980 to 0, which the tables are made for.
- CogVideoX: diffusers' CogVideoXDDIMScheduler with trailing timesteps, 50 steps.
- Vchitect: diffusers' FlowMatchEulerDiscreteScheduler, 100 steps, with the shift 3 of Stable Diffusion 3 and without.

Left out on purpose, since they are accidents of the program and not of the rule: counts are not taken modulo the number
of steps, which only concerns PNDM's warm-up evaluations and a second clip; and one evaluation is counted a step where
VideoSys' Vchitect counts the two halves of guidance one after the other.

Run it with diffusers and torch installed: python decide.py
"""

import json
import math
from pathlib import Path

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)

HERE = Path(__file__).parent


def of(scheduler, steps):
    scheduler.set_timesteps(steps)
    return [float(timestep) for timestep in scheduler.timesteps]


def rectified_flow(steps, height, width, frames):
    """Open-Sora's timesteps, shifted by the size of the clip, as bfloat16."""
    ratio = math.sqrt(height * width / 512**2) * math.sqrt(frames // 17 * 5)
    timesteps = []
    for step in range(steps):
        time = torch.tensor(1.0 - step / steps)
        shifted = ratio * time / (1 + (ratio - 1) * time) * 1000
        timesteps.append(float(shifted.to(torch.bfloat16)))
    return timesteps


RUNS = [
    ("open-sora-1.2", "rectified flow, 30 steps, 51 frames of 854x480", rectified_flow(30, 854, 480, 51)),
    ("open-sora-plan-1.1", "PNDMScheduler, 150 steps", of(PNDMScheduler(), 150)),
    ("open-sora-plan-1.2", "EulerAncestralDiscreteScheduler, 150 steps", of(EulerAncestralDiscreteScheduler(), 150)),
    ("latte", "DDIMScheduler, 50 steps", of(DDIMScheduler(steps_offset=0), 50)),
    ("cogvideox", "CogVideoXDDIMScheduler, trailing, 50 steps", of(CogVideoXDDIMScheduler(timestep_spacing="trailing"), 50)),
    ("vchitect", "FlowMatchEulerDiscreteScheduler, shift 3, 100 steps", of(FlowMatchEulerDiscreteScheduler(shift=3.0), 100)),
    ("vchitect", "FlowMatchEulerDiscreteScheduler, shift 1, 100 steps", of(FlowMatchEulerDiscreteScheduler(), 100)),
]


def attention(timesteps, setting):
    """For each step 1 where an attention computes, 0 where it is reused."""
    low, high = setting["threshold"]
    reused = [count % setting["range"] != 0 and low < int(t) < high for count, t in enumerate(timesteps)]
    return "".join("0" if reuse else "1" for reuse in reused)


def feed_forward(timesteps, table, block):
    """The same for the feed-forward of a block. The kept outputs are followed, so that none is reused that was not kept."""
    run = [int(t) for t in timesteps]
    table = {int(timestep): entry for timestep, entry in table.items()}
    kept, pattern = set(), ""
    for now in run:
        if now in table and block in table[now]["block"]:
            kept.add(now)
            pattern += "1"
            continue
        holder = None
        for listed, entry in table.items():
            if listed in run:
                start = run.index(listed)
                if now in run[start : start + 1 + entry["skip_count"]]:
                    holder = listed
                    break
        if holder is not None and block in table[holder]["block"]:
            assert holder in kept, (now, holder)
            pattern += "0"
        else:
            pattern += "1"
    return pattern


def main():
    configurations = {entry["name"]: entry for entry in json.loads((HERE / "configurations.json").read_text())}
    decisions = []
    for name, scheduler, timesteps in RUNS:
        configuration = configurations[name]
        blocks = range(configuration["depth"])
        decisions.append(
            {
                "name": name,
                "scheduler": scheduler,
                "timesteps": timesteps,
                "attention": {
                    kind: attention(timesteps, configuration[kind])
                    for kind in ("spatial", "temporal", "cross")
                    if kind in configuration
                },
                "mlp": {
                    kind: [feed_forward(timesteps, configuration[f"mlp_{kind}"], block) for block in blocks]
                    for kind in ("spatial", "temporal")
                    if f"mlp_{kind}" in configuration
                },
            }
        )
    (HERE / "decisions.json").write_text(json.dumps(decisions, indent=1) + "\n")


if __name__ == "__main__":
    main()
