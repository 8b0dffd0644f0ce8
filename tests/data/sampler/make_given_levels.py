"""Writes given_levels.npz: runs of diffusers' schedulers that are given timesteps or sigmas in the place of a number of steps.

Needs numpy, torch and diffusers (made with diffusers 0.42.1, torch CPU). Run: python make_given_levels.py
(`scheduler_runs.py` beside it says what the file holds.)
"""
import numpy as np

from scheduler_runs import run, save

LATENT = dict(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012)
UNEVEN = [999, 901, 640, 333, 332, 120, 7]
# For solvers of the third order, which divide differences of outputs by how far apart levels are: between neighbours that
# multiplies what float32 rounds by hundreds.
APART = [999, 901, 640, 333, 250, 120, 7]


def given(name, word, levels, steps=None, **options):
    run(name, steps or len(levels), given={word: levels}, **options)


given('DDPMScheduler', 'timesteps', UNEVEN, **LATENT, clip_sample=False)
given('LCMScheduler', 'timesteps', UNEVEN)
given('EulerDiscreteScheduler', 'timesteps', UNEVEN, **LATENT)
given('EulerDiscreteScheduler', 'timesteps', [900.5, 512.25, 100.125], **LATENT, timestep_spacing='leading', final_sigmas_type='sigma_min')
given('EulerDiscreteScheduler', 'sigmas', [14.5, 7.25, 3.0, 1.5, 0.625, 0.125, 0.0], steps=6, **LATENT)
given('EulerDiscreteScheduler', 'sigmas', [80.0, 9.0, 1.0, 0.05], steps=3, **LATENT, prediction_type='v_prediction', timestep_type='continuous')
given('HeunDiscreteScheduler', 'timesteps', UNEVEN, **LATENT)
given('DPMSolverMultistepScheduler', 'timesteps', APART, **LATENT, solver_order=3)
given('DPMSolverSinglestepScheduler', 'timesteps', APART, **LATENT, solver_order=3, lower_order_final=True)
given('UniPCMultistepScheduler', 'sigmas', np.linspace(1.0, 0.04, 6).tolist(), prediction_type='flow_prediction', use_flow_sigmas=True,
      flow_shift=3.0)
given('FlowMatchEulerDiscreteScheduler', 'sigmas', [1.0, 0.875, 0.5, 0.3, 0.1], shift=3.0)
given('FlowMatchEulerDiscreteScheduler', 'sigmas', [1.0, 0.7, 0.2], shift=3.0, use_dynamic_shifting=True, tokens=4096)
given('FlowMatchEulerDiscreteScheduler', 'timesteps', [1000.0, 812.5, 333.3, 20.0], shift=3.0)

save('given_levels.npz')
