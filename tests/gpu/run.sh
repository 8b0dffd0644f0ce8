#!/usr/bin/env bash
# Everything that needs a GPU, in under 10 minutes and without a network: parity with the processor, caches and latents that
# stay on the device, CUDA graphs, where nodes run, and a table of speed-ups.
#
#   tests/gpu/run.sh [DEVICE]          DEVICE as in --device [default: cuda]
#
# Build before, where there is a network, and carry along with this folder, `models/` and `tests/data/`:
#   cargo build --release && cargo test --release --no-run --test end_to_end
# The machine needs an NVIDIA driver and a Python environment with onnxruntime-gpu[cuda,cudnn] (in VIRTUAL_ENV or on PATH; or its
# `capi` folder in ORT_DYLIB_PATH). PAB_PATCH and PAB_PATCH_TESTS name the two programs where they lie elsewhere, and
# PAB_GPU_SECONDS another limit for all checks together.
# Exit code: 0 all checks passed, 1 one failed or there was no time left for it, 77 there is no device to check on.
set -uo pipefail
cd "$(dirname "$0")/../.."
device=${1:-cuda}
limit=${PAB_GPU_SECONDS:-570}
program=${PAB_PATCH:-target/release/pab-patch}
tests=${PAB_PATCH_TESTS:-$(ls -t target/release/deps/end_to_end-* 2>/dev/null | grep -v '\.d$' | head -1)}
for file in "$program" "$tests"; do
    if [ ! -x "$file" ]; then
        echo "tests/gpu/run.sh: ${file:-the test program} is not there; see the head of this script for what to build" >&2
        exit 1
    fi
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
model=models/latte-shapes/model.onnx

# Runs a command for at most so many seconds, and for no more than are left of all.
within() {
    local most=$1 left=$((limit - SECONDS))
    shift
    if [ "$left" -lt 1 ]; then
        echo "no time is left of $limit seconds" >&2
        return 124
    fi
    timeout -k 5 "$((most < left ? most : left))" "$@"
}

if ! within 120 "$program" run "$model" --device "$device" --steps 1 -q -o "$folder/probe" 2> "$folder/reason"; then
    echo "NOT RUN: --device $device cannot be used here" >&2
    cat "$folder/reason" >&2
    exit 77
fi

failed=0
# check WHAT SECONDS COMMAND...
check() {
    local what=$1 most=$2
    shift 2
    echo "== $what"
    if ! within "$most" "$@"; then
        echo "FAILED: $what: $*" >&2
        failed=1
    fi
    echo "   ($SECONDS of $limit seconds)"
}

# What must hold.
check "parity, host copies, CUDA graphs, memory of variants" 240 env "PAB_PATCH_TEST_DEVICE=$device" "$tests" gpu:: --nocapture --test-threads 1

check "ranks by NCCL (needs libnccl.so.2: PyPI's nvidia-nccl-cu13)" 60 \
    env "PAB_PATCH_TEST_DEVICE=$device" "$tests" nccl:: --nocapture

# What it brings: each prints its table.
check "single steps on $device" 120 \
    "$program" bench "$model" --rules latte --size text=4 --rounds 20 --openings 2 --device "$device"
check "clips on $device, switches" 90 \
    "$program" compare "$model" --rules latte --clips 2 --device "$device" -o "$folder/switch"
check "clips on $device, variants" 90 \
    "$program" compare "$model" --rules latte --clips 2 --form variants --device "$device" -o "$folder/variants"
if [ "${device%%:*}" = cuda ]; then
    check "clips on $device, recorded variants" 90 \
        "$program" compare "$model" --rules latte --clips 2 --form variants --cuda-graph --device "$device" \
        -o "$folder/recorded"
fi
exit $failed
