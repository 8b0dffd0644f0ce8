"""Compares what `pab-patch plan` predicts with published times, and with times measured here; writes docs/planner.md.

    python3 docs/planner/check.py [PROGRAM]         (only Python's own library; `just planner` builds the program first)

The predictions are made from the graphs in `graphs.tar.xz`, with the peaks and efficiencies that the program has for the
device: nothing is fitted to the published times.
"""
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROGRAM = sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/pab-patch"
SCHEDULERS = {
    "flow": dict(_class_name="OpenSoraRFlowScheduler", num_timesteps=1000, use_timestep_transform=True),
    "ddim": dict(_class_name="DDIMScheduler", beta_start=0.0001, beta_end=0.02, beta_schedule="linear",
                 num_train_timesteps=1000, steps_offset=0, clip_sample=False),
    "pndm": dict(_class_name="PNDMScheduler", num_train_timesteps=1000, skip_prk_steps=True),
}
# Graph, rules, scheduler, steps, size of the video for the scheduler.
CLIPS = {
    "Open-Sora 1.2, 51 frames": ("open-sora-1.2-51", "open-sora-1.2", "flow", 30, "51x480x854"),
    "Open-Sora 1.2, 192 frames": ("open-sora-1.2-192", "open-sora-1.2", "flow", 30, "192x480x854"),
    "Open-Sora-Plan 1.1, 221 frames": ("open-sora-plan-221", "open-sora-plan-1.1", "pndm", 150, None),
    "Latte, 128 frames": ("latte-128", "latte", "ddim", 50, None),
    "Open-Sora 1.0, 80 frames": ("open-sora-1.0-80", "pab", None, 100, None),
}
OPEN_SORA, LONG, PLAN, LATTE, FIRST = CLIPS
# What is published in seconds: clip, device, ranks, method, what of the run, seconds, source.
PUBLISHED = [
    (OPEN_SORA, "h100", 1, "dsp", "original", 26.54, "PAB, table 1"),
    (OPEN_SORA, "h100", 1, "dsp", "broadcast", 19.87, "PAB, table 1"),
    (LONG, "h100", 1, "dsp", "original", 97.5, "PAB, figure 1"),
    (LONG, "h100", 1, "dsp", "broadcast", 71.25, "PAB, table of sequence parallelism"),
    (LONG, "h100", 8, "ulysses", "original", 12.34, "the same"),
    (LONG, "h100", 8, "ulysses", "broadcast", 9.85, "the same"),
    (LONG, "h100", 8, "dsp", "original", 12.01, "the same"),
    (LONG, "h100", 8, "dsp", "broadcast", 9.2, "PAB, figure 1"),
    (PLAN, "h100", 1, "dsp", "original", 139.5, "PAB, figure 1"),
    (PLAN, "h100", 8, "dsp", "broadcast", 16.5, "PAB, figure 1"),
    (LATTE, "h100", 1, "dsp", "original", 80.5, "PAB, figure 1"),
    (LATTE, "h100", 8, "dsp", "broadcast", 9.2, "PAB, figure 1"),
    (FIRST, "h800", 1, "dsp", "original", 106.0, "DSP"),
    (FIRST, "h800", 8, "ulysses", "original", 45.0, "DSP"),
    (FIRST, "h800", 8, "dsp", "original", 22.0, "DSP"),
]
# Gigabytes a rank sends for Open-Sora 1.2 with 51 frames on 8 ranks, as the PAB paper counts them: with what stays.
SENT = [("ulysses", "original", 46.16), ("ulysses", "broadcast", 26.16), ("dsp", "original", 23.08), ("dsp", "broadcast", 13.08)]
# Times measured here: models that the repository has, sizes.
HERE_MEASURED = [
    ("the shipped model", "models/latte-shapes/model.onnx", ["--size", "text=4"]),
    ("the same, four clips", "models/latte-shapes/model.onnx", ["--size", "text=4", "--size", "batch=8"]),
    ("corpus: latte, of width 16", "tests/data/corpus/latte.ts17.static.onnx", []),
    ("corpus: cogvideox, of width 16", "tests/data/corpus/cogvideox/cogvideox.ts17.static.onnx", []),
]


def program(*arguments):
    out = subprocess.run([PROGRAM, *map(str, arguments), "--json", "-q"], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


def row(plan, ranks):
    return next(row for row in plan["rows"] if row["ranks"] == ranks)


def table(header, rows):
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines) + "\n"


def plan_of(folder, clip, device, method, *more):
    graph, rules, scheduler, steps, video = CLIPS[clip]
    arguments = ["plan", folder / f"{graph}.onnx", "--rules", rules, "--device", device, "--method", method,
                 "--axis", "frames", "--steps", steps]
    if scheduler:
        path = folder / f"{scheduler}.json"
        path.write_text(json.dumps(SCHEDULERS[scheduler]))
        arguments += ["--scheduler", path]
    if video:
        arguments += ["--video", video]
    return program(*arguments, *more)


