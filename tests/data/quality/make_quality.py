"""Writes quality.json: scikit-image's PSNR and SSIM of clips made by a formula that the Rust test has too.

Made with scikit-image 0.26.0. Run: python make_quality.py
"""
import json
import pathlib

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def pixels(shape, salt):
    index = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    return (((index * (7919 + 2 * salt) + index * index * 31) % 1009).astype(np.float32) / np.float32(1008)).reshape(shape)


cases = []
for shape, share in [((3, 4, 32, 32), 0.1), ((3, 2, 11, 11), 0.3), ((1, 3, 16, 25), 0.02), ((3, 1, 40, 12), 0.9)]:
    reference, noise, share32 = pixels(shape, 0), pixels(shape, 5), np.float32(share)
    other = reference * (np.float32(1) - share32) + noise * share32
    a, b = reference.astype(np.float64), other.astype(np.float64)
    frames = [
        dict(
            psnr=peak_signal_noise_ratio(a[:, t], b[:, t], data_range=1),
            ssim=structural_similarity(a[:, t], b[:, t], gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                       data_range=1, channel_axis=0),
        )
        for t in range(shape[1])
    ]
    cases.append(dict(shape=shape, share=share, psnr=peak_signal_noise_ratio(a, b, data_range=1),
                      ssim=float(np.mean([frame['ssim'] for frame in frames])), frames=frames))
pathlib.Path(__file__).with_name('quality.json').write_text(json.dumps(cases, indent=1) + '\n')
