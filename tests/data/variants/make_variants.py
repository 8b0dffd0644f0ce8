"""Makes one small Latte in every form that a file can have: opsets, precisions, local functions, control flow, shared
weights and open sizes.

    python tests/data/variants/make_variants.py [FOLDER]        (made with torch 2.15, diffusers 0.42, onnx 1.23)

The weights are seeded noise. `variants.json` says for each file how many sites of each kind it has, and what is special.
What names modules and what says where a value came from is taken out, so that the files stay small.
"""
import json
import re
import sys
from collections import Counter
from pathlib import Path

import onnx
import onnx.version_converter
import torch
from diffusers import CogVideoXTransformer3DModel, LatteTransformer3DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from onnx import helper

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
BATCH, FRAMES, SIZE, TEXT = 2, 3, 4, 5
INPUTS = ["hidden_states", "timestep", "encoder_hidden_states"]
LATTE = dict(spatial=2, temporal=2, cross=2, mlp=4)
DOMAIN = "blocks"
facts = {}


def seeded(model):
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def latte(eager=False):
    torch.manual_seed(0)
    model = LatteTransformer3DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=4, num_layers=2, cross_attention_dim=8,
        attention_bias=True, sample_size=SIZE, patch_size=2, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_single", norm_elementwise_affine=False, caption_channels=12, video_length=FRAMES,
    ).eval().requires_grad_(False)
    if eager:
        for module in model.modules():
            if isinstance(module, Attention):
                module.set_processor(AttnProcessor())
    return seeded(model)


def repeated(values, times, dim=0, output_size=None):
    """`repeat_interleave` along the first axis, which dynamo exports wrongly where the number of repeats is open."""
    return values.unsqueeze(1).expand(-1, times, *values.shape[1:]).flatten(0, 1)


def cogvideox():
    """With rotary embeddings as inputs: no table of positions fixes a size."""
    torch.manual_seed(0)
    model = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=8, text_embed_dim=12,
        num_layers=2, sample_width=8, sample_height=8, sample_frames=9, max_text_seq_length=TEXT, patch_size=2,
        use_rotary_positional_embeddings=True,
    ).eval().requires_grad_(False)
    return seeded(model)


class Plain(torch.nn.Module):
    """Positional inputs and a tensor as output; `dtype` is what the model computes in, the inputs and output are float32."""

    def __init__(self, model, dtype=None):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, hidden_states, timestep, encoder_hidden_states):
        if self.dtype:
            hidden_states, encoder_hidden_states = hidden_states.to(self.dtype), encoder_hidden_states.to(self.dtype)
        sample = self.model(hidden_states, timestep=timestep, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
        return sample.float() if self.dtype else sample


class Rotary(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, hidden_states, encoder_hidden_states, timestep, cosine, sine):
        return self.model(hidden_states, encoder_hidden_states, timestep, image_rotary_emb=(cosine, sine), return_dict=False)[0]


class InFloat(torch.nn.Module):
    """A norm that computes in float32 between half-precision values."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, values, *more):
        return self.norm(values.float(), *more).to(values.dtype)


def example():
    torch.manual_seed(1)
    latent = torch.randn(BATCH, 4, FRAMES, SIZE, SIZE)
    return latent, torch.full((BATCH,), 500), torch.randn(BATCH, TEXT, 12)


def torchscript(module, opset):
    path = FOLDER / "exported.onnx"
    torch.onnx.export(module, example(), path, input_names=INPUTS, output_names=["sample"], opset_version=opset, dynamo=False)
    proto = onnx.load(path)
    path.unlink()
    return proto


def dynamo(module, opset, inputs=None, names=INPUTS, shapes=None):
    return torch.onnx.export(module, inputs or example(), input_names=names, output_names=["sample"], opset_version=opset,
                             dynamo=True, dynamic_shapes=shapes, verbose=False).model_proto


def shorten(proto):
    """Long names of values are numbers afterwards, but those of the model's inputs and outputs."""
    names = {"": "", **{port.name: port.name for port in [*proto.graph.input, *proto.graph.output]}}
    rename = lambda name: names.setdefault(name, f"v{len(names)}")
    graphs = [proto.graph, *proto.functions]
    while graphs:
        graph = graphs.pop()
        if isinstance(graph, onnx.FunctionProto):
            graph.input[:], graph.output[:] = map(rename, graph.input), map(rename, graph.output)
            ports = []
        else:
            ports = [*graph.input, *graph.output, *graph.initializer]
        for named in [*ports, *graph.value_info]:
            named.name = rename(named.name)
        for node in graph.node:
            node.input[:], node.output[:] = map(rename, node.input), map(rename, node.output)
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def save(name, proto, sites=LATTE, **more):
    """`more`: `runs=False` where ONNX Runtime's CPU provider has no kernels for it, `notes` parts of what is to be noted."""
    del proto.metadata_props[:]
    graphs = [proto.graph, *proto.functions]
    while graphs:
        graph = graphs.pop()
        if hasattr(graph, "metadata_props"):
            del graph.metadata_props[:]
        graph.doc_string = ""
        for named in [*getattr(graph, "initializer", []), *getattr(graph, "input", []), *getattr(graph, "output", []), *graph.value_info]:
            if hasattr(named, "metadata_props"):
                del named.metadata_props[:]
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = node.name = ""
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    shorten(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, FOLDER / f"{name}.onnx")
    facts[name] = dict(sites=sites, **more)


def name_axes(proto, axes):
    """The exporter's numbered symbols get names."""
    names = {}
    for port in proto.graph.input:
        for dim, name in zip(port.type.tensor_type.shape.dim, axes[port.name]):
            if dim.dim_param:
                names[dim.dim_param] = name
    for port in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
        for dim in port.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"s\d+", lambda symbol: names.get(symbol[0], symbol[0]), dim.dim_param)


