"""Trains the small Latte that ships here: it draws a coloured shape moving over a coloured ground.

Everything is made by this script: diffusers' `LatteTransformer3DModel` with 6 spatial and 6 temporal blocks, and clips
`[batch, 3, frames, 32, 32]` in [-1, 1] that are drawn on the fly. A prompt is four tokens: shape, colour, direction,
ground. The objective is v-prediction under a schedule with zero terminal SNR (arXiv 2305.08891): where any of the picture
shows through in the noisiest step, a model reads from the noise what it should read from the prompt. A prompt leaves open
only where the shape starts, so the best answer for a noisy clip is known exactly; it is the target. Steps with little
noise weigh less. Matrices are trained with Muon, everything else with AdamW.

    python train.py --minutes 90 --out weights [--init weights]

Needs: torch, diffusers, numpy. `export.py` turns the result into the files of this folder.
"""
import argparse
import functools
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, LatteTransformer3DModel

SIZE, FRAMES, PATCH, RADIUS = 32, 8, 4, 6.5
SHAPES = ["circle", "square", "triangle"]
COLOURS = {
    "red": (.95, .2, .2), "green": (.2, .8, .3), "blue": (.25, .4, .95),
    "yellow": (.95, .85, .2), "magenta": (.9, .4, .9), "white": (.95, .95, .95),
}
DIRECTIONS = {  # pixels a frame, x to the right and y downwards
    "still": (0, 0), "right": (2, 0), "left": (-2, 0), "down": (0, 2), "up": (0, -2),
    "down-right": (1.5, 1.5), "up-left": (-1.5, -1.5), "up-right": (1.5, -1.5),
}
GROUNDS = {
    "black": (.05, .05, .08), "navy": (.1, .12, .35), "forest": (.08, .28, .15),
    "maroon": (.35, .12, .1), "grey": (.3, .3, .3), "olive": (.35, .25, .05),
}
GROUPS = [SHAPES, list(COLOURS), list(DIRECTIONS), list(GROUNDS)]
EMPTY = sum(map(len, GROUPS))  # the token of the empty prompt, for classifier-free guidance
WIDTH = 64  # of a prompt token

rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + .5


def coverage(shape, x, y):
    """How much of each pixel the shape at (x, y) covers, 0 to 1."""
    if shape == 0:
        distance = np.hypot(columns - x, rows - y) - RADIUS
    elif shape == 1:
        distance = np.maximum(abs(columns - x), abs(rows - y)) - RADIUS * .88
    else:
        slope = .866 * abs(columns - x) - .5 * (rows - y)
        distance = np.maximum(rows - y - RADIUS * .75, slope - RADIUS * .5)
    return np.clip(.5 - distance, 0, 1)


def starts(velocity):
    """The coordinates from which the shape stays inside the picture while it moves, on a grid of patches.

    On the grid a patch of the model shows few different outlines, which a small model learns in an hour.
    """
    low, high, way = RADIUS + 1, SIZE - RADIUS - 1, velocity * (FRAMES - 1)
    low, high = max(low, low - way), min(high, high - way)
    return np.arange(math.ceil(low / PATCH), math.floor(high / PATCH) + 1) * float(PATCH)


@functools.cache
def coverages(shape, direction):
    """All clips of a shape that moves in a direction, as coverages: [starts, frames, 32, 32]."""
    vx, vy = list(DIRECTIONS.values())[direction]
    return torch.tensor(np.array([
        [coverage(shape, x + vx * frame, y + vy * frame) for frame in range(FRAMES)]
        for x in starts(vx) for y in starts(vy)
    ]), dtype=torch.float32)


def candidates(prompt):
    """Every clip, in [-1, 1], that a prompt may mean: [starts, 3, frames, 32, 32]."""
    shape, colour, direction, ground = prompt
    mask = coverages(shape, direction)[:, None]
    ground = torch.tensor(list(GROUNDS.values())[ground])[:, None, None, None]
    colour = torch.tensor(list(COLOURS.values())[colour])[:, None, None, None]
    return (ground + (colour - ground) * mask) * 2 - 1


def tokens(prompt):
    """A prompt's rows in the prompt table."""
    return [pick + sum(map(len, GROUPS[:place])) for place, pick in enumerate(prompt)]


