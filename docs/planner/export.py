"""Exports the graphs of full-size video transformers without their weights, for `pab-patch plan`.

    python docs/planner/export.py [NAME ...]        (made with torch 2.15, diffusers 0.42, onnx 1.23)

The planner needs shapes only. So the models are made on the meta device and given memory that nobody fills, the exporter
traces them without computing, and every large tensor of the result refers to a file that does not exist. All graphs
together become `graphs.tar.xz` beside this file. With names, only these are exported anew, into the folder `graphs`.

- Latte: diffusers' `LatteTransformer3DModel` with the configuration of Latte-1, 512 x 512.
- Open-Sora-Plan 1.1: the same blocks (its LatteT2V is Latte's), with its latent sizes and 300 text tokens; its rotary
  embeddings, which are elementwise work, are left out.
- Open-Sora 1.2: STDiT3-XL/2, and Open-Sora 1.0: STDiT-XL/2, written here from the papers' and reports' description: widths,
  depths and what each block is made of. Text is counted in full (300 and 120 tokens), no tokens are masked out.
"""
import io
import sys
import tarfile
from pathlib import Path

import onnx
import onnx_ir
import torch
from diffusers import LatteTransformer3DModel
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent
WIDTH, HEADS, DEPTH = 1152, 16, 28
SMALLEST = 1024


class Latte(nn.Module):
    """Latte with positional inputs and a tensor as output."""

    def __init__(self, frames):
        super().__init__()
        self.model = LatteTransformer3DModel(
            num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, in_channels=4, out_channels=8, num_layers=DEPTH,
            cross_attention_dim=WIDTH, attention_bias=True, sample_size=64, patch_size=2, activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
            caption_channels=4096, video_length=frames,
        )

    def forward(self, latent, timestep, text):
        return self.model(latent, timestep=timestep, encoder_hidden_states=text, return_dict=False)[0]


class RootMeanSquare(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * (wide * scale).to(x.dtype)


class SelfAttention(nn.Module):
    def __init__(self, normalized, rotary_length):
        super().__init__()
        self.qkv, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        head = WIDTH // HEADS
        self.query_norm = RootMeanSquare(head) if normalized else nn.Identity()
        self.key_norm = RootMeanSquare(head) if normalized else nn.Identity()
        self.rotary = rotary_length > 0
        if self.rotary:
            self.register_buffer("cosine", torch.empty(rotary_length, head))
            self.register_buffer("sine", torch.empty(rotary_length, head))

    def rotate(self, x):
        pairs = x.unflatten(-1, (-1, 2))
        turned = torch.stack((-pairs[..., 1], pairs[..., 0]), -1).flatten(-2)
        return x * self.cosine + turned * self.sine

    def forward(self, x):
        rows, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(rows, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.query_norm(q), self.key_norm(k)
        if self.rotary:
            q, k = self.rotate(q), self.rotate(k)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.projection(mixed.transpose(1, 2).reshape(rows, tokens, width))


class CrossAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key_value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.projection = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, text):
        rows, tokens, width = x.shape
        q = self.query(x).reshape(rows, tokens, HEADS, width // HEADS).transpose(1, 2)
        k, v = self.key_value(text).reshape(rows, -1, 2, HEADS, width // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.projection(mixed.transpose(1, 2).reshape(rows, tokens, width))


def feed_forward(inner, outer, hidden):
    return nn.Sequential(nn.Linear(inner, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, outer))


def modulated(x, shift, scale):
    return x * (1 + scale) + shift


def norm():
    return nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-6)


def by_frame(module, x, frames):
    rows, tokens, width = x.shape
    return module(x.reshape(rows * frames, -1, width)).reshape(rows, tokens, width)


def by_place(module, x, frames):
    rows, tokens, width = x.shape
    over = x.reshape(rows, frames, -1, width).transpose(1, 2)
    mixed = module(over.reshape(-1, frames, width)).reshape(over.shape)
    return mixed.transpose(1, 2).reshape(rows, tokens, width)


class Block3(nn.Module):
    """A block of STDiT3: one attention, over places or over frames, cross attention, feed-forward."""

    def __init__(self, temporal, frames):
        super().__init__()
        self.over = by_place if temporal else by_frame
        self.attention = SelfAttention(True, frames if temporal else 0)
        self.cross, self.mlp = CrossAttention(), feed_forward(WIDTH, WIDTH, 4 * WIDTH)
        self.norm1, self.norm2 = norm(), norm()
        self.table = nn.Parameter(torch.empty(6, WIDTH))

    def forward(self, x, text, time, frames):
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.table[None] + time.reshape(-1, 6, WIDTH)).chunk(6, 1)
        x = x + gate1 * self.over(self.attention, modulated(self.norm1(x), shift1, scale1), frames)
        x = x + self.cross(x, text)
        return x + gate2 * self.mlp(modulated(self.norm2(x), shift2, scale2))


class Block1(nn.Module):
    """A block of STDiT: spatial attention, temporal attention, cross attention, feed-forward."""

    def __init__(self):
        super().__init__()
        self.spatial, self.temporal = SelfAttention(False, 0), SelfAttention(False, 0)
        self.cross, self.mlp = CrossAttention(), feed_forward(WIDTH, WIDTH, 4 * WIDTH)
        self.norm1, self.norm2 = norm(), norm()
        self.table = nn.Parameter(torch.empty(6, WIDTH))

    def forward(self, x, text, time, frames):
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.table[None] + time.reshape(-1, 6, WIDTH)).chunk(6, 1)
        x = x + gate1 * by_frame(self.spatial, modulated(self.norm1(x), shift1, scale1), frames)
        x = x + gate1 * by_place(self.temporal, x, frames)
        x = x + self.cross(x, text)
        return x + gate2 * self.mlp(modulated(self.norm2(x), shift2, scale2))


