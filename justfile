# Recurring chores; `just --list` shows them.

# Formatting, lints and all tests, as CI runs them.
check:
    .ci/run

# The main job on the shipped model.
compare *options:
    cargo run --release -- compare models/latte-shapes/model.onnx --rules latte {{ options }}

# The figures of the README: 16 clips, and single steps.
figures:
    cargo run --release -- compare models/latte-shapes/model.onnx --rules latte --clips 16 -o target/figures
    cargo run --release -- bench models/latte-shapes/model.onnx --rules latte --rounds 120 --openings 40 --size text=4 --threads 2

# The table of docs/strategies: 32 clips by every set of rules there.
strategies:
    cargo run --release -- compare models/latte-shapes/model.onnx --clips 32 -o target/strategies \
        $(for rules in docs/strategies/*.yaml; do echo --rules $rules; done)

# docs/planner.md: predictions beside published times, and beside times measured here.
planner:
    cargo build --release
    python3 docs/planner/check.py target/release/pab-patch

# docs/split.md: splits over ranks against the whole, what ranks send, and how long two take; PYTHON has torch and diffusers.
split-table python="python3" *folders="tests/data/corpus":
    cargo bench --bench split -- equal {{ folders }}
    cargo bench --bench split -- bytes {{ folders }}
    cargo bench --bench split -- speed
    {{ python }} benches/split/true_width.py target/split/latte-1152.onnx
    cargo bench --bench split -- speed target/split/latte-1152.onnx
    cargo bench --bench split -- page

# Everything in docs/calibration: curves, rules fitted to two runs, and both judged over 32 clips.
calibration *options:
    cargo run --release -- calibrate models/latte-shapes/model.onnx --forms span-1,span-2 --ranges 3,5,8 --clips 3 --points 4 \
        --min-ssim 0.95 --also-scheduler docs/calibration/dpm-solver.json --also-steps 25 --threads 1 --judge-clips 32 \
        --against-steps 25,20,12 $(for rules in 2-4-6 3-5-7 5-7-9; do echo --against docs/strategies/reuse-$rules.yaml; done) \
        -o docs/calibration {{ options }}

# Load, patch and save a graph of 100,000 nodes.
bench-graph:
    cargo bench --bench large_graph

# Licences, advisories, sources and duplicates of all dependencies.
deny:
    cargo deny check

# Our loops against diffusers' own (docs/against_diffusers.md); PYTHON has torch, diffusers and numpy.
against-diffusers python="python3" *options:
    cargo build --release
    {{ python }} benches/against_diffusers/run.py target/release/pab-patch {{ options }}
