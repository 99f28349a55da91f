#!/bin/bash
# Builds and runs the fuzz targets. Called by `make fuzz`.
#
#   run.sh SECONDS TARGET...        each target for so many seconds, from its corpus; stops at the first finding
#   run.sh --again INPUT            one input of fuzz/artifacts/TARGET/ once more
#
# The flags are those of cargo-fuzz: coverage counters, comparisons and AddressSanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

triple=x86_64-unknown-linux-gnu
target_dir=${CARGO_TARGET_DIR:-../target}/fuzz
cp ../Cargo.lock Cargo.lock

# build TARGET...
build() {
    RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$target_dir \
        RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module -Ccodegen-units=1 \
            -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
        cargo build --release --target $triple "${@/#/--bin=}"
}

# A leak of a whole run would be seen as growth; the leak checker itself needs ptrace.
export ASAN_OPTIONS=detect_leaks=0
if [ "$1" = --again ]; then
    target=$(basename "$(dirname "$2")")
    build "$target"
    exec "$target_dir/$triple/release/$target" "../$2"
fi

seconds=$1
shift
build "$@"
for target; do
    echo "== $target, $seconds s"
    mkdir -p "corpus/$target" "artifacts/$target"
    "$target_dir/$triple/release/$target" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -max_len=8192 \
        -print_final_stats=1 -artifact_prefix="artifacts/$target/" "corpus/$target"
done
