"""Writes the network and the linear heads of the `lpips` package as `pab-patch quality --lpips` takes them.

Run: pip install lpips onnx safetensors && python export.py alex .      (or vgg, or squeeze)
"""
import pathlib
import sys

import lpips
import safetensors.torch
import torch


def export(measure, path):
    """Feature maps of `measure.net` as NAME.onnx, the heads as NAME.safetensors beside it."""
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        maps = [f'map{index}' for index in range(measure.L)]
        torch.onnx.export(measure.net, (image,), path, dynamo=False, input_names=['image'], output_names=maps,
                          dynamic_axes={name: {0: 'batch', 2: f'{name}_height', 3: f'{name}_width'} for name in ['image', *maps]})
    heads = {f'lin{index}': head.model[-1].weight.detach().flatten() for index, head in enumerate(measure.lins)}
    safetensors.torch.save_file(heads, pathlib.Path(path).with_suffix('.safetensors'))


if __name__ == '__main__':
    name, folder = sys.argv[1:]
    export(lpips.LPIPS(net=name), pathlib.Path(folder) / f'{name}.onnx')
