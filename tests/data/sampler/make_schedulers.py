"""Writes schedulers.npz: runs of diffusers' schedulers, by the configurations of published models and some more.

Needs numpy, scipy, torch and diffusers (made with diffusers 0.42.1, torch CPU). Run: python make_schedulers.py

The model is a toy, `toy` below: of basic operations in float64 alone, so that anyone who has the same input computes the
same output. A run feeds its own samples back for all its steps, as a pipeline does, from `start` times
`init_noise_sigma`. Where a scheduler draws noise, it gets `noise[step]` in the place of its own.

For each run N: `N.config` (the scheduler_config.json as bytes), `N.run` (steps, and what else the scheduler was told, as
JSON bytes), `N.timesteps`, `N.sigmas` (where there are some), `N.initial`, `N.samples [kept, 2, 1, 2, 3]` after the
model calls listed in `N.kept`. For all: `start`, `noise`.

`OpenSoraRFlowScheduler` is not diffusers': here it is worked out in float32 from the description of VideoSys' `RFLOW`
(videosys/schedulers/scheduling_rflow_open_sora.py, commit 191c275): the velocity points from noise to clean sample, and
timesteps are shifted by the square root of pixels over 512 * 512 and latent frames.
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
        extra = {**extra, **given}
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


def rectified_flow(steps, video, discrete=False, transform=True):
    single = np.float32
    timesteps = [(1.0 - index / steps) * 1000 for index in range(steps)]
    timesteps = np.array([round(timestep) for timestep in timesteps] if discrete else timesteps, single)
    frames, height, width = video
    if transform:
        ratio = np.sqrt(single(height * width) / single(512 * 512)) * np.sqrt(single(1 if frames == 1 else frames // 17 * 5))
        time = timesteps / single(1000)
        timesteps = ratio * time / (1 + (ratio - 1) * time) * single(1000)
    sample, samples = START, []
    for index, timestep in enumerate(timesteps):
        end = timesteps[index + 1] if index + 1 < steps else single(0)
        sample = sample + toy(sample, timestep) * ((timestep - end) / single(1000))
        samples.append(sample)
    config = {'_class_name': 'OpenSoraRFlowScheduler', 'num_timesteps': 1000, 'use_discrete_timesteps': discrete,
              'use_timestep_transform': transform}
    keep(config, {'steps': steps, 'video': list(video)}, timesteps, None, 1.0, samples)


def each(steps, name, **options):
    for count in steps:
        run(name, count, **options)


LATENT = dict(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012)
ALL = (5, 10, 20, 30, 50)
SOME = (6, 20, 33)

# Stable Diffusion 1.5; whole PNDM.
each(ALL + (1, 2), 'PNDMScheduler', **LATENT, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
each(ALL, 'PNDMScheduler', **LATENT)
each((20,), 'PNDMScheduler', **LATENT, skip_prk_steps=True, prediction_type='v_prediction', timestep_spacing='trailing')
each((7,), 'PNDMScheduler', set_alpha_to_one=True, prediction_type='v_prediction', timestep_spacing='linspace')

each(ALL, 'DDPMScheduler', **LATENT, clip_sample=False, steps_offset=1)
each(SOME, 'DDPMScheduler', beta_schedule='squaredcos_cap_v2', variance_type='fixed_small_log')
each(SOME, 'DDPMScheduler', beta_schedule='sigmoid', variance_type='fixed_large', prediction_type='sample', thresholding=True, sample_max_value=1.5)
each(SOME, 'DDPMScheduler', beta_schedule='laplace', prediction_type='v_prediction', timestep_spacing='trailing', clip_sample_range=2.0)

# SDXL; Stable Video Diffusion.
each(ALL, 'EulerDiscreteScheduler', **LATENT, timestep_spacing='leading', steps_offset=1)
each(ALL, 'EulerDiscreteScheduler', **LATENT, prediction_type='v_prediction', timestep_type='continuous', timestep_spacing='leading',
     steps_offset=1, use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0)
each(SOME, 'EulerDiscreteScheduler', **LATENT, use_karras_sigmas=True, final_sigmas_type='sigma_min')
each(SOME, 'EulerDiscreteScheduler', **LATENT, use_exponential_sigmas=True, timestep_spacing='trailing')
each(SOME, 'EulerDiscreteScheduler', **LATENT, use_beta_sigmas=True, prediction_type='sample')
each(SOME, 'EulerDiscreteScheduler', **LATENT, interpolation_type='log_linear')
each(SOME, 'EulerDiscreteScheduler', **LATENT, prediction_type='v_prediction', rescale_betas_zero_snr=True, timestep_spacing='trailing')

each(ALL, 'EulerAncestralDiscreteScheduler', **LATENT, timestep_spacing='leading', steps_offset=1)
each(SOME, 'EulerAncestralDiscreteScheduler', prediction_type='v_prediction')
each(SOME, 'EulerAncestralDiscreteScheduler', **LATENT, timestep_spacing='trailing')

each(ALL, 'HeunDiscreteScheduler', **LATENT, timestep_spacing='leading', steps_offset=1)
each(SOME, 'HeunDiscreteScheduler', **LATENT, use_karras_sigmas=True, prediction_type='v_prediction')
each(SOME, 'HeunDiscreteScheduler', beta_schedule='exp', use_exponential_sigmas=True, clip_sample=True, prediction_type='sample')
each(SOME, 'HeunDiscreteScheduler', **LATENT, use_beta_sigmas=True)
each((1, 2), 'HeunDiscreteScheduler', **LATENT)

# PixArt; Sana.
each(ALL, 'DPMSolverMultistepScheduler', lambda_min_clipped=-float('inf'), variance_type='learned_range')
each(ALL, 'DPMSolverMultistepScheduler', prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=3.0)
each(ALL, 'DPMSolverMultistepScheduler', **LATENT, use_karras_sigmas=True, algorithm_type='sde-dpmsolver++')
each(SOME, 'DPMSolverMultistepScheduler', **LATENT, solver_order=3, timestep_spacing='leading', steps_offset=1)
each(SOME, 'DPMSolverMultistepScheduler', **LATENT, solver_order=3, solver_type='heun', timestep_spacing='trailing', algorithm_type='sde-dpmsolver++')
each(SOME, 'DPMSolverMultistepScheduler', **LATENT, solver_type='heun', final_sigmas_type='sigma_min', lower_order_final=False)
each(SOME, 'DPMSolverMultistepScheduler', **LATENT, solver_type='heun', algorithm_type='sde-dpmsolver++', use_beta_sigmas=True)
each(SOME, 'DPMSolverMultistepScheduler', **LATENT, use_exponential_sigmas=True, prediction_type='v_prediction', euler_at_final=True)
each(SOME, 'DPMSolverMultistepScheduler', beta_schedule='squaredcos_cap_v2', use_karras_sigmas=True, prediction_type='sample')
each(SOME, 'DPMSolverMultistepScheduler', beta_schedule='squaredcos_cap_v2', lambda_min_clipped=-5.1, thresholding=True, sample_max_value=1.2)
each((12,), 'DPMSolverMultistepScheduler', **LATENT, rescale_betas_zero_snr=True, prediction_type='v_prediction', timestep_spacing='trailing')
each((12,), 'DPMSolverMultistepScheduler', prediction_type='flow_prediction', use_flow_sigmas=True, use_dynamic_shifting=True, tokens=1024)

each(ALL, 'DPMSolverSinglestepScheduler', **LATENT)
each(ALL, 'DPMSolverSinglestepScheduler', **LATENT, solver_order=3, lower_order_final=True, use_karras_sigmas=True)
each(SOME, 'DPMSolverSinglestepScheduler', **LATENT, solver_order=3, solver_type='heun', final_sigmas_type='sigma_min')
each(SOME, 'DPMSolverSinglestepScheduler', **LATENT, solver_type='heun', algorithm_type='sde-dpmsolver++', prediction_type='v_prediction')
each(SOME, 'DPMSolverSinglestepScheduler', **LATENT, solver_order=3, algorithm_type='sde-dpmsolver++', use_exponential_sigmas=True)
each(SOME, 'DPMSolverSinglestepScheduler', prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=5.0)

# Wan; HunyuanVideo's shift.
each(ALL, 'UniPCMultistepScheduler', prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=3.0)
each(ALL, 'UniPCMultistepScheduler', **LATENT, timestep_spacing='trailing')
each(SOME, 'UniPCMultistepScheduler', prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=5.0, solver_order=3)
each(SOME, 'UniPCMultistepScheduler', prediction_type='flow_prediction', use_flow_sigmas=True, use_dynamic_shifting=True, shift_terminal=0.1,
     tokens=2048)
each(SOME, 'UniPCMultistepScheduler', prediction_type='flow_prediction', use_flow_sigmas=True, use_karras_sigmas=True,
     final_sigmas_type='sigma_min')
each(SOME, 'UniPCMultistepScheduler', **LATENT, solver_order=3, solver_type='bh1', final_sigmas_type='sigma_min', lower_order_final=False)
each(SOME, 'UniPCMultistepScheduler', **LATENT, solver_order=3, use_karras_sigmas=True)
each(SOME, 'UniPCMultistepScheduler', **LATENT, predict_x0=False, prediction_type='v_prediction', final_sigmas_type='sigma_min', disable_corrector=[0, 1])
each(SOME, 'UniPCMultistepScheduler', **LATENT, use_exponential_sigmas=True, thresholding=True, sample_max_value=2.0)
each(SOME, 'UniPCMultistepScheduler', **LATENT, use_beta_sigmas=True, prediction_type='sample', lower_order_final=True)
each(SOME, 'UniPCMultistepScheduler', **LATENT, timestep_spacing='leading', steps_offset=1, solver_order=4)

each((1, 4, 8, 10, 20, 30, 50), 'LCMScheduler', clip_sample=False)
each((3, 7), 'LCMScheduler', prediction_type='v_prediction', original_inference_steps=100, thresholding=True)
each((4,), 'LCMScheduler', prediction_type='sample', clip_sample=True, timestep_scaling=4.0)

# SD3; HunyuanVideo; Flux; LTX; Qwen; Mochi's inversion; Sana's sampling with noise.
each(ALL, 'FlowMatchEulerDiscreteScheduler', shift=3.0)
each(ALL, 'FlowMatchEulerDiscreteScheduler', shift=7.0, pipeline='HunyuanVideoPipeline')
each(ALL, 'FlowMatchEulerDiscreteScheduler', shift=3.0, use_dynamic_shifting=True, pipeline='FluxPipeline', tokens=4096)
each(ALL, 'FlowMatchEulerDiscreteScheduler', use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
     shift_terminal=0.1, pipeline='LTXPipeline', tokens=4992)
each(SOME, 'FlowMatchEulerDiscreteScheduler', use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02,
     time_shift_type='linear', pipeline='QwenImagePipeline', tokens=1600)
each(SOME, 'FlowMatchEulerDiscreteScheduler', use_karras_sigmas=True)
each(SOME, 'FlowMatchEulerDiscreteScheduler', use_exponential_sigmas=True, shift=2.0)
each(SOME, 'FlowMatchEulerDiscreteScheduler', use_beta_sigmas=True)
each(SOME, 'FlowMatchEulerDiscreteScheduler', invert_sigmas=True)
each(SOME, 'FlowMatchEulerDiscreteScheduler', stochastic_sampling=True, shift=3.0)

COGVIDEOX = dict(prediction_type='v_prediction', rescale_betas_zero_snr=True, timestep_spacing='trailing')
for name in ('CogVideoXDDIMScheduler', 'CogVideoXDPMScheduler'):
    each(ALL, name, **COGVIDEOX, snr_shift_scale=1.0)
    each(SOME, name, **COGVIDEOX)
    each(SOME, name, timestep_spacing='leading', beta_schedule='linear')

# Latte; DDIM has oracles of its own too.
each(ALL, 'DDIMScheduler', beta_schedule='linear', clip_sample=False, set_alpha_to_one=True)

for steps in ALL:
    rectified_flow(steps, (51, 240, 426))
rectified_flow(30, (1, 720, 1280))
rectified_flow(7, (102, 480, 854), discrete=True)
rectified_flow(7, (17, 512, 512), transform=False)

# Levels that are given in the place of a number of steps.
UNEVEN = [999, 901, 640, 333, 332, 120, 7]


def given(name, word, levels, steps=None, **options):
    run(name, steps or len(levels), given={word: levels}, **options)


given('DDPMScheduler', 'timesteps', UNEVEN, **LATENT, clip_sample=False)
given('LCMScheduler', 'timesteps', UNEVEN)
given('EulerDiscreteScheduler', 'timesteps', UNEVEN, **LATENT)
given('EulerDiscreteScheduler', 'timesteps', [900.5, 512.25, 100.125], **LATENT, timestep_spacing='leading', final_sigmas_type='sigma_min')
given('EulerDiscreteScheduler', 'sigmas', [14.5, 7.25, 3.0, 1.5, 0.625, 0.125, 0.0], steps=6, **LATENT)
given('EulerDiscreteScheduler', 'sigmas', [80.0, 9.0, 1.0, 0.05], steps=3, **LATENT, prediction_type='v_prediction', timestep_type='continuous')
given('HeunDiscreteScheduler', 'timesteps', UNEVEN, **LATENT)
given('DPMSolverMultistepScheduler', 'timesteps', UNEVEN, **LATENT, solver_order=3)
given('DPMSolverSinglestepScheduler', 'timesteps', UNEVEN, **LATENT, solver_order=3, lower_order_final=True)
given('UniPCMultistepScheduler', 'sigmas', np.linspace(1.0, 0.04, 6).tolist(), prediction_type='flow_prediction', use_flow_sigmas=True,
      flow_shift=3.0)
given('FlowMatchEulerDiscreteScheduler', 'sigmas', [1.0, 0.875, 0.5, 0.3, 0.1], shift=3.0)
given('FlowMatchEulerDiscreteScheduler', 'sigmas', [1.0, 0.7, 0.2], shift=3.0, use_dynamic_shifting=True, tokens=4096)
given('FlowMatchEulerDiscreteScheduler', 'timesteps', [1000.0, 812.5, 333.3, 20.0], shift=3.0)

path = pathlib.Path(__file__).with_name('schedulers.npz')
np.savez_compressed(path, **arrays)
print(number, 'runs', path.stat().st_size, 'bytes')