def published(folder):
    plans, seconds = {}, {}
    for clip, device, ranks, method, part, *_ in PUBLISHED:
        key = clip, device, method
        if key not in plans:
            plans[key] = plan_of(folder, *key)
        seconds[clip, device, ranks, method, part] = row(plans[key], ranks)[part]["clip"]
    text = "## Published times\n\n"
    rows = []
    for *case, paper, source in PUBLISHED:
        clip, device, ranks, method, part = case
        ours = seconds[tuple(case)]
        rows.append([clip, f"{ranks} {device.upper()}", method if ranks > 1 else "", part, f"{paper:g} s", f"{ours:.1f} s",
                     f"{ours / paper:.2f}", source])
    text += table(["clip", "on", "method", "run", "published", "predicted", "predicted / published", "source"], rows)
    text += "Speed-ups, in which what neither counts falls out in part:\n\n"
    rows = []
    for clip, device, method, part, base, fast in [
        (OPEN_SORA, "h100", "dsp", "broadcast on 1 / original on 1", (1, "original"), (1, "broadcast")),
        (LONG, "h100", "dsp", "broadcast on 1 / original on 1", (1, "original"), (1, "broadcast")),
        (LONG, "h100", "ulysses", "original on 8", (1, "original"), (8, "original")),
        (LONG, "h100", "dsp", "original on 8", (1, "original"), (8, "original")),
        (LONG, "h100", "dsp", "broadcast on 8", (1, "original"), (8, "broadcast")),
        (PLAN, "h100", "dsp", "broadcast on 8", (1, "original"), (8, "broadcast")),
        (LATTE, "h100", "dsp", "broadcast on 8", (1, "original"), (8, "broadcast")),
        (FIRST, "h800", "dsp", "original on 8", (1, "original"), (8, "original")),
        (FIRST, "h800", "ulysses", "original on 8", (1, "original"), (8, "original")),
    ]:
        paper = {(c, r, m, p): value for c, _, r, m, p, value, _ in PUBLISHED}
        of_paper = paper[clip, 1, "dsp", "original"] / paper[clip, fast[0], method, fast[1]]
        rows_of = plans[clip, device, method]
        ours = row(rows_of, 1)["original"]["clip"] / row(rows_of, fast[0])[fast[1]]["clip"]
        rows.append([clip, f"{part}{', ' + method if fast[0] > 1 else ''}", f"{of_paper:.2f} ×", f"{ours:.2f} ×",
                     f"{100 * (ours / of_paper - 1):+.0f} %"])
    text += table(["clip", "of the original on 1", "published", "predicted", "deviation"], rows)
    text += "Bytes that a rank sends for Open-Sora 1.2, 51 frames, on 8 ranks. The paper counts `M/N` an all-to-all, with the " \
            "eighth that stays where it is; without it:\n\n"
    rows = []
    for method, part, paper in SENT:
        plan = plans.setdefault((OPEN_SORA, "h100", method), plan_of(folder, OPEN_SORA, "h100", method))
        ours = row(plan, 8)[part]["sent"] / 1e9
        rows.append([f"{method}, {part}", f"{paper * 7 / 8:.2f} GB", f"{ours:.2f} GB"])
    text += table(["", "published · 7/8", "predicted"], rows)
    flops = plans[OPEN_SORA, "h100", "dsp"]
    of_run = {part: row(flops, 1)[part]["flops"] / 1e12 for part in ("original", "broadcast")}
    text += f"Operations of that clip: published 3230 TFLOP and 2658 with broadcast, counted from the graph " \
            f"{of_run['original']:.0f} and {of_run['broadcast']:.0f}.\n\n"
    picture = HERE / "open-sora.svg"
    plan_of(folder, LONG, "h100", "dsp", "--plot", picture)
    text += "![Open-Sora 1.2, 192 frames, over 1 to 64 H100](planner/open-sora.svg)\n\n"
    return text, flops


def measured(folder):
    device = folder / "device.json"
    rows, shown = [], None
    for name, model, sizes in HERE_MEASURED:
        model = ROOT / model
        plan = program("plan", model, "--rules", HERE / "all.yaml", "--steps", 2, *sizes,
                       *(["--device", device] if device.exists() else ["--device", "measure", "--threads", 2,
                                                                        "--write-device", device]))
        shown = plan["device"]
        bench = program("bench", model, "--rules", HERE / "all.yaml", "--rounds", 12, "--openings", 3, "--threads", 2, *sizes)
        # Of two steps the first computes and the second broadcasts.
        first = row(plan, 1)
        original = first["original"]["step"] * 1e3
        broadcast = 2 * first["broadcast"]["step"] * 1e3 - original
        for part, ours, real in [("original", original, bench["original"]["median"]),
                                 ("everything broadcast", broadcast, bench["broadcasting"]["median"])]:
            rows.append([f"{name}, {part}", f"{real:.2f} ms", f"{ours:.2f} ms", f"{ours / real:.2f}"])
    text = "## Measured here\n\nONNX Runtime on two cores. Its rates were measured with products, chains of sums and of " \
           "functions, and small kernels (`--device measure`), never with these models:\n\n```json\n"
    text += json.dumps(shown, indent=1) + "\n```\n\n"
    return text + table(["a step", "measured", "predicted", "predicted / measured"], rows)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with tarfile.open(HERE / "graphs.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        text, plan = published(folder)
        text = (HERE / "head.md").read_text() + text + measured(folder)
        text += "## What is assumed\n\n" + "".join(f"- {line}\n" for line in plan["assumptions"])
        (HERE.parent / "planner.md").write_text(text)


if __name__ == "__main__":
    main()