def examples(random, alphas):
    """Noisy clips, a prompt and a velocity for each `alpha` of `alphas` (the share of the picture in the variance).

    The velocity is the expectation over all the clips that the prompt may mean, each as likely as the noisy clip says.
    Where the prompt is dropped, for classifier-free guidance, it is the velocity of the clip itself.
    """
    noisy, prompts, targets = [], [], []
    for alpha in alphas:
        picks = [int(random.integers(len(group))) for group in GROUPS]
        meant = candidates(picks)
        clip = meant[int(random.integers(len(meant)))]
        x = alpha.sqrt() * clip + (1 - alpha).sqrt() * torch.randn_like(clip)
        if random.random() < .1:
            prompt, expected = [EMPTY] * 4, clip
        else:
            distance = (x - alpha.sqrt() * meant).square().sum((1, 2, 3, 4))
            likely = torch.softmax(-distance / (2 * (1 - alpha)), 0)
            prompt, expected = tokens(picks), torch.tensordot(likely, meant, 1)
        noise = (x - alpha.sqrt() * expected) / (1 - alpha).sqrt()
        noisy.append(x)
        prompts.append(prompt)
        targets.append(alpha.sqrt() * noise - (1 - alpha).sqrt() * expected)
    return torch.stack(noisy), torch.tensor(prompts), torch.stack(targets)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by Newton-Schulz steps (Jordan et al., 2024), scaled to AdamW's size.

    Matrices of one shape are treated together, and in float32: bfloat16 is slow on processors without it.
    """

    def __init__(self, matrices, lr, momentum=.95, decay=.01):
        super().__init__(matrices, dict(lr=lr))
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self):
        shapes = {}
        for group in self.param_groups:
            for matrix in group["params"]:
                shapes.setdefault(tuple(matrix.shape), []).append(matrix)
        for (height, width), matrices in shapes.items():
            updates = []
            for matrix in matrices:
                buffer = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                buffer.lerp_(matrix.grad, 1 - self.momentum)
                updates.append(matrix.grad.lerp(buffer, self.momentum))
            x = torch.stack(updates)
            x = x.mT if height > width else x
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                square = x @ x.mT
                x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
            x = x.mT if height > width else x
            rate = self.param_groups[0]["lr"]
            for matrix, update in zip(matrices, x):
                matrix.mul_(1 - rate * self.decay).add_(update, alpha=-rate * .2 * math.sqrt(max(height, width)))


def new_model():
    return LatteTransformer3DModel(
        num_attention_heads=4, attention_head_dim=32, in_channels=3, out_channels=3, num_layers=6,
        cross_attention_dim=128, attention_bias=True, sample_size=SIZE, patch_size=PATCH, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        caption_channels=WIDTH, video_length=FRAMES)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--init", type=Path, help="weights to go on from")
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--noisy", type=float, default=.5, help="share of a batch that has the noisiest timesteps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    random = np.random.default_rng(arguments.seed)

    model = LatteTransformer3DModel.from_pretrained(arguments.init) if arguments.init else new_model()
    prompt_table = torch.nn.Embedding(EMPTY + 1, WIDTH)
    if arguments.init:
        prompt_table.load_state_dict(torch.load(arguments.init / "emb.pt"))
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1, rescale_betas_zero_snr=True)
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    # Noisy steps decide what is drawn and where it goes; clean ones have little left to decide and much error to show.
    weights = 1 / (1 + snr / 5) + .1

    both = torch.nn.ModuleDict({"model": model, "prompt_table": prompt_table})
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "blocks" in n and "table" not in n]
    ids = {id(p) for p in matrices}
    optimizers = [
        Muon(matrices, lr=arguments.rate),
        torch.optim.AdamW([p for p in both.parameters() if id(p) not in ids], lr=arguments.rate, weight_decay=0.01,
                          betas=(.9, .99)),
    ]
    average = {key: value.detach().clone() for key, value in both.state_dict().items()}

    def save():
        kept = {key: value.detach().clone() for key, value in both.state_dict().items()}
        both.load_state_dict(average)
        model.save_pretrained(arguments.out)
        torch.save(prompt_table.state_dict(), arguments.out / "emb.pt")
        scheduler.save_pretrained(arguments.out / "scheduler")
        both.load_state_dict(kept)

    compiled = torch.compile(model)
    begun = saved = time.time()
    step, mean = 0, None
    while (share := (time.time() - begun) / (arguments.minutes * 60)) < 1:
        rate = arguments.rate * min(1, (step + 1) / 50) * (.5 * (1 + math.cos(math.pi * share)) + .01)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        # Some of the timesteps are spread over all noise levels, one in each stratum. The others are the noisiest, where
        # what is drawn and where it goes is decided.
        strata = (torch.arange(arguments.batch) + torch.rand(arguments.batch)) / arguments.batch
        noisiest = torch.rand(arguments.batch) < arguments.noisy
        timesteps = torch.where(noisiest, 800 + strata * 200, strata * 1000).long()
        noisy, prompts, target = examples(random, scheduler.alphas_cumprod[timesteps])
        output = compiled(noisy, encoder_hidden_states=prompt_table(prompts), timestep=timesteps, return_dict=False)[0]
        loss = (F.mse_loss(output, target, reduction="none").mean((1, 2, 3, 4)) * weights[timesteps]).mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        decay = min(.995, (1 + step) / (10 + step))
        for key, value in both.state_dict().items():
            average[key].lerp_(value, 1 - decay)
        mean = loss.item() if mean is None else .97 * mean + .03 * loss.item()
        if step % 20 == 0:
            print(f"step {step} loss {mean:.5f} {(time.time() - begun) / step:.2f} s a step", flush=True)
        if time.time() - saved > 600:
            save()
            saved = time.time()
    save()
    print(f"done: {step} steps, loss {mean:.5f}")


if __name__ == "__main__":
    main()
