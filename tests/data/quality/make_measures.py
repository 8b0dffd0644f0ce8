"""Writes measures.json, alex.* and squeeze.*: MS-SSIM, LPIPS and flicker of clips made by a formula that the Rust test has too.

MS-SSIM is that of pytorch-msssim 1.0.0, LPIPS that of lpips 0.1.4 with its own linear heads (v0.1). The weights of the networks
below the heads are not on the package registries, so they are random numbers here, of low rank to keep the files small: layers,
strides and heads are those of the package, the distances are not those that people would measure.

Run: pip install lpips==0.1.4 pytorch-msssim==1.0.0 onnx safetensors && python make_measures.py
"""
import json
import pathlib
import sys

import lpips
import numpy as np
import onnx
import pytorch_msssim
import torch
from onnx import helper, numpy_helper

from make_quality import pixels

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parents[2] / 'docs' / 'lpips'))
from export import export  # noqa: E402

RANK = 3


def with_factors(measure, generator):
    """Gives every convolution weights of low rank, and returns their factors by the parameter's name."""
    factors = {}
    for name, parameter in measure.net.named_parameters():
        if parameter.ndim != 4:
            parameter.data = torch.from_numpy(generator.uniform(-0.1, 0.1, parameter.shape).astype(np.float32))
            continue
        columns = parameter[0].numel()
        left = generator.normal(size=(parameter.shape[0], RANK)).astype(np.float32)
        right = generator.normal(size=(RANK, columns)).astype(np.float32) * np.float32((2 / columns / RANK) ** 0.5)
        parameter.data = torch.from_numpy((left @ right).reshape(parameter.shape))
        factors[name] = (left, right, parameter.shape)
    return factors


def keep_factors(path, factors):
    """Replaces the weights in the file by products of their factors."""
    model = onnx.load(path)
    graph = model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in factors]
    products = []
    for name, (left, right, shape) in factors.items():
        parts = {f'{name}.left': left, f'{name}.right': right, f'{name}.shape': np.array(shape, np.int64)}
        kept += [numpy_helper.from_array(value, key) for key, value in parts.items()]
        products += [helper.make_node('MatMul', [f'{name}.left', f'{name}.right'], [f'{name}.flat']),
                     helper.make_node('Reshape', [f'{name}.flat', f'{name}.shape'], [name])]
    assert len(kept) == len(graph.initializer) + 2 * len(factors)
    nodes = products + list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def clips(shape, share):
    reference, noise, share = pixels(shape, 0), pixels(shape, 5), np.float32(share)
    return reference, reference * (np.float32(1) - share) + noise * share


def frames(clip):
    """[channels, frames, height, width] as a batch of frames."""
    return torch.from_numpy(clip).permute(1, 0, 2, 3)


def change(clip):
    return float(np.abs(np.diff(clip.astype(np.float64), axis=1)).mean())


measures = dict(ms_ssim=[], lpips=[], flicker=[])
for shape, share in [((3, 2, 176, 161), 0.3), ((1, 1, 161, 200), 0.8)]:
    reference, other = clips(shape, share)
    values = pytorch_msssim.ms_ssim(frames(reference).double(), frames(other).double(), data_range=1, size_average=False)
    measures['ms_ssim'].append(dict(shape=shape, share=share, frames=values.tolist()))
for name in ['alex', 'squeeze']:
    measure = lpips.LPIPS(net=name, pnet_rand=True, verbose=False)
    factors = with_factors(measure, np.random.default_rng(7))
    export(measure, str(HERE / f'{name}.onnx'))
    keep_factors(HERE / f'{name}.onnx', factors)
    for shape, share in [((3, 2, 64, 64), 0.2), ((3, 1, 40, 75), 0.7), ((1, 1, 64, 48), 0.4)]:
        reference, other = clips(shape, share)
        with torch.no_grad():
            one, two = (frames(clip).expand(-1, 3, -1, -1) for clip in (reference, other))
            values = measure(one, two, normalize=True).flatten()
        measures['lpips'].append(dict(network=name, shape=shape, share=share, frames=values.tolist()))
for shape, share in [((3, 4, 12, 16), 0.2)]:
    reference, other = clips(shape, share)
    measures['flicker'].append(dict(shape=shape, share=share, reference=change(reference), other=change(other),
                                    difference=change(other.astype(np.float64) - reference.astype(np.float64))))
(HERE / 'measures.json').write_text(json.dumps(measures, indent=1) + '\n')
