"""Runs of diffusers' schedulers with a toy model, as `make_schedulers.py` and `make_given_levels.py` write them.

The toy model, `toy` below, is of basic operations in float64 alone, so that anyone who has the same input computes the same
output. A run feeds its own samples back for all its steps, as a pipeline does, from `start` times `init_noise_sigma`. Where a
scheduler draws noise, it gets `noise[step]` in the place of its own.

For each run N: `N.config` (the scheduler_config.json as bytes), `N.run` (steps, and what else the scheduler was told, as JSON
bytes), `N.timesteps`, `N.sigmas` (where there are some), `N.initial`, `N.samples [kept, 2, 1, 2, 3]` after the model calls
listed in `N.kept`. For all: `start`, `noise`.
"""
import inspect
import json
import math
import pathlib
import sys

import diffusers
import numpy as np
import torch

rng = np.random.default_rng(20241127)
SHAPE = (2, 1, 2, 3)
MOST_STEPS = 50
START = rng.standard_normal(SHAPE).astype(np.float32)
NOISE = rng.standard_normal((MOST_STEPS, *SHAPE)).astype(np.float32)
PLACES = np.arange(12, dtype=np.float64).reshape(SHAPE)
arrays = {'start': START, 'noise': NOISE}
number = 0


def toy(sample, timestep):
    """A smooth function of sample, place and timestep, of deviation 1 or so."""
    sample = sample.astype(np.float64)
    bend = sample / (1.0 + np.abs(sample))
    level = float(timestep) / 1000.0
    output = 0.75 * bend + 0.5 * level * bend * bend + 0.0625 * (PLACES - 5.5) * (1.0 - 0.5 * level)
    return output.astype(np.float32)


def keep(config, run, timesteps, sigmas, initial, samples):
    global number
    calls = len(samples)
    kept = sorted({0, 1, calls // 2, calls - 1} & set(range(calls)))
    samples = np.stack([samples[index] for index in kept])
    assert np.isfinite(samples).all(), (config, run)
    arrays.update({
        f'{number}.config': np.frombuffer(json.dumps(config).encode(), np.uint8),
        f'{number}.run': np.frombuffer(json.dumps(run).encode(), np.uint8),
        f'{number}.timesteps': np.asarray(timesteps, np.float64),
        f'{number}.initial': np.array([initial], np.float32),
        f'{number}.kept': np.array(kept, np.int64),
        f'{number}.samples': samples,
    })
    if sigmas is not None:
        arrays[f'{number}.sigmas'] = np.asarray(sigmas, np.float32)
    number += 1


def mu_of(config, tokens):
    """As diffusers' pipelines do."""
    slope = (config['max_shift'] - config['base_shift']) / (config['max_image_seq_len'] - config['base_image_seq_len'])
    return tokens * slope + config['base_shift'] - slope * config['base_image_seq_len']


def run(name, steps, pipeline=None, tokens=None, given=None, **options):
    scheduler = getattr(diffusers, name)(**options)
    config = {'_class_name': name, **{k: v for k, v in dict(scheduler.config).items() if not k.startswith('_')}}
    known = set(inspect.signature(type(scheduler).__init__).parameters)
    config = {key: value for key, value in config.items() if key in known or key == '_class_name'}
    told = {'steps': steps}
    extra = {}
    if pipeline:
        told['pipeline'] = pipeline
        extra['sigmas'] = np.linspace(1.0, 1 / steps, steps)
    if tokens:
        told['tokens'] = tokens
        extra['mu'] = mu_of({'max_shift': 1.15, 'base_shift': 0.5, 'max_image_seq_len': 4096, 'base_image_seq_len': 256, **config}, tokens)
    if given:
        told.update(given)
        extra = {**extra, **{word: np.array(levels) if word == 'sigmas' else levels for word, levels in given.items()}}
    if 'sigmas' in extra or 'timesteps' in extra:
        scheduler.set_timesteps(**extra)
    else:
        scheduler.set_timesteps(steps, **extra)
    if hasattr(scheduler, 'set_begin_index'):
        scheduler.set_begin_index(0)

    step_index = 0
    module = sys.modules[type(scheduler).__module__]
    if hasattr(module, 'randn_tensor'):
        module.randn_tensor = lambda shape, **_: torch.from_numpy(NOISE[step_index])
    initial = float(scheduler.init_noise_sigma) if hasattr(scheduler, 'init_noise_sigma') else 1.0
    sample = torch.from_numpy(START) * torch.tensor(initial, dtype=torch.float32)
    old, samples = None, []
    timesteps = scheduler.timesteps
    for step_index, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, 'scale_model_input') else sample
        output = torch.from_numpy(toy(scaled.numpy(), float(timestep)))
        if name == 'CogVideoXDPMScheduler':
            back = timesteps[step_index - 1] if step_index > 0 else None
            sample, old = scheduler.step(output, old, timestep, back, sample, return_dict=False)
            sample = sample.to(torch.float32)
        else:
            sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
        samples.append(sample.numpy().copy())
    sigmas = scheduler.sigmas.numpy() if hasattr(scheduler, 'sigmas') else None
    # `log_linear` leaves one that no step reads.
    if sigmas is not None:
        sigmas = sigmas[:len(timesteps) + 1]
    keep(config, told, timesteps.numpy(), sigmas, initial, samples)


def save(name):
    path = pathlib.Path(__file__).with_name(name)
    np.savez_compressed(path, **arrays)
    print(number, 'runs', path.stat().st_size, 'bytes')
