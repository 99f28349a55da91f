#!/bin/bash
# Runs every check and test and ends with one line: N passed, N failed, N skipped. Called by `make test`, which has
# staged what is tested. A check (format, lints) counts as one test. Exit status 1 when anything failed.
#
# Environment: CARGO_TARGET_DIR, BULKHEAD_STAGE and LAB (the bulkhead-lab binary), all set by the Makefile.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Ours to set: the lab this run brings up.
unset BULKHEAD_LAB

passed=0 failed=0 skipped=0 failures=()
log=$(mktemp)

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

# in_place SECONDS COMMAND...: runs where KVM works
in_place() {
    local seconds=$1
    shift
    if [ -n "${BULKHEAD_LAB:-}" ]; then
        "$LAB" exec --timeout "$seconds" -- "$@" </dev/null
    else
        timeout --kill-after=10 "$seconds" "$@" </dev/null
    fi
}

# Integration tests of the crates boot machines, mount and make cgroups: they run where that works and harms nobody.
integration() {
    local binary status=0
    while read -r binary; do
        in_place 1200 "$(realpath "$binary")" --test-threads=2 || status=$?
    done <"$integration"
    return "$status"
}

end_to_end() { in_place "${E2E_TIMEOUT:-2700}" "$(realpath "$(cat "$e2e")")" --test-threads=2 ${E2E_ARGS:-}; }

# built LIST COMMAND...: builds test binaries without running them and lists their paths in a file
built() {
    local list=$1 said
    shift
    # "  Executable tests/boot/main.rs (target/debug/deps/boot-0123)"; unit tests say "unittests src/lib.rs"
    said=$("$@" --no-run 2>&1) || {
        echo "$said"
        return 1
    }
    sed -n '/^ *Executable unittests /d; s/^ *Executable .*(\(.*\))$/\1/p' <<<"$said" >"$list"
}

lists=$(mktemp -d)
integration=$lists/integration e2e=$lists/e2e
finish() {
    rm -rf "$log" "$lists"
    [ -z "${BULKHEAD_LAB:-}" ] || "$LAB" down
}
trap finish EXIT

check "format" cargo fmt --all --check
check "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
check "lints of the end-to-end tests" cargo clippy -p bulkhead-tests --test e2e --quiet -- -D warnings
tests "unit tests" cargo test --workspace --lib --bins --no-fail-fast --quiet
check "build of the integration tests" built "$integration" cargo test --workspace --tests
check "build of the end-to-end tests" built "$e2e" cargo test --workspace --test e2e

place=$("$LAB" where)
echo "== what needs KVM runs on $place"
export BULKHEAD_KERNEL=$BULKHEAD_STAGE/share/bulkhead/vmlinux
if [[ $place == lab:* ]]; then
    export BULKHEAD_LAB=test-$$
    check "the lab comes up" "$LAB" up
fi
tests "integration tests" integration
tests "end-to-end tests" end_to_end

for failure in "${failures[@]}"; do
    echo "failed: $failure"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
