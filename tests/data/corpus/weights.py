"""Takes the weights out of exports, so that they are small enough to keep: all large tensors read the same random numbers.

A tensor of at least 1 KiB of a floating type is stored as external data at the beginning of `weights.bin` (float32) or
`weights16.bin` (float16), which lie in the model's folder. What a model computes is then meaningless, but it computes
every bit of it from its inputs.
"""
import numpy as np
import onnx

FILES = {onnx.TensorProto.FLOAT: ("weights.bin", np.float32), onnx.TensorProto.FLOAT16: ("weights16.bin", np.float16)}
SMALLEST = 1024


def graphs(graph):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def tensors(graph):
    for inner in graphs(graph):
        yield from inner.initializer
        for node in inner.node:
            yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def take_out(proto, folder):
    """Moves the large tensors of a model that is to be saved in `folder` to the shared files there."""
    largest = {}
    for tensor in proto.graph.initializer:
        if tensor.data_type not in FILES:
            continue
        file, element = FILES[tensor.data_type]
        bytes_of = int(np.prod(tensor.dims)) * np.dtype(element).itemsize
        if bytes_of < SMALLEST:
            continue
        largest[tensor.data_type] = max(largest.get(tensor.data_type, 0), bytes_of)
        for field in ("raw_data", "float_data", "int32_data", "external_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in dict(location=file, offset="0", length=str(bytes_of)).items():
            tensor.external_data.add(key=key, value=value)
    for data_type, needed in largest.items():
        file, element = FILES[data_type]
        path = folder / file
        have = path.stat().st_size if path.exists() else 0
        if have < needed:
            count = needed // np.dtype(element).itemsize
            values = np.random.default_rng(0).standard_normal(count, np.float32) * 0.1
            path.write_bytes(values.astype(element).tobytes())
    return proto


def strip(proto):
    """Without what only people read."""
    del proto.graph.value_info[:]
    for inner in graphs(proto.graph):
        for node in inner.node:
            node.doc_string = ""
            del node.metadata_props[:]
    return proto
