"""Writes schedulers.npz: runs of diffusers' schedulers, by the configurations of published models and some more.

Needs numpy, scipy, torch and diffusers (made with diffusers 0.42.1, torch CPU). Run: python make_schedulers.py
(`scheduler_runs.py` beside it says what the file holds.)

`OpenSoraRFlowScheduler` is not diffusers': here it is worked out in float32 from the description of VideoSys' `RFLOW`
(videosys/schedulers/scheduling_rflow_open_sora.py, commit 191c275): the velocity points from noise to clean sample, and
timesteps are shifted by the square root of pixels over 512 * 512 and latent frames.
"""
import numpy as np

from scheduler_runs import START, keep, run, save, toy


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

save('schedulers.npz')
