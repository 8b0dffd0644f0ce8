"""Runs a model and what was patched of it with the reference implementation of the official `onnx` package.

    python tests/oracle/run_by_reference.py ORIGINAL PATCHED

ONNX Runtime's CPU provider has hardly any bfloat16 kernels; the reference has all. Two steps with the same inputs, the
first with nothing broadcast and the second with everything: both have to give what the original gives, to the bit. The
inputs of the model have to be float32, int64 or bool.
"""
import sys

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

noise = np.random.default_rng(0)


def value(port):
    tensor = port.type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    element = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if port.name.startswith("pab."):
        return np.zeros(shape, element)
    return np.full(shape, 7, element) if element != np.float32 else noise.standard_normal(shape, np.float32)


original, patched = (onnx.load(path) for path in sys.argv[1:3])
feeds = {port.name: value(port) for port in patched.graph.input}
own = {name: fed for name, fed in feeds.items() if not name.startswith("pab.")}
[expected] = ReferenceEvaluator(original).run(None, own)
assert np.isfinite(expected).all() and np.abs(expected).max() > 0
evaluator, names = ReferenceEvaluator(patched), [port.name for port in patched.graph.output]
for broadcast in (False, True):
    feeds.update({name: np.array(broadcast) for name in feeds if name.startswith("pab.broadcast.")})
    outputs = dict(zip(names, evaluator.run(None, feeds)))
    [own_output] = [name for name in names if not name.startswith("pab.")]
    assert (outputs[own_output] == expected).all(), f"differs with broadcast {broadcast}"
    feeds.update({name.removesuffix(".next"): kept for name, kept in outputs.items() if name != own_output})
print("equal")
