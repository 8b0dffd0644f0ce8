"""Exports small transformers of other architectures, and says which attention and feed-forward modules PyTorch has.

    python tests/data/corpus/export_models.py [FOLDER]

Needs torch (2.13), diffusers (0.42), onnx (1.23) and onnxscript. The weights are random. Each model gets a folder of its
own with TorchScript (opset 17) and dynamo (opset 23) exports, the first of them once more with every name replaced by a
random one, and `truth.json`. ONNX Runtime refuses what dynamo makes of DiT and PixArt, and TorchScript cannot export
Kandinsky 5. Sizes of axes differ, so that
they can be told apart by size; none is 1, which is also the size of an axis that is broadcast.
"""
import json
import random
import sys
from pathlib import Path

import diffusers
import onnx
import torch

from weights import graphs, take_out

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
DROPPED = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node", "pkg.torch.onnx.class_hierarchy")
HEADS = dict(num_attention_heads=2, attention_head_dim=8)


def cogvideox():
    model = diffusers.CogVideoXTransformer3DModel(
        **HEADS, in_channels=4, out_channels=4, time_embed_dim=8, text_embed_dim=12, num_layers=2, sample_width=8,
        sample_height=8, sample_frames=9, max_text_seq_length=5, patch_size=2,
    )
    inputs = dict(hidden_states=torch.randn(2, 3, 4, 8, 8), encoder_hidden_states=torch.randn(2, 5, 12),
                  timestep=torch.full((2,), 500))
    return model, inputs, dict(batch=2, frames=3, height=8, width=8, text=5), {}


def flux():
    model = diffusers.FluxTransformer2DModel(
        **HEADS, patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, joint_attention_dim=12,
        pooled_projection_dim=10, guidance_embeds=True, axes_dims_rope=(2, 2, 4),
    )
    rows = torch.stack(torch.meshgrid(torch.zeros(1), torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1)
    inputs = dict(hidden_states=torch.randn(2, 16, 4), encoder_hidden_states=torch.randn(2, 5, 12),
                  pooled_projections=torch.randn(2, 10), timestep=torch.full((2,), 0.5),
                  img_ids=rows.reshape(-1, 3), txt_ids=torch.zeros(5, 3), guidance=torch.full((2,), 3.5))
    batch, text = torch.export.Dim("batch"), torch.export.Dim("text")
    dynamic = dict(hidden_states={0: batch}, encoder_hidden_states={0: batch, 1: text}, pooled_projections={0: batch},
                   timestep={0: batch}, img_ids={}, txt_ids={0: text}, guidance={0: batch})
    return model, inputs, dict(batch=2, tokens=16, text=5), dynamic


def sd3():
    """Stable Diffusion 3.5: a second attention of the latent alone in the first block, no text behind the last one."""
    model = diffusers.SD3Transformer2DModel(
        **HEADS, sample_size=8, patch_size=2, in_channels=4, num_layers=3, joint_attention_dim=12,
        caption_projection_dim=16, pooled_projection_dim=10, out_channels=4, pos_embed_max_size=8,
        dual_attention_layers=(0,), qk_norm="rms_norm",
    )
    inputs = dict(hidden_states=torch.randn(2, 4, 8, 8), encoder_hidden_states=torch.randn(2, 5, 12),
                  pooled_projections=torch.randn(2, 10), timestep=torch.full((2,), 500.0))
    return model, inputs, dict(batch=2, height=8, width=8, text=5), {}


def dit():
    model = diffusers.DiTTransformer2DModel(
        **HEADS, in_channels=4, out_channels=4, num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=10,
    )
    inputs = dict(hidden_states=torch.randn(3, 4, 8, 8), timestep=torch.full((3,), 500), class_labels=torch.arange(3))
    return model, inputs, dict(batch=3, height=8, width=8), {}


def pixart():
    model = diffusers.PixArtTransformer2DModel(
        **HEADS, in_channels=4, out_channels=4, num_layers=2, cross_attention_dim=16, sample_size=8, patch_size=2,
        caption_channels=12, use_additional_conditions=False, norm_type="ada_norm_single",
    )
    inputs = dict(hidden_states=torch.randn(2, 4, 8, 8), encoder_hidden_states=torch.randn(2, 5, 12),
                  timestep=torch.full((2,), 500))
    return model, inputs, dict(batch=2, height=8, width=8, text=5), {}


def sana():
    """Linear attention without softmax, feed-forwards of convolutions."""
    model = diffusers.SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=4,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=12, sample_size=8,
    )
    inputs = dict(hidden_states=torch.randn(2, 4, 6, 8), encoder_hidden_states=torch.randn(2, 5, 12),
                  timestep=torch.full((2,), 500.0))
    return model, inputs, dict(batch=2, height=6, width=8, text=5), {}


