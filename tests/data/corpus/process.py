"""Makes what optimizers and converters make of the exports: `processed/MODEL.EXPORTER.SHAPE.AFTER.onnx`.

    python tests/data/corpus/process.py [FOLDER]

AFTER is
- `basic`, `extended`, `all`: ONNX Runtime's own optimizer at that level, with its fused operators of `com.microsoft`;
- `fused`: the fusions of onnxruntime.transformers for that kind of model;
- `sim`, `slim`: onnxsim and onnxslim;
- `half`, `mixed`: float16 by onnxruntime.transformers, with inputs and outputs of float16, and of float32.

Needs onnx (1.23), onnxruntime (1.31), onnxsim, onnxslim and sympy. Weights are taken out as `weights.py` does. What a
tool refuses is left out and said.
"""
import sys
import tempfile
from pathlib import Path

import onnx
import onnxruntime
import onnxsim
import onnxslim
from onnxruntime.transformers import float16, optimizer

from weights import strip, take_out

HERE = Path(__file__).parent
TARGET = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "processed")
# Export, number of heads, width, and the name that onnxruntime.transformers has for what is most like it.
SOURCES = [
    ("latte.ts17.dynamic", 2, 16, "bert"),
    ("latte.dyn23.static", 2, 16, "bert"),
    ("cogvideox/cogvideox.ts17.static", 2, 16, "mmdit"),
    ("cogvideox/cogvideox.dyn23.static", 2, 16, "mmdit"),
    ("flux/flux.ts17.static", 2, 16, "mmdit"),
    ("flux/flux.dyn23.dynamic", 2, 16, "mmdit"),
    ("sd3/sd3.ts17.static", 2, 16, "mmdit"),
    ("sd3/sd3.dyn23.static", 2, 16, "mmdit"),
    ("dit/dit.ts17.static", 2, 16, "bert"),
    ("pixart/pixart.ts17.static", 2, 16, "bert"),
    ("sana/sana.ts17.static", 2, 16, "bert"),
    ("stdit3/stdit3.ts17.static", 4, 72, "bert"),
    ("osp10/osp10.ts17.dynamic", 4, 96, "bert"),
]
LEVELS = dict(
    basic=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    extended=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    all=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def by_session(level):
    def optimized(source, *_):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = LEVELS[level]
            options.optimized_model_filepath = str(path)
            options.log_severity_level = 4
            onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
            return onnx.load(path, load_external_data=False)

    return optimized


def fused(source, heads, width, kind):
    return optimizer.optimize_model(str(source), kind, heads, width, opt_level=0).model


def simplified(source, *_):
    proto, good = onnxsim.simplify(onnx.load(source))
    assert good
    return proto


def half(keep):
    def converted(source, *_):
        return float16.convert_float_to_float16(onnx.load(source), keep_io_types=keep)

    return converted


WAYS = {
    **{level: by_session(level) for level in LEVELS},
    "fused": fused,
    "sim": simplified,
    "slim": lambda source, *_: onnxslim.slim(str(source)),
    "half": half(False),
    "mixed": half(True),
}


def operators(proto):
    return tuple((node.op_type, len(node.input), len(node.output)) for node in proto.graph.node)


def runs(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main():
    TARGET.mkdir(exist_ok=True)
    for name, heads, width, kind in SOURCES:
        source = HERE / f"{name}.onnx"
        seen = {operators(onnx.load(source, load_external_data=False)): "the export"}
        for after, way in WAYS.items():
            path = TARGET / f"{source.stem}.{after}.onnx"
            try:
                proto = way(source, heads, width, kind)
                same = seen.setdefault(operators(proto), after)
                if same != after:
                    print(f"{path.name}: as {same}")
                    continue
                onnx.save(strip(take_out(proto, TARGET)), path)
                runs(path)
                print(path.name, path.stat().st_size)
            except Exception as error:  # Each tool has its own.
                path.unlink(missing_ok=True)
                print(f"{path.name}: {type(error).__name__}: {str(error)[:160]}")


if __name__ == "__main__":
    main()
