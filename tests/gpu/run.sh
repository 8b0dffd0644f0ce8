#!/usr/bin/env bash
# Everything that needs a GPU, in under 10 minutes and without a network: parity with the processor, caches that stay on the
# device, where nodes run, and a table of speed-ups.
#
#   tests/gpu/run.sh [DEVICE]          DEVICE as in --device [default: cuda]
#
# Build before, where there is a network, and carry along with this folder, `models/` and `tests/data/`:
#   cargo build --release && cargo test --release --no-run --test end_to_end
# The machine needs an NVIDIA driver and a Python environment with onnxruntime-gpu[cuda,cudnn] (in VIRTUAL_ENV or on PATH; or its
# `capi` folder in ORT_DYLIB_PATH). PAB_PATCH and PAB_PATCH_TESTS name the two programs where they lie elsewhere.
# Exit code: 0 all checks passed, 1 one failed, 77 there is no device to check on.
set -uo pipefail
cd "$(dirname "$0")/../.."
device=${1:-cuda}
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

if ! timeout 120 "$program" run "$model" --device "$device" --steps 1 -q -o "$folder/probe" 2> "$folder/reason"; then
    echo "NOT RUN: --device $device cannot be used here" >&2
    cat "$folder/reason" >&2
    exit 77
fi

failed=0
check() {
    echo "== $1"
    shift
    if ! timeout 240 "$@"; then
        echo "FAILED: $*" >&2
        failed=1
    fi
}
check "parity and host copies" env "PAB_PATCH_TEST_DEVICE=$device" "$tests" gpu:: --nocapture
check "ranks by NCCL (needs libnccl.so.2: PyPI's nvidia-nccl-cu13)" \
    env "PAB_PATCH_TEST_DEVICE=$device" "$tests" nccl:: --nocapture
check "single steps on $device" "$program" bench "$model" --rules latte --size text=4 --rounds 20 --openings 2 --device "$device"
check "clips on $device, switches" "$program" compare "$model" --rules latte --clips 2 --device "$device" -o "$folder/switch"
check "clips on $device, variants" \
    "$program" compare "$model" --rules latte --clips 2 --form variants --device "$device" -o "$folder/variants"
exit $failed