def hunyuandit():
    """Two texts of two lengths, skips from the first blocks to the last, a note on the pooling of the second text."""
    model = diffusers.HunyuanDiT2DModel(
        **HEADS, in_channels=4, patch_size=2, sample_size=8, hidden_size=16, num_layers=4, mlp_ratio=2,
        cross_attention_dim=12, cross_attention_dim_t5=16, pooled_projection_dim=6, text_len=5, text_len_t5=7,
        use_style_cond_and_image_meta_size=False,
    )
    inputs = dict(hidden_states=torch.randn(2, 4, 8, 8), timestep=torch.full((2,), 500.0),
                  encoder_hidden_states=torch.randn(2, 5, 12), text_embedding_mask=torch.ones(2, 5),
                  encoder_hidden_states_t5=torch.randn(2, 7, 16), text_embedding_mask_t5=torch.ones(2, 7))
    return model, inputs, dict(batch=2, height=8, width=8, text=5), {}


def kandinsky5():
    """A latent whose channels come last, patched by a reshape and a projection."""
    model = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=12, in_text_dim2=10, time_dim=8, out_visual_dim=4, patch_size=(1, 2, 2), model_dim=16,
        ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(2, 2, 4),
    )
    inputs = dict(hidden_states=torch.randn(2, 3, 8, 10, 4), encoder_hidden_states=torch.randn(2, 5, 12),
                  timestep=torch.full((2,), 500.0), pooled_projections=torch.randn(2, 10))
    return model, inputs, dict(batch=2, frames=3, height=8, width=10, text=5), {}


def mochi():
    """An attention for each clip of the batch, over the valid text alone; TorchScript asks a size by an `If`."""
    model = diffusers.MochiTransformer3DModel(
        patch_size=2, **HEADS, num_layers=2, pooled_projection_dim=16, in_channels=4, text_embed_dim=16, time_embed_dim=4,
        max_sequence_length=7,
    )
    inputs = dict(hidden_states=torch.randn(2, 4, 3, 8, 10), encoder_hidden_states=torch.randn(2, 7, 16),
                  timestep=torch.full((2,), 500), encoder_attention_mask=torch.ones(2, 7, dtype=torch.bool))
    return model, inputs, dict(batch=2, frames=3, height=8, width=10, text=7), {}


def hunyuanvideo_i2v():
    """The tokens of the first frame have gates of their own."""
    model = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, text_embed_dim=12, pooled_projection_dim=10, rope_axes_dim=(4, 4, 4), guidance_embeds=False,
        image_condition_type="token_replace",
    )
    inputs = dict(hidden_states=torch.randn(2, 4, 3, 8, 10), timestep=torch.full((2,), 500),
                  encoder_hidden_states=torch.randn(2, 7, 12), encoder_attention_mask=torch.ones(2, 7),
                  pooled_projections=torch.randn(2, 10))
    return model, inputs, dict(batch=2, frames=3, height=8, width=10, text=7), {}


