"""Writes switch.onnx: the switch form in small, for the tests of the runtime.

Two sites, each an `If` between computing and passing its cache on, on a symbolic batch:

    first  = 2 * sample             or pab.cache.first
    second = 3 * (sample + first)   or pab.cache.second
    out    = sample + second + timestep

Run with onnx 1.23 (any version from 1.14 writes an equivalent file): python make_switch.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = ["batch", 4]


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE)


def switch(site, rule, nodes, computed):
    compute = helper.make_graph(nodes, f"{site}.compute", [], [value(computed)])
    passed = f"{site}.broadcast"
    identity = helper.make_node("Identity", [f"pab.cache.{site}"], [passed])
    broadcast = helper.make_graph([identity], passed, [], [value(passed)])
    return helper.make_node(
        "If", [f"pab.broadcast.{rule}"], [f"pab.cache.{site}.next"], f"{site}.switch", then_branch=broadcast, else_branch=compute
    )


nodes = [
    switch("first", "a", [helper.make_node("Mul", ["sample", "two"], ["first.out"])], "first.out"),
    switch(
        "second",
        "b",
        [
            helper.make_node("Add", ["sample", "pab.cache.first.next"], ["second.sum"]),
            helper.make_node("Mul", ["second.sum", "three"], ["second.out"]),
        ],
        "second.out",
    ),
    helper.make_node("Add", ["sample", "pab.cache.second.next"], ["residual"]),
    helper.make_node("Cast", ["timestep"], ["time"], to=TensorProto.FLOAT),
    helper.make_node("Add", ["residual", "time"], ["out"]),
]
graph = helper.make_graph(
    nodes,
    "switch",
    [
        value("sample"),
        helper.make_tensor_value_info("timestep", TensorProto.INT64, []),
        helper.make_tensor_value_info("pab.broadcast.a", TensorProto.BOOL, []),
        helper.make_tensor_value_info("pab.broadcast.b", TensorProto.BOOL, []),
        value("pab.cache.first"),
        value("pab.cache.second"),
    ],
    [value("out"), value("pab.cache.first.next"), value("pab.cache.second.next")],
    [numpy_helper.from_array(np.float32(2), "two"), numpy_helper.from_array(np.float32(3), "three")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="make_switch.py")
helper.set_model_props(model, {"pab.test": "a value"})
onnx.checker.check_model(model, full_check=True)
onnx.save(model, Path(__file__).with_name("switch.onnx"))
