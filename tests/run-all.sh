#!/bin/bash
# Runs every check and test and ends with one line: N passed, N failed, N skipped. Called by `make test`, which has
# staged what is tested. A check (format, lints) counts as one test. Exit status 1 when anything failed.
#
# Environment: CARGO_TARGET_DIR, BULKHEAD_STAGE and LAB (the bulkhead-lab binary), all set by the Makefile.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

passed=0 failed=0 skipped=0 failures=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# check NAME COMMAND...: passes or fails as a whole
check() {
    local name=$1
    shift
    echo "== $name"
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        failures+=("$name")
    fi
}

# tests NAME COMMAND...: counts what the test harnesses report
tests() {
    local name=$1 status counts
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    # "test result: ok. 12 passed; 0 failed; 1 ignored; ...", one line per test binary
    counts=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored;.*/\1 \2 \3/p' "$log" |
        awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}')
    read -r p f s <<<"$counts"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    # A build that broke, a harness that crashed or a deadline fails no test by name, but is a failure.
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        failed=$((failed + 1))
    fi
    if [ "$status" != 0 ]; then
        failures+=("$name (exit status $status)")
        sed -n 's/^test \(.*\) \.\.\. FAILED$/    \1/p' "$log" | while read -r line; do echo "FAILED: $line"; done
    fi
}

# The end-to-end test binary; its tests run where KVM works.
end_to_end() {
    local built binary
    built=$(cargo test --release -p bulkhead-tests --test e2e --no-run 2>&1) || {
        echo "$built"
        return 1
    }
    binary=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$built")
    "$LAB" run --if-needed --reuse --timeout "${E2E_TIMEOUT:-2700}" -- "$(realpath "$binary")" ${E2E_ARGS:---test-threads=2} </dev/null
}

check "format" cargo fmt --all --check
check "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
tests "unit tests" cargo test --workspace --no-fail-fast --quiet
tests "end-to-end tests" end_to_end

for failure in "${failures[@]}"; do
    echo "failed: $failure"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