def sanavideo():
    """Linear attention over a clip, feed-forwards with a convolution over frames."""
    model = diffusers.SanaVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=12,
        sample_size=8, rope_max_seq_len=32,
    )
    inputs = dict(hidden_states=torch.randn(2, 4, 3, 8, 10), encoder_hidden_states=torch.randn(2, 7, 12),
                  timestep=torch.full((2,), 500.0))
    return model, inputs, dict(batch=2, frames=3, height=8, width=10, text=7), {}


def hunyuanimage():
    """TorchScript cuts text off from the back by the negative of a size."""
    model = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4, out_channels=4, **HEADS, num_layers=2, num_single_layers=1, num_refiner_layers=1,
        patch_size=(1, 1), text_embed_dim=12, rope_axes_dim=(4, 4),
    )
    inputs = dict(hidden_states=torch.randn(2, 4, 6, 8), timestep=torch.full((2,), 500.0),
                  encoder_hidden_states=torch.randn(2, 7, 12),
                  encoder_attention_mask=torch.ones(2, 7, dtype=torch.int64))
    return model, inputs, dict(batch=2, height=6, width=8, text=7), {}


# For each model the kinds of its attention modules, by the end of their names; the first that fits.
MODELS = {
    "cogvideox": (cogvideox, {"attn1": "joint"}),
    "flux": (flux, {"attn": "joint"}),
    "sd3": (sd3, {"attn": "joint", "attn2": "spatial"}),
    "dit": (dit, {"attn1": "spatial"}),
    "pixart": (pixart, {"attn1": "spatial", "attn2": "cross"}),
    "sana": (sana, {"attn1": "spatial", "attn2": "cross"}),
    "hunyuandit": (hunyuandit, {"attn1": "spatial", "attn2": "cross"}),
    "kandinsky5": (kandinsky5, {"text_transformer_blocks.0.self_attention": "text", "self_attention": "full",
                                "cross_attention": "cross"}),
    "mochi": (mochi, {"attn1": "joint"}),
    "hunyuanvideo_i2v": (hunyuanvideo_i2v, {"refiner_blocks.0.attn": "text", "attn": "joint"}),
    "sanavideo": (sanavideo, {"attn1": "full", "attn2": "cross"}),
    "hunyuanimage": (hunyuanimage, {"refiner_blocks.0.attn": "text", "attn": "joint"}),
}

# Inputs that are no tensors, or stay as they are.
GIVEN = {
    "PixArtTransformer2DModel": dict(added_cond_kwargs=dict(resolution=None, aspect_ratio=None)),
    "HunyuanDiT2DModel": dict(image_rotary_emb=(torch.linspace(-1, 1, 128).reshape(16, 8),) * 2),
    "Kandinsky5Transformer3DModel": dict(visual_rope_pos=[torch.arange(3), torch.arange(4), torch.arange(5)],
                                         text_rope_pos=torch.arange(5)),
}

# How many notes there are beside the modules: attention poolings, whose one query counts nothing, and attentions of the
# second clip, which have the output in common with those of the first.
NOTES = {"hunyuandit": 1, "mochi": 3}

# Models that are kept without weights.
SMALL = ("mochi", "hunyuanvideo_i2v", "sanavideo", "hunyuanimage")


def rms_norm(g, values, shape, weight, eps):
    """As older exporters write it; opset 17 has no operator for it."""
    constant = lambda value: g.op("Constant", value_t=torch.tensor(value))
    mean = g.op("ReduceMean", g.op("Pow", values, constant(2.0)), axes_i=[-1])
    root = g.op("Sqrt", g.op("Add", mean, constant(torch.onnx.symbolic_helper._maybe_get_const(eps, "f") or 1e-6)))
    scaled = g.op("Mul", values, g.op("Div", constant(1.0), root))
    return scaled if torch.onnx.symbolic_helper._is_none(weight) else g.op("Mul", scaled, weight)


torch.onnx.register_custom_op_symbolic("aten::rms_norm", rms_norm, 17)


# Models whose dynamo export ONNX Runtime does not take, or where one exporter is enough; and one that TorchScript does not
# export.
NO_DYNAMO = ("dit", "pixart", "hunyuandit", "sanavideo")
NO_TORCHSCRIPT = ("kandinsky5", "hunyuanvideo_i2v")


