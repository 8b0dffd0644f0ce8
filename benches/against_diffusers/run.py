"""Our original and patched loop against diffusers' own, without and with its Pyramid Attention Broadcast: seconds a clip and
peak memory, on the same weights, noise, steps and threads.

    python run.py PROGRAM [--rounds 4] [--clips 3] [--steps 50] [--threads 2] [--minutes 8] [--json FILE]

Every measurement is a process of its own that makes several clips, of which all but the first count. The order turns round at
each round; ratios are those of a round's medians, and of these the median. Peak memory is the largest resident set of the whole process, with all
that it loads. The pictures are compared, too: a loop that does something else has no time to compare with.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / "models" / "latte-shapes"

parser = argparse.ArgumentParser()
parser.add_argument("program", type=Path)
parser.add_argument("--rounds", type=int, default=4)
parser.add_argument("--clips", type=int, default=3, help="of each process; the first does not count")
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--minutes", type=float, default=8, help="no round begins that would end later")
parser.add_argument("--json", type=Path)
options = parser.parse_args()
program = options.program.resolve()


def measured(command):
    """What a process prints, and its largest resident set in MiB."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, env=environment)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return json.loads(printed), usage.ru_maxrss / 1024


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    noise = folder / "noise.npy"
    np.save(noise, np.random.default_rng(0).standard_normal((1, 3, 8, 32, 32)).astype(np.float32))
    prompts = folder / "prompts.txt"
    prompts.write_text("circle red right black\n" * options.clips)
    subprocess.run([program, FOLDER / "model.onnx", "--rules", "latte", "-o", folder / "patched", "-q"], check=True,
                   stdout=subprocess.DEVNULL)

    def ours(model):
        output = folder / "ours"
        printed, memory = measured([
            program, "run", model, "--prompts", prompts, "--noise", noise, "--steps", options.steps, "--threads", options.threads,
            "--guidance", 2, "--provider", "cpu", "--scheduler", FOLDER / "scheduler" / "scheduler_config.json", "--json", "-q",
            "-o", output])
        times = [clip["clip_milliseconds"] for clip in printed["clips"]]
        return times, memory, np.load(output / f"clip_{options.clips - 1:03}" / "clip.npz")["sample"]

    def diffusers(*broadcast):
        output = folder / "theirs.npy"
        printed, memory = measured([
            sys.executable, HERE / "loop.py", FOLDER, noise, output, "--steps", options.steps, "--threads", options.threads,
            "--clips", options.clips, *broadcast])
        return printed, memory, np.load(output)

    columns = {
        "diffusers": lambda: diffusers(),
        "original": lambda: ours(FOLDER / "model.onnx"),
        "diffusers, PAB": lambda: diffusers("--broadcast"),
        "patched": lambda: ours(folder / "patched" / "model.onnx"),
    }
    times = {name: [] for name in columns}
    memories = {name: [] for name in columns}
    samples = {}
    begun = time.monotonic()
    for round in range(options.rounds):
        if round and (time.monotonic() - begun) * (round + 1) / round > options.minutes * 60:
            break
        order = list(columns) if round % 2 == 0 else list(columns)[::-1]
        for name in order:
            milliseconds, memory, samples[name] = columns[name]()
            times[name].append([time / 1e3 for time in milliseconds[1:]])
            memories[name].append(memory)


def ratios(values, over, under):
    """Of each round."""
    return [statistics.median(a) / statistics.median(b) for a, b in zip(values[over], values[under])]


def ratio(values, over, under):
    return statistics.median(ratios(values, over, under))


def difference(name, other):
    a, b = samples[name].astype(np.float64), samples[other].astype(np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


result = {
    "rounds": len(times["original"]), "steps": options.steps, "threads": options.threads,
    "seconds": times, "peak_mib": memories,
    "difference": {"original": difference("original", "diffusers"), "patched": difference("patched", "diffusers, PAB")},
}
print(f"| {result['rounds']} rounds of {options.clips - 1} clips, {options.steps} steps, {options.threads} threads | seconds a clip | of diffusers' | peak memory | "
      "of diffusers' |\n| --- | --: | --: | --: | --: |")
for name in columns:
    seconds = statistics.median(time for round in times[name] for time in round)
    memory = [[value] for value in memories[name]]
    of_memory = ratio({name: memory, "diffusers": [[value] for value in memories["diffusers"]]}, name, "diffusers")
    print(f"| {name} | {seconds:.2f} | {ratio(times, name, 'diffusers'):.2f} | "
          f"{statistics.median(memories[name]):.0f} MiB | {of_memory:.2f} |")
print(f"\nspeed-up by broadcasting: ours {ratio(times, 'original', 'patched'):.2f} ×, diffusers' "
      f"{ratio(times, 'diffusers', 'diffusers, PAB'):.2f} ×; patched against diffusers with PAB "
      f"{ratio(times, 'diffusers, PAB', 'patched'):.2f} ×")
for name, value in result["difference"].items():
    print(f"largest difference of {name} from diffusers' clip: {value:.1e} of the largest value")
    if not value < 1e-4:
        sys.exit(f"{name} makes another clip than diffusers")
if options.json:
    options.json.write_text(json.dumps(result, indent=1) + "\n")
