"""Writes ddim.npz: runs of diffusers' DDIMScheduler over a grid of configurations, on tiny samples.

Needs numpy, torch and diffusers (made with diffusers 0.42.1, torch CPU). Run: python make_ddim.py

For each run N: `N.config` (the scheduler_config.json as bytes), `N.timesteps`, `N.outputs [steps, 2, 1, 2, 3]`,
`N.start`, `N.samples [kept, 2, 1, 2, 3]` after the steps listed in `N.kept`, and `N.alphas` (every 37th cumulated alpha).
`rescaled.<beta schedule>` are all cumulated alphas with `rescale_betas_zero_snr`.
`spacing.<name>.<steps>` are timesteps for more numbers of steps.
"""
import itertools
import json
import pathlib

import numpy as np
import torch
from diffusers import DDIMScheduler

rng = np.random.default_rng(20240607)
SHAPE = (2, 1, 2, 3)
arrays = {}


def run(number, steps, **options):
    scheduler = DDIMScheduler(**options)
    config = {'_class_name': 'DDIMScheduler', **{k: v for k, v in scheduler.config.items() if not k.startswith('_')}}
    if config['trained_betas'] is not None:
        config['trained_betas'] = [float(beta) for beta in config['trained_betas']]
    scheduler.set_timesteps(steps)
    outputs = rng.standard_normal((steps, *SHAPE)).astype(np.float32)
    sample = start = rng.standard_normal(SHAPE).astype(np.float32) * 1.5
    kept = sorted({0, 1, steps // 2, steps - 1})
    samples = []
    sample = torch.from_numpy(start)
    for index, timestep in enumerate(scheduler.timesteps):
        sample = scheduler.step(torch.from_numpy(outputs[index]), int(timestep), sample).prev_sample
        if index in kept:
            samples.append(sample.numpy())
    samples = np.stack(samples)
    if config['rescale_betas_zero_snr']:
        arrays[f"rescaled.{config['beta_schedule']}"] = scheduler.alphas_cumprod.numpy()
    assert np.isfinite(samples).all(), config
    arrays.update({
        f'{number}.config': np.frombuffer(json.dumps(config).encode(), np.uint8),
        f'{number}.timesteps': scheduler.timesteps.numpy(),
        f'{number}.outputs': outputs,
        f'{number}.start': start,
        f'{number}.kept': np.array(kept, np.int64),
        f'{number}.samples': samples,
        f'{number}.alphas': scheduler.alphas_cumprod.numpy()[::37],
    })


number = 0
limits = [
    dict(clip_sample=False),
    dict(clip_sample=True, clip_sample_range=0.8),
    dict(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.7),
]
betas = [
    dict(beta_schedule='linear'),
    dict(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012),
    dict(beta_schedule='squaredcos_cap_v2'),
]
grid = list(itertools.product(
    ('leading', 'trailing', 'linspace'), ('epsilon', 'sample', 'v_prediction'), betas, (False, True), limits, (False, True)))
for at, (spacing, prediction, beta, zero_snr, limit, to_one) in enumerate(grid):
    if zero_snr and prediction == 'epsilon' and spacing != 'leading':
        continue  # divides by zero
    if at % 12 and not (spacing == 'trailing' and prediction == 'v_prediction'):
        continue  # a twelfth of the grid, and all of one corner, keep the file small
    steps = (10, 7, 8)[number % 3]
    run(number, steps, timestep_spacing=spacing, prediction_type=prediction, rescale_betas_zero_snr=zero_snr,
        set_alpha_to_one=to_one, steps_offset=1 if spacing == 'leading' else 0, **beta, **limit)
    number += 1
run(number, 50, beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012, clip_sample=False,
    prediction_type='v_prediction', set_alpha_to_one=False, steps_offset=1)
run(number + 1, 10, trained_betas=np.linspace(0.001, 0.2, 60).tolist(), num_train_timesteps=60)
run(number + 2, 3, num_train_timesteps=10, clip_sample=False, steps_offset=1, timestep_spacing='leading')

for spacing, steps in itertools.product(('leading', 'trailing', 'linspace'), (1, 2, 3, 7, 28, 30, 49, 99, 333, 700, 1000)):
    scheduler = DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    arrays[f'spacing.{spacing}.{steps}'] = scheduler.timesteps.numpy().astype(np.int64)

np.savez_compressed(pathlib.Path(__file__).with_name('ddim.npz'), **arrays)
print(number + 3, 'runs')