class Plain(torch.nn.Module):
    """A model with positional inputs and a tensor as output."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        more = GIVEN.get(type(self.model).__name__, {})
        return self.model(**dict(zip(self.names, inputs)), **more, return_dict=False)[0]


def save(proto, path):
    for holder in [*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, proto.graph, proto]:
        kept = [entry for entry in holder.metadata_props if entry.key not in DROPPED]
        del holder.metadata_props[:]
        holder.metadata_props.extend(kept)
    onnx.save(proto, path)


def anonymous(source, path):
    """Every name replaced by a random one, but those of the inputs, by which their meaning is told."""
    proto, source_of_names = onnx.load(source, load_external_data=False), random.Random(0)
    graph = proto.graph
    names = {"": "", **{given.name: given.name for given in graph.input}}
    rename = lambda name: names.setdefault(name, f"n{source_of_names.randrange(10**9):09d}")
    for inner in graphs(graph):
        for node in inner.node:
            node.name, node.doc_string = rename("node:" + node.name), ""
            del node.metadata_props[:]
            node.input[:] = [rename(name) for name in node.input]
            node.output[:] = [rename(name) for name in node.output]
        for named in [*inner.output, *inner.value_info, *inner.initializer]:
            named.name = rename(named.name)
        inner.name = "anonymous"
    onnx.save(proto, path)


def write_truth(folder, name, model, sizes, names, kinds):
    modules = [module for module, _ in model.named_modules()]
    ends = lambda module, end: module == end or module.endswith("." + end)
    kind = lambda module: next((kind for end, kind in kinds.items() if ends(module, end)), None)
    attention = [dict(module=module, kind=kind(module)) for module in modules if kind(module)]
    feed_forward = [module for module in modules if any(ends(module, end) for end in ("ff", "ff_context", "feed_forward"))]
    truth = dict(model=name, sizes=sizes, inputs=names, attention=attention, mlp=feed_forward, notes=NOTES.get(name, 0))
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")


def keep_small(folder):
    """Takes out the weights and what only people read, but the modules' names of dynamo; TorchScript's names are long, and
    replaced."""
    for path in folder.glob("*.anon.onnx"):
        path.unlink()
    for path in sorted(folder.glob("*.onnx")):
        proto = take_out(onnx.load(path), folder)
        del proto.graph.value_info[:]
        for node in proto.graph.node:
            kept = [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
        onnx.save(proto, path)
        if ".ts17." in path.name:
            anonymous(path, path.with_suffix(".anon.onnx"))
            path.unlink()


def main():
    wanted = sys.argv[2:] or MODELS
    for name in wanted:
        build, kinds = MODELS[name]
        torch.manual_seed(0)
        model, inputs, sizes, dynamic = build()
        model = model.eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        plain, values, names = Plain(model, list(inputs)), tuple(inputs.values()), list(inputs)
        write_truth(folder, name, model, sizes, names, kinds)
        if name not in NO_TORCHSCRIPT:
            first = folder / f"{name}.ts17.static.onnx"
            torch.onnx.export(plain, values, first, input_names=names, output_names=["sample"], opset_version=17, dynamo=False)
            anonymous(first, folder / f"{name}.ts17.static.anon.onnx")
        if name in NO_DYNAMO:
            if name in SMALL:
                keep_small(folder)
            continue
        shapes = (tuple(dynamic[given] for given in names),) if dynamic else None
        program = torch.onnx.export(plain, values, input_names=names, output_names=["sample"], opset_version=23,
                                    dynamo=True, dynamic_shapes=shapes, verbose=False)
        second = folder / f"{name}.dyn23.{'dynamic' if dynamic else 'static'}.onnx"
        save(program.model_proto, second)
        if name in SMALL:
            keep_small(folder)
        elif name in NO_TORCHSCRIPT:
            anonymous(second, folder / f"{name}.dyn23.static.anon.onnx")


if __name__ == "__main__":
    main()