class SpatialTemporal(nn.Module):
    """Patches, blocks, and back: what STDiT and STDiT3 have in common."""

    def __init__(self, blocks, places):
        super().__init__()
        self.patches = nn.Conv3d(4, WIDTH, (1, 2, 2), (1, 2, 2))
        self.register_buffer("position", torch.empty(1, 1, places, WIDTH))
        self.register_buffer("frequencies", torch.empty(128))
        self.time = nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.time_table = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))
        self.text = feed_forward(4096, WIDTH, WIDTH)
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.last = norm(), nn.Linear(WIDTH, 4 * 8)
        self.table = nn.Parameter(torch.empty(2, WIDTH))

    def forward(self, latent, timestep, text):
        rows, _, frames, height, width = latent.shape
        x = self.patches(latent).flatten(3).permute(0, 2, 3, 1) + self.position
        x = x.reshape(rows, -1, WIDTH)
        angles = timestep[:, None].to(latent.dtype) * self.frequencies[None]
        time = self.time(torch.cat((angles.cos(), angles.sin()), -1))
        table, text = self.time_table(time), self.text(text)
        for block in self.blocks:
            x = block(x, text, table, frames)
        shift, scale = (self.table[None] + time[:, None]).chunk(2, 1)
        x = self.last(modulated(self.norm(x), shift, scale))
        x = x.reshape(rows, frames, height // 2, width // 2, 2, 2, 8).permute(0, 6, 1, 2, 4, 3, 5)
        return x.reshape(rows, 8, frames, height, width)


def open_sora_12(frames):
    blocks = (Block3(temporal, frames) for _ in range(DEPTH) for temporal in (False, True))
    return SpatialTemporal(blocks, 30 * 53)


def open_sora_10(frames):
    return SpatialTemporal((Block1() for _ in range(DEPTH)), 32 * 32)


# Name: the model, frames of the latent, its height and width, text tokens.
MODELS = {
    "latte-16": (Latte, 16, 64, 64, 120),
    "latte-128": (Latte, 128, 64, 64, 120),
    "open-sora-plan-65": (Latte, 17, 64, 64, 300),
    "open-sora-plan-221": (Latte, 56, 64, 64, 300),
    "open-sora-1.2-51": (open_sora_12, 15, 60, 106, 300),
    "open-sora-1.2-192": (open_sora_12, 57, 60, 106, 300),
    "open-sora-1.0-80": (open_sora_10, 80, 64, 64, 120),
}


def weightless(model):
    """Large tensors refer to a file that is not there; what only people read is taken out."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor.nbytes >= SMALLEST:
            value.const_value = onnx_ir.ExternalTensor(
                "not-kept.bin", 0, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=value.name)
    proto = onnx_ir.to_proto(model)
    del proto.graph.value_info[:], proto.metadata_props[:], proto.graph.metadata_props[:]
    for node in proto.graph.node:
        node.doc_string = node.name = ""
        del node.metadata_props[:]
    for holder in [*proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        del holder.metadata_props[:]
    return proto


def export(build, frames, height, width, tokens):
    with torch.device("meta"):
        model = build(frames).eval().requires_grad_(False).half()
    model = model.to_empty(device="cpu")
    empty = lambda *shape: torch.empty(shape, dtype=torch.float16)
    # Two halves of guidance.
    inputs = empty(2, 4, frames, height, width), torch.zeros(2, dtype=torch.int64), empty(2, tokens, 4096)
    program = torch.onnx.export(model, inputs, input_names=["latent", "timestep", "text"], output_names=["sample"],
                                opset_version=23, dynamo=True, verbose=False)
    return weightless(program.model)


def main():
    wanted = sys.argv[1:] or list(MODELS)
    folder = HERE / "graphs"
    folder.mkdir(exist_ok=True)
    for name in wanted:
        onnx.save(export(*MODELS[name]), folder / f"{name}.onnx")
    if not all((folder / f"{name}.onnx").exists() for name in MODELS):
        return
    with tarfile.open(HERE / "graphs.tar.xz", "w:xz", preset=9) as archive:
        for name in MODELS:
            data = (folder / f"{name}.onnx").read_bytes()
            entry = tarfile.TarInfo(f"{name}.onnx")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main()