def einsum_in_float(proto):
    """`Einsum` is not defined for bfloat16, which dynamo does not heed."""
    for place, node in reversed(list(enumerate(proto.graph.node))):
        if node.op_type == "Einsum":
            source, output = node.input[0], node.output[0]
            node.input[0], node.output[0] = f"{source}.float", f"{output}.float"
            proto.graph.node.insert(place + 1, helper.make_node("Cast", [f"{output}.float"], [output], to=onnx.TensorProto.BFLOAT16))
            proto.graph.node.insert(place, helper.make_node("Cast", [source], [f"{source}.float"], to=onnx.TensorProto.FLOAT))
    return proto


# --- parts of a graph -------------------------------------------------------------------------------------------------

def scope(proto, prefix):
    """The nodes of a module by their names, what they read from outside in the order of first use, and what others read."""
    nodes = [node for node in proto.graph.node if node.name.startswith(prefix)]
    made = {output for node in nodes for output in node.output}
    reads = list(dict.fromkeys(name for node in nodes for name in node.input if name and name not in made))
    inside = {id(node) for node in nodes}
    others = {name for node in proto.graph.node if id(node) not in inside for name in node.input}
    others |= {output.name for output in proto.graph.output}
    return nodes, reads, [name for node in nodes for name in node.output if name in others]


def replace(proto, nodes, new):
    """New nodes in the place of the last of `nodes`."""
    gone = {id(node) for node in nodes}
    kept = []
    for node in proto.graph.node:
        if id(node) == id(nodes[-1]):
            kept += new
        elif id(node) not in gone:
            kept.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def renamed(nodes, names):
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    for node in copies:
        node.name = ""
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return copies


def shape_of(nodes, reads):
    """A function of these nodes whose parameters are numbered, so that two modules of one kind give the same."""
    names = {name: f"p{place}" for place, name in enumerate(reads)}
    for node in nodes:
        for output in node.output:
            names[output] = f"v{len(names)}"
    return renamed(nodes, names), names


def reference(node, name, kind):
    """The attribute comes from the function's own attribute of that name."""
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.CopyFrom(onnx.AttributeProto(name=name, ref_attr_name=name, type=kind))
            return
    raise KeyError(name)


