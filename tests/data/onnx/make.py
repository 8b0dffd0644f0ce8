"""Writes the model files of this folder with the official tools: onnx 1.23.2, torch 2.15.0, onnxscript 0.7.2.

    python -c "exec(compile(open('make.py').read(), 'make.py', 'exec'))"

(so that torch writes no absolute paths into its stack traces).
The tests load and save these files and compare every byte. Random values are seeded. Licence: as the repository.
"""

import hashlib
import os

import numpy as np
import onnx
import onnx.external_data_helper as external
import torch
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh


class Block(torch.nn.Module):
    """One attention block, as small as it gets: [batch, tokens, 8] -> [batch, tokens, 8]."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)
        self.qkv = torch.nn.Linear(8, 24)
        self.out = torch.nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unsqueeze(1).chunk(3, dim=-1)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x + self.out(y)


def torch_exports():
    torch.manual_seed(0)
    block, x = Block().eval(), torch.zeros(2, 4, 8)
    torch.onnx.export(block, (x,), "block.ts17.onnx", dynamo=False, opset_version=17, input_names=["x"],
                      output_names=["y"], dynamic_axes={"x": {0: "batch"}})
    program = torch.onnx.export(block, (x,), dynamo=True, opset_version=18, input_names=["x"], output_names=["y"])
    for node in program.model.graph:
        trace = node.metadata_props.get("pkg.torch.onnx.stack_trace")
        if trace:  # where torch is installed is nobody's business
            node.metadata_props["pkg.torch.onnx.stack_trace"] = trace.replace(os.path.dirname(torch.__file__), "torch")
    program.save("block.dyn18.onnx")


def model(graph, **more):
    return h.make_model(graph, ir_version=14, opset_imports=[h.make_opsetid("", 25)], **more)


def value(name, kind=T.FLOAT, shape=(4,)):
    return h.make_tensor_value_info(name, kind, shape)


def identity(initializers, name, **more):
    """A graph that only holds tensors."""
    return h.make_graph([h.make_node("Identity", ["x"], ["y"])], name, [value("x")], [value("y")], initializers, **more)


def every_type():
    """Every element type twice: in `raw_data` and in its typed field; five elements each, so that packing shows."""
    tensors = []
    rows = [
        (T.FLOAT, [0.5, -1.25, 3.0, 1e-30, 65504.0]),
        (T.DOUBLE, [0.5, -1.25, 3.0, 1e-300, 65504.0]),
        (T.FLOAT16, [0.5, -1.25, 3.0, 0.0, 65504.0]),
        (T.BFLOAT16, [0.5, -1.25, 3.0, 0.0, 256.0]),
        (T.FLOAT8E4M3FN, [0.5, -1.25, 3.0, 0.0, 448.0]),
        (T.FLOAT8E4M3FNUZ, [0.5, -1.25, 3.0, 0.0, 240.0]),
        (T.FLOAT8E5M2, [0.5, -1.25, 3.0, 0.0, 57344.0]),
        (T.FLOAT8E5M2FNUZ, [0.5, -1.25, 3.0, 0.0, 57344.0]),
        (T.FLOAT8E8M0, [0.5, 1.0, 2.0, 4.0, 1024.0]),
        (T.FLOAT4E2M1, [0.5, -1.5, 3.0, 0.0, 6.0]),
        (T.FLOAT6E2M3, [0.5, -1.25, 3.0, 0.125, 7.5]),
        (T.FLOAT6E3M2, [0.5, -1.25, 3.0, 0.0625, 28.0]),
        (T.INT8, [-128, -1, 0, 1, 127]),
        (T.INT16, [-32768, -1, 0, 1, 32767]),
        (T.INT32, [-(2**31), -1, 0, 1, 2**31 - 1]),
        (T.INT64, [-(2**63), -1, 0, 1, 2**63 - 1]),
        (T.UINT8, [0, 1, 2, 128, 255]),
        (T.UINT16, [0, 1, 2, 32768, 65535]),
        (T.UINT32, [0, 1, 2, 2**31, 2**32 - 1]),
        (T.UINT64, [0, 1, 2, 2**62, 2**63 - 1]),
        (T.BOOL, [True, False, True, True, False]),
        (T.INT4, [-8, -1, 0, 1, 7]),
        (T.UINT4, [0, 1, 2, 8, 15]),
        (T.INT2, [-2, -1, 0, 1, -2]),
        (T.UINT2, [0, 1, 2, 3, 1]),
        (T.COMPLEX64, [1 + 2j, -0.5j, 0, 3, 4j]),
        (T.COMPLEX128, [1 + 2j, -0.5j, 0, 3, 4j]),
    ]
    for kind, values in rows:
        name = T.DataType.Name(kind).lower()
        typed = h.make_tensor(f"{name}.typed", kind, [5], values)
        array = nh.to_array(typed)
        raw = nh.from_array(array, f"{name}.raw")
        assert raw.data_type == kind and raw.raw_data, name
        expected = [complex(v) for v in values] if kind in (T.COMPLEX64, T.COMPLEX128) else [float(v) for v in values]
        if kind not in (T.FLOAT, T.DOUBLE):
            assert [complex(v) for v in array.astype(np.complex128)] == [complex(v) for v in expected], (name, array)
        tensors += [typed, raw]
    tensors.append(h.make_tensor("string.typed", T.STRING, [2], [b"a", "ß".encode()]))
    tensors.append(h.make_tensor("scalar.raw", T.FLOAT, [], np.float32(7).tobytes(), raw=True))
    tensors.append(h.make_tensor("empty.typed", T.FLOAT, [0, 3], []))
    onnx.save(model(identity(tensors, "every_type")), "every_type.onnx")


def every_message():
    """Functions, attributes of every type, sparse tensors, sequences, training information, devices, annotations."""
    tensor = h.make_tensor("t", T.FLOAT, [2], [1.0, 2.0])
    sparse = h.make_sparse_tensor(h.make_tensor("s", T.FLOAT, [2], [1.0, 2.0]),
                                  h.make_tensor("s_indices", T.INT64, [2], [0, 3]), [4])
    branch = h.make_graph([h.make_node("Neg", ["x"], ["negative"])], "branch", [], [value("negative")])
    other = h.make_graph([h.make_node("Abs", ["x"], ["absolute"])], "other", [], [value("absolute")])
    function = h.make_function("ai.pab.test", "Scale", ["a"], ["b"], [
        h.make_node("Constant", [], ["factor"], value_float=2.0),
        h.make_node("Mul", ["a", "factor"], ["product"]),
        h.make_node("LeakyRelu", ["product"], ["b"]),
    ], [h.make_opsetid("", 25)], attributes=["alpha"], overload="v1", doc_string="Scales.")
    reference = function.node[2].attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT)
    reference.ref_attr_name = "alpha"
    call = h.make_node("Scale", ["x"], ["scaled"], domain="ai.pab.test", overload="v1", alpha=0.5, name="call")
    call.metadata_props.add(key="module", value="block.0")
    attributes = h.make_node("Everything", ["x", "", "scaled"], ["z", ""], domain="ai.pab.custom", doc_string="all",
                             f=1.5, i=-3, s="text", t=tensor, floats=[0.0, 1.0], ints=[-1, 2**62], strings=["a", ""],
                             tensors=[tensor, tensor], sparse=sparse, sparses=[sparse], g=branch, graphs=[branch],
                             tp=h.make_tensor_type_proto(T.INT64, ["n", 3]),
                             tps=[h.make_sequence_type_proto(h.make_tensor_type_proto(T.FLOAT, None)),
                                  h.make_optional_type_proto(h.make_tensor_type_proto(T.BOOL, [])),
                                  h.make_map_type_proto(T.STRING, h.make_tensor_type_proto(T.FLOAT, [None])),
                                  h.make_sparse_tensor_type_proto(T.FLOAT, [4])])
    device = attributes.device_configurations.add(configuration_id="pair", pipeline_stage=1)
    spec = device.sharding_spec.add(tensor_name="x", device=[0, 1, -1])
    spec.index_to_device_group_map.add(key=-1, value=[0, 1])
    dim = spec.sharded_dim.add(axis=0)
    dim.simple_sharding.add(dim_value=4, num_shards=2)
    dim.simple_sharding.add(dim_param="n", num_shards=2)
    graph = h.make_graph([
        call, attributes,
        h.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other, name="choice"),
    ], "every_message", [value("x", shape=["n"]), value("flag", T.BOOL, [])], [value("y", shape=["n"])],
        [h.make_tensor("weight", T.FLOAT, [3], [1.0, -0.0, float("inf")])], "A graph.",
        [value("scaled", shape=["n"]), h.make_tensor_sequence_value_info("z", T.FLOAT, None)],
        sparse_initializer=[sparse])
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph.input[0].doc_string = ""
    annotation = graph.quantization_annotation.add(tensor_name="x")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="weight")
    graph.metadata_props.add(key="k", value="v")
    proto = h.make_model(graph, ir_version=14, producer_name="make.py", producer_version="1", domain="ai.pab", model_version=-1,
                         doc_string="A model.", functions=[function],
                         opset_imports=[h.make_opsetid("", 25), h.make_opsetid("ai.pab.test", 1),
                                        h.make_opsetid("ai.pab.custom", 3)])
    proto.metadata_props.add(key="empty", value="")
    training = proto.training_info.add()
    training.algorithm.CopyFrom(h.make_graph([h.make_node("Neg", ["weight"], ["step"])], "algorithm", [], [value("step", shape=[3])]))
    training.initialization.CopyFrom(h.make_graph([h.make_node("Constant", [], ["start"], value_floats=[0.0, 0.0, 0.0])],
                                                  "initialization", [], [value("start", shape=[3])]))
    training.update_binding.add(key="weight", value="step")
    training.initialization_binding.add(key="weight", value="start")
    proto.configuration.add(name="pair", num_devices=2, device=["a", "b"])
    onnx.save(proto, "every_message.onnx")


def external_data():
    """Two files in the folder and one in a subfolder, with offsets, lengths and a checksum."""
    os.makedirs("external/part", exist_ok=True)
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal(16).astype(np.float32) for name in ["first", "second", "third", "fourth"]}
    places = {"first": ("weights.bin", 0), "second": ("weights.bin", 64), "third": ("part/third.bin", 4),
              "fourth": ("./weights.bin", 128)}
    files, tensors = {}, []
    for name, array in arrays.items():
        tensor = nh.from_array(array, name)
        location, offset = places[name]
        key = os.path.normpath(location)
        files[key] = files.get(key, b"").ljust(offset, b"\0") + array.tobytes()
        external.set_external_data(tensor, location, offset, 64 if name != "fourth" else None)
        tensor.ClearField("raw_data")
        tensors.append(tensor)
    for tensor in tensors[2:3]:
        digest = hashlib.sha1(files["part/third.bin"]).hexdigest()
        tensor.external_data.add(key="checksum", value=digest)
    for path, data in files.items():
        with open(f"external/{path}", "wb") as file:
            file.write(data)
    proto = model(identity(tensors, "external"))
    with open("external/model.onnx", "wb") as file:
        file.write(proto.SerializeToString())


if __name__ == "__main__":
    torch_exports()
    every_type()
    every_message()
    external_data()
