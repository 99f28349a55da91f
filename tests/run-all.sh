#!/bin/bash
# Runs every check and test and ends with one line: N passed, N failed, N skipped. Called by `make test`, which has
# staged what is tested. A check (format, lints) counts as one test. Exit status 1 when anything failed.
#
# Environment: CARGO_TARGET_DIR, BULKHEAD_STAGE and LAB (the bulkhead-lab binary), all set by the Makefile; TESTS, an
# extended regular expression, picks among the tests that need machines.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Ours to set: the lab this run brings up.
unset BULKHEAD_LAB

passed=0 failed=0 skipped=0 failures=() second=()
log=$(mktemp)
# A lab that says nothing for so many seconds is stuck: no test takes as long, a tour of podman about 330 s.
SILENCE=720

# heading TEXT...: with the minutes since the beginning
heading() { printf '== %s (%d:%02d)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

# check NAME COMMAND...: passes or fails as a whole
check() {
    local name=$1
    shift
    heading "$name"
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
    heading "$name"
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

new_lab() {
    "$LAB" down
    check "the next lab comes up" "$LAB" up
}

# run_named SECONDS BINARY TEST...: runs these tests of a binary, with their output kept in $log as well
run_named() {
    local seconds=$1 binary=$2 output line got
    shift 2
    exec {output}< <(in_place "$seconds" "$binary" --test-threads=2 --exact "$@" 2>&1)
    while IFS= read -r -t "$SILENCE" line <&"$output" || { got=$?; [ "$got" -gt 128 ]; }; do
        if [ "${got:-0}" -gt 128 ] && [ -n "${BULKHEAD_LAB:-}" ]; then
            echo "== the lab has been silent for $SILENCE s: down with it"
            "$LAB" down
        fi
        got=0
        printf '%s\n' "$line"
    done | tee -a "$log"
    exec {output}<&-
}

# results WORD: the names of the tests in $log that ended so
results() { sed -n "s/^test \\([^ ]*\\) \\.\\.\\. $1.*/\\1/p" "$log" | sort -u; }

# without_engines: takes the tests of what is not there out of $all, by name. A lab has all of it.
without_engines() {
    local tests file test
    [ -z "${BULKHEAD_LAB:-}" ] || return 0
    while read -r tests file; do
        [ ! -e "$file" ] || continue
        for test in $(grep "^$tests" <<<"$all"); do
            echo "test $test ... ignored, there is no $file"
            skipped=$((skipped + 1))
        done
        all=$(grep -v "^$tests" <<<"$all")
    done <<END
podman:: /usr/bin/podman
docker:: /usr/sbin/dockerd
schema::features /usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema/features-schema.json
END
}

# in_machines NAME SECONDS BINARY...: tests that boot machines, mount and make cgroups, where that works and harms
# nobody. The lab is an emulation with faults of its own (docs/lab.md): one that dies is replaced, and the tests that have no
# result yet run in the next; tests that failed in a lab have one second try in a fresh one, and are told by name.
in_machines() {
    local name=$1 seconds=$2 binary all todo bad attempt
    shift 2
    heading "$name"
    for binary; do
        all=$("$binary" --list 2>/dev/null | sed -n 's/: test$//p' | grep -E -- "${TESTS:-}" | sort)
        without_engines
        [ -n "$all" ] || continue
        : >"$log"
        for attempt in 1 2 3; do
            todo=$(comm -23 <(echo "$all") <(results '\(ok\|FAILED\|ignored\)'))
            [ -n "$todo" ] || break
            if [ "$attempt" != 1 ]; then
                [ -n "${BULKHEAD_LAB:-}" ] || break
                echo "== $(wc -l <<<"$todo") tests have no result"
                new_lab
            fi
            # shellcheck disable=SC2086 # names of tests have no spaces
            run_named "$seconds" "$binary" $todo
        done
        bad=$(comm -12 <(echo "$all") <(results FAILED))
        if [ -n "$bad" ] && [ -n "${BULKHEAD_LAB:-}" ]; then
            heading "the second try of" $bad
            new_lab
            sed -i 's/ \.\.\. FAILED$/ ... failed at first/' "$log"
            # shellcheck disable=SC2086
            run_named "$seconds" "$binary" $bad
            mapfile -t -O "${#second[@]}" second < <(comm -12 <(echo "$bad") <(results ok))
        fi
        passed=$((passed + $(results ok | wc -l))) skipped=$((skipped + $(results ignored | wc -l)))
        # A test without a result is a failure, whatever kept it from one.
        mapfile -t -O "${#failures[@]}" failures < <(comm -23 <(echo "$all") <(results '\(ok\|ignored\)'))
        failed=$((failed + $(comm -23 <(echo "$all") <(results '\(ok\|ignored\)') | wc -l)))
    done
}

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
mapfile -t binaries < <(xargs realpath <"$integration")
in_machines "integration tests" 1200 "${binaries[@]}"
in_machines "end-to-end tests" 2700 "$(realpath "$(cat "$e2e")")"

heading "done"
for test in "${second[@]}"; do
    echo "passed at the second try only: $test"
done
for failure in "${failures[@]}"; do
    echo "failed: $failure"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