def functions(proto):
    """Every block a call of a function, with its attentions calls of another one; functions have attributes."""
    made = {}
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    for place in ("transformer_blocks.0", "transformer_blocks.1", "temporal_transformer_blocks.0", "temporal_transformer_blocks.1"):
        for attention in ("attn1", "attn2"):
            nodes, reads, outputs = scope(proto, f"/model/{place}/{attention}/")
            if not nodes:
                continue
            body, names = shape_of(nodes, reads)
            [softmax] = [node for node in body if node.op_type == "Softmax"]
            reference(softmax, "axis", onnx.AttributeProto.INT)
            key = ("Attention", *(node.SerializeToString() for node in body))
            name = made.setdefault(key, f"Attention{len(made)}")
            if not any(function.name == name for function in proto.functions):
                # `axis` has no default: every call gives it.
                proto.functions.append(helper.make_function(
                    DOMAIN, name, [names[read] for read in reads], [names[output] for output in outputs], body, imports, ["axis"]))
            call = helper.make_node(name, reads, outputs, domain=DOMAIN, axis=-1, name=f"/model/{place}/{attention}")
            replace(proto, nodes, [call])
        nodes, reads, outputs = scope(proto, f"/model/{place}/")
        body, names = shape_of(nodes, reads)
        for norm in (node for node in body if node.op_type == "LayerNormalization"):
            reference(norm, "epsilon", onnx.AttributeProto.FLOAT)
        key = ("Block", *(node.SerializeToString() for node in body))
        known = key in made
        name = made.setdefault(key, f"Block{len(made)}")
        if not known:
            proto.functions.append(helper.make_function(
                DOMAIN, name, [names[read] for read in reads], [names[output] for output in outputs], body, imports,
                attribute_protos=[helper.make_attribute("epsilon", 1e-5)]))
        # The first call takes the default, the second one gives another number.
        call = helper.make_node(name, reads, outputs, domain=DOMAIN, **(dict(epsilon=1e-4) if known else {}))
        replace(proto, nodes, [call])
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    calls = Counter(node.op_type for node in proto.graph.node if node.domain == DOMAIN)
    print("calls", dict(calls), "functions", [function.name for function in proto.functions])
    assert sum(calls.values()) == 4 and max(calls.values()) == 2
    return proto


def in_branch(proto, place, condition):
    """A block in the `then_branch` of an `If`; the other branch passes on what went in."""
    nodes, reads, [output] = scope(proto, f"/model/{place}/")
    stream = next(name for name in reads if "weight" not in name and "bias" not in name and any(
        name in node.input and node.op_type == "LayerNormalization" for node in nodes))
    tensor = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    names = {output: "computed"}
    block = helper.make_graph(renamed(nodes, names), "block", [], [tensor("computed")])
    passed = helper.make_graph([helper.make_node("Identity", [stream], ["passed"])], "passed", [], [tensor("passed")])
    replace(proto, nodes, [helper.make_node("If", [condition], [output], then_branch=block, else_branch=passed)])
    return proto


def in_loop(proto, place):
    """A block that runs twice, with the same weights."""
    nodes, reads, [output] = scope(proto, f"/model/{place}/")
    stream = next(name for name in reads if any(name in node.input and node.op_type == "LayerNormalization" for node in nodes))
    tensor = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    names = {output: "computed", stream: "carried"}
    body = [*renamed(nodes, names), helper.make_node("Identity", ["going_on"], ["again"])]
    flag = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, [])
    graph = helper.make_graph(body, "iteration", [helper.make_tensor_value_info("number", onnx.TensorProto.INT64, []),
                              flag("going_on"), tensor("carried")], [flag("again"), tensor("computed")])
    proto.graph.initializer.append(helper.make_tensor("trips", onnx.TensorProto.INT64, [], [2]))
    proto.graph.initializer.append(helper.make_tensor("begin", onnx.TensorProto.BOOL, [], [True]))
    replace(proto, nodes, [helper.make_node("Loop", ["trips", "begin", stream], [output], body=graph)])
    return proto


