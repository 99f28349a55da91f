#!/bin/bash
# Runs every check and test and ends with one line: N passed, N failed, N skipped. Called by `make test`, which has staged what
# is tested, and sets LAB and SUITE. TESTS, a regular expression, picks among the tests that need machines.
#
# The work is in tests/src/suite. Here is what must happen however it ends: no lab is left.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export BULKHEAD_LAB=test-$$
export BULKHEAD_KERNEL=$BULKHEAD_STAGE/share/bulkhead/vmlinux
trap '"$LAB" status >/dev/null && "$LAB" down' EXIT

"$SUITE"
