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
    cargo run --release -- bench models/latte-shapes/model.onnx --rules latte --rounds 150 --openings 15 --size text=4 --threads 2

# The table of docs/strategies: 32 clips by every set of rules there.
strategies:
    cargo run --release -- compare models/latte-shapes/model.onnx --clips 32 -o target/strategies \
        $(for rules in docs/strategies/*.yaml; do echo --rules $rules; done)

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
