"""Runs a model that `pab-patch split` wrote, with nothing but onnxruntime and the library of operators.

    ranks.py OPERATORS OUTPUT MODEL...

With the graphs of all ranks, each runs in a thread of its own. With one graph, this process is the rank that PAB_MESH,
PAB_RANK and PAB_ADDRESS say. OUTPUT gets the first output of (the first) rank, as .npy.
"""

import sys
import threading

import numpy
import onnxruntime

# The first session of a process makes the operators' domain known, which ONNX Runtime does not let two do at once.
OPENING = threading.Lock()


def options(library, entries):
    options = onnxruntime.SessionOptions()
    # Operators run one after the other: the default, and needed.
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = 1
    for key, value in entries.items():  # before the operators are registered
        options.add_session_config_entry(key, str(value))
    options.register_custom_ops_library(library)
    return options


def inputs(session):
    """The same numbers on every rank: inputs come whole."""
    values = {}
    for port in session.get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in port.shape]
        numbers = numpy.arange(numpy.prod(shape)).reshape(shape)
        if port.type == "tensor(float)":
            values[port.name] = numpy.sin(numbers, dtype=numpy.float32)
        elif port.type == "tensor(bool)":
            values[port.name] = numbers < 0  # the flags of rules: compute
        else:
            values[port.name] = numpy.full(shape, 500, numpy.int64)
    return values


def run(library, model, entries):
    with OPENING:
        session = onnxruntime.InferenceSession(model, options(library, entries), providers=["CPUExecutionProvider"])
    return [session.run(None, inputs(session))[0] for _ in range(2)][-1]


def main():
    library, output, *models = sys.argv[1:]
    if len(models) == 1:
        numpy.save(output, run(library, models[0], {}))
        return
    results, errors = {}, []

    def rank(number, model):
        entries = {"pab.mesh": f"sequence={len(models)}", "pab.rank": number, "pab.group": "ranks"}
        try:
            results[number] = run(library, model, entries)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=rank, args=pair) for pair in enumerate(models)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert all(numpy.array_equal(results[0], result) for result in results.values())
    numpy.save(output, results[0])


main()
