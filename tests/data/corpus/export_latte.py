"""Exports small Latte models to ONNX in the ways that people export them: the corpus of the analysis' tests.

    python export_latte.py [FOLDER]        (made with torch 2.15, diffusers 0.42, onnx 1.23, onnxruntime 1.31)

The architecture is diffusers' `LatteTransformer3DModel`; the weights are seeded noise, none of them zero. Every size is
different, so that axes can be told apart by size (`latte`), or as many are equal as can be, so that they cannot
(`latte_equal`). Stack traces, which hold paths of the exporting machine, are taken out of the metadata.
"""
import json
import random
import sys
from pathlib import Path

import onnx
import onnxruntime
import torch
from diffusers import LatteTransformer3DModel
from diffusers.models.attention_processor import Attention, AttnProcessor

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
SIZES = {
    "latte": dict(batch=2, frames=3, height=4, width=4, text=5),
    # 4 frames, 2 x 2 patches, 4 text tokens, batch of 4.
    "latte_equal": dict(batch=4, frames=4, height=4, width=4, text=4),
}
INPUTS = ["hidden_states", "timestep", "encoder_hidden_states"]
DROPPED = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node", "pkg.torch.onnx.class_hierarchy")


def build(sizes):
    torch.manual_seed(0)
    model = LatteTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=16, attention_bias=True, sample_size=sizes["height"], patch_size=2,
        activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
        norm_elementwise_affine=False, norm_eps=1e-6, caption_channels=24, video_length=sizes["frames"],
    ).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


class Plain(torch.nn.Module):
    """Latte with positional inputs and a tensor as output."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, hidden_states, timestep, encoder_hidden_states):
        return self.model(hidden_states, timestep=timestep, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]


def example(sizes, dtype=torch.float32):
    latent = torch.randn(sizes["batch"], 4, sizes["frames"], sizes["height"], sizes["width"], dtype=dtype)
    return latent, torch.full((sizes["batch"],), 500), torch.randn(sizes["batch"], sizes["text"], 24, dtype=dtype)


def torchscript(model, inputs, path, dynamic):
    axes = {"hidden_states": {0: "batch"}, "timestep": {0: "batch"}, "encoder_hidden_states": {0: "batch", 1: "text"}}
    torch.onnx.export(Plain(model), inputs, path, input_names=INPUTS, output_names=["sample"], opset_version=17,
                      dynamo=False, dynamic_axes={**axes, "sample": {0: "batch"}} if dynamic else None)


def dynamo(model, inputs, path, opset, dynamic):
    batch, text = torch.export.Dim("batch"), torch.export.Dim("text")
    shapes = ({0: batch}, {0: batch}, {0: batch, 1: text}) if dynamic else None
    program = torch.onnx.export(Plain(model), inputs, input_names=INPUTS, output_names=["sample"], opset_version=opset,
                                dynamo=True, dynamic_shapes=shapes, verbose=False)
    proto = program.model_proto
    for holder in [*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, proto.graph, proto]:
        kept = [entry for entry in holder.metadata_props if entry.key not in DROPPED]
        del holder.metadata_props[:]
        holder.metadata_props.extend(kept)
    onnx.save(proto, path)


def anonymous(source, path):
    """Every name replaced by a random one, and everything that names modules taken out."""
    proto, names, source_of_names = onnx.load(source), {"": ""}, random.Random(0)
    rename = lambda name: names.setdefault(name, f"n{source_of_names.randrange(10**9):09d}")
    graph = proto.graph
    for node in graph.node:
        node.name, node.doc_string = rename("node:" + node.name), ""
        del node.metadata_props[:]
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for named in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        named.name = rename(named.name)
    graph.name = "anonymous"
    onnx.save(proto, path)


def optimized(source, path):
    """What ONNX Runtime's extended optimizations make of it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def main():
    for name, sizes in SIZES.items():
        model, inputs = build(sizes), example(sizes)
        torchscript(model, inputs, FOLDER / f"{name}.ts17.static.onnx", False)
        dynamo(model, inputs, FOLDER / f"{name}.dyn18.dynamic.onnx", 18, True)
        if name != "latte":
            continue
        torchscript(model, inputs, FOLDER / "latte.ts17.dynamic.onnx", True)
        dynamo(model, inputs, FOLDER / "latte.dyn23.static.onnx", 23, False)
        dynamo(model, inputs, FOLDER / "static18.onnx", 18, False)
        optimized(FOLDER / "static18.onnx", FOLDER / "latte.dyn18.static.ortext.onnx")
        (FOLDER / "static18.onnx").unlink()
        anonymous(FOLDER / "latte.ts17.dynamic.onnx", FOLDER / "latte.ts17.dynamic.anon.onnx")
        anonymous(FOLDER / "latte.dyn23.static.onnx", FOLDER / "latte.dyn23.static.anon.onnx")
        torchscript(build(sizes).half(), example(sizes, torch.float16), FOLDER / "latte_fp16.ts17.static.onnx", False)
        eager = build(sizes)
        for module in eager.modules():
            if isinstance(module, Attention):
                module.set_processor(AttnProcessor())
        torchscript(eager, inputs, FOLDER / "latte_eager.ts17.static.onnx", False)
    kinds = lambda module: "temporal" if module.startswith("temporal") else "spatial" if module.endswith("attn1") else "cross"
    modules = [module for module, _ in build(SIZES["latte"]).named_modules() if module.endswith(("attn1", "attn2"))]
    attention = [dict(module=module, kind=kinds(module), block=int(module.split(".")[1])) for module in modules]
    (FOLDER / "truth.json").write_text(json.dumps(dict(sizes=SIZES, width=16, heads=2, patch=2, attention=attention), indent=1) + "\n")


if __name__ == "__main__":
    main()
