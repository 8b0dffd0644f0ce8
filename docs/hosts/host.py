"""A minimal host of a patched Latte export in Python: needs only numpy and onnxruntime.

    python host.py patched/model.onnx samples.bin       switch form, driven by flags or by the step: the plan says which
    python host.py variants/variants.json samples.bin   variant form

It knows the names of the model's own inputs, the names that begin with `pab.`, and the plan, nothing else. Where your
host has noise, text and a scheduler, this one has `numbers` and `scheduler_step`. Batch 2, 5 tokens of text where the
model leaves these open.
"""

import json
import os
import sys

import numpy as np
import onnxruntime

LATENT, TIMESTEP, TEXT, PREDICTION = "hidden_states", "timestep", "encoder_hidden_states", "sample"
OPEN_SIZES = {"batch": 2, "text": 5}
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def shape_of(port):
    return [size if isinstance(size, int) else OPEN_SIZES.get(size, 1) for size in port.shape]


def numbers(shape, seed):
    """Stands in for noise: numbers from -0.5 to 0.5 that every language makes alike."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed * 1000003)
    mixed = (index * np.uint64(2654435761)) % np.uint64(2**32)
    return ((mixed >> np.uint64(8)).astype(np.float32) / np.float32(2**24) - np.float32(0.5)).reshape(shape)


def scheduler_step(prediction, latent):
    """Stands in for a scheduler."""
    return latent - np.float32(0.125) * prediction[:, : latent.shape[1]]


class Host:
    """Runs steps and hands on what the model feeds back to itself."""

    def __init__(self, path):
        self.caches = {}  # By the name of the input; what is missing is zeros.
        if path.endswith(".json"):
            with open(path, encoding="utf-8") as file:
                index = json.load(file)
            folder = os.path.dirname(path)
            self.sessions = [open_session(os.path.join(folder, variant["file"])) for variant in index["variants"]]
            self.variant_of_step = index["steps"]
            self.timesteps = index["timesteps"]
            self.input_of = {pair["output"]: pair["input"] for pair in index["fed_back"]}
            self.plan = None
        else:
            session = open_session(path)
            self.plan = json.loads(session.get_modelmeta().custom_metadata_map["pab.plan"])
            schedule = self.plan["schedule"]
            self.sessions = [session]
            self.variant_of_step = [0] * len(schedule["broadcast"][0])
            self.timesteps = schedule["timesteps"]
            pairs = [cache for site in self.plan["sites"] for cache in site["caches"]]
            pairs += [rule["state"] for rule in self.plan["rules"] if rule.get("state")]
            self.input_of = {pair["output"]: pair["input"] for pair in pairs}

    def drive(self, step):
        """What tells the model what to broadcast; nothing of a variant, which was chosen by the step."""
        if self.plan is None:
            return {}
        if self.plan["drive"] == "step":
            return {"pab.step": np.array(step, np.int64)}
        rows = zip(self.plan["rules"], self.plan["schedule"]["broadcast"])
        return {rule["flag"]: np.array(row[step], np.bool_) for rule, row in rows}

    def step(self, step, own):
        session = self.sessions[self.variant_of_step[step]]
        feeds = {**own, **self.drive(step)}
        for port in session.get_inputs():
            if port.name not in feeds:
                # A size that depends on the inputs may be 1 here: zeros stand only where nothing was computed.
                feeds[port.name] = self.caches.get(port.name, np.zeros(shape_of(port), TYPES[port.type]))
        names = [port.name for port in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, feeds)))
        for output, tensor in outputs.items():
            if output in self.input_of:
                self.caches[self.input_of[output]] = tensor
        return outputs[PREDICTION]


def main(path, output):
    host = Host(path)
    ports = {port.name: port for port in host.sessions[0].get_inputs()}
    latent = numbers(shape_of(ports[LATENT]), 1)
    text = numbers(shape_of(ports[TEXT]), 2) if TEXT in ports else None
    with open(output, "wb") as file:
        for step, timestep in enumerate(host.timesteps):
            own = {
                LATENT: latent,
                TIMESTEP: np.full(shape_of(ports[TIMESTEP]), timestep, TYPES[ports[TIMESTEP].type]),
            }
            if text is not None:
                own[TEXT] = text
            latent = scheduler_step(host.step(step, own), latent)
            file.write(latent.tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