def with_small_branches(proto):
    """An `If` inside an attention, on its queries, and one behind it that captures the attention's output."""
    proto.graph.node.insert(0, helper.make_node("ReduceMax", ["timestep"], ["latest"], keepdims=0, name="latest"))
    proto.graph.node.insert(1, helper.make_node("Greater", ["latest", "early"], ["is_late"], name="is_late"))
    proto.graph.initializer.append(helper.make_tensor("early", onnx.TensorProto.INT64, [], [2]))
    proto.graph.initializer.append(helper.make_tensor("smaller", onnx.TensorProto.FLOAT, [], [0.75]))
    tensor = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

    def scaled(source, kind):
        """`source` times a number where the step is late."""
        then = helper.make_graph([helper.make_node("Mul", [source, "smaller"], ["scaled"])], "late", [], [tensor("scaled")])
        other = helper.make_graph([helper.make_node("Identity", [source], ["same"])], "early", [], [tensor("same")])
        return helper.make_node("If", ["is_late"], [f"{kind}.chosen"], then_branch=then, else_branch=other)

    for end, kind in (("transformer_blocks.0/attn1/to_q/Add", "queries"), ("transformer_blocks.1/attn1/to_out.0/Add", "output")):
        [node] = [node for node in proto.graph.node if node.name == f"/model/{end}"]
        source = node.output[0]
        for reader in proto.graph.node:
            reader.input[:] = [f"{kind}.chosen" if name == source else name for name in reader.input]
        place = [node.name for node in proto.graph.node].index(f"/model/{end}")
        proto.graph.node.insert(place + 1, scaled(source, kind))
    return proto


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    save("opset13", torchscript(Plain(latte(eager=True)), 13))
    save("opset20", torchscript(Plain(latte()), 20))
    for opset in (18, 21, 23, 25):
        save(f"opset{opset}", dynamo(Plain(latte()), opset))
    # The newest that ONNX Runtime runs; torch does not write it yet.
    save("opset26", onnx.version_converter.convert_version(dynamo(Plain(latte()), 25), 26))
    save("float16", dynamo(Plain(latte().half(), torch.float16), 23))
    save("bfloat16", einsum_in_float(dynamo(Plain(latte().bfloat16(), torch.bfloat16), 23)), runs=False)
    # Half precision with norms and softmax in float32, as exports for deployment have.
    mixed = latte(eager=True).half()
    for module in list(mixed.modules()):
        if isinstance(module, Attention):
            module.upcast_softmax = True
        for child, norm in list(module.named_children()):
            if isinstance(norm, torch.nn.LayerNorm):
                setattr(module, child, InFloat(norm))
    save("mixed", torchscript(Plain(mixed, torch.float16), 17))
    # Both spatial blocks, and both temporal ones, share one attention.
    tied = latte()
    for blocks in (tied.transformer_blocks, tied.temporal_transformer_blocks):
        blocks[1].attn1 = blocks[0].attn1
    tied.transformer_blocks[1].ff = tied.transformer_blocks[0].ff
    save("tied", torchscript(Plain(tied), 17))
    save("functions", functions(torchscript(Plain(latte()), 17)))
    one_less = dict(spatial=1, temporal=2, cross=1, mlp=3)
    proto = torchscript(Plain(latte()), 17)
    proto.graph.initializer.append(helper.make_tensor("always", onnx.TensorProto.BOOL, [], [True]))
    save("branch_constant", in_branch(proto, "transformer_blocks.1", "always"))
    proto = torchscript(Plain(latte()), 17)
    proto.graph.input.append(helper.make_tensor_value_info("deep", onnx.TensorProto.BOOL, []))
    save("branch", in_branch(proto, "transformer_blocks.1", "deep"), one_less, notes=["nested graph"])
    save("loop", in_loop(torchscript(Plain(latte()), 17), "transformer_blocks.1"), one_less, notes=["nested graph"])
    save("small_branches", with_small_branches(torchscript(Plain(latte()), 17)))
    # Open sizes: no table of positions fixes one.
    everywhere = latte()
    everywhere.pos_embed.pos_embed = None
    everywhere.temp_pos_embed = torch.randn(1, 1, 8) * 0.1
    dims = {name: torch.export.Dim(name) for name in ("batch", "frames", "text")}
    height, width = (2 * torch.export.Dim(name) for name in ("rows", "columns"))
    shapes = ({0: dims["batch"], 2: dims["frames"], 3: height, 4: width}, {0: dims["batch"]}, {0: dims["batch"], 1: dims["text"]})
    torch.Tensor.repeat_interleave = repeated
    save("open", dynamo(Plain(everywhere), 23, shapes=shapes))
    cog = Rotary(cogvideox())
    inputs = (torch.randn(2, 3, 4, 8, 8), torch.randn(2, TEXT, 12), torch.full((2,), 500), torch.randn(48, 8), torch.randn(48, 8))
    names = ["hidden_states", "encoder_hidden_states", "timestep", "cosine", "sine"]
    auto = torch.export.Dim.DYNAMIC
    shapes = ({0: auto, 1: auto, 3: auto, 4: auto}, {0: auto, 1: auto}, {0: auto}, {0: auto}, {0: auto})
    proto = dynamo(cog, 23, inputs, names, shapes)
    axes = dict(hidden_states=["batch", "frames", "", "height", "width"], encoder_hidden_states=["batch", "text", ""],
                timestep=["batch"], cosine=["positions", ""], sine=["positions", ""])
    name_axes(proto, axes)
    save("open_cogvideox", proto, dict(joint=2, mlp=2))
    (FOLDER / "variants.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
