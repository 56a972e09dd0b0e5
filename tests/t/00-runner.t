#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The runner itself: a program that hangs, skips, says too little or too much, a
# splat, a panic, a reboot and a silent guest are each reported as what they are,
# and what comes after a lost guest still runs (tests/runner).

. "$(dirname -- "$0")/check.sh"

echo 1..9
UNPIN_PLAN=tests/runner/plan UNPIN_SKIPS=tests/runner/skips UNPIN_GRACE=5 \
	tests/group sham >"$tmp/tap" 2>"$tmp/err"
status=$?
grep -v '^#' "$tmp/tap" | sed 's/\[ *[0-9.]*\] //' >"$tmp/got"
check "tests/group reports every kind of misbehaviour" \
	diff -u tests/runner/expected "$tmp/got"
check "tests/group exits with 1 if anything failed" test $status = 1
check "and shows what a lost guest said last" \
	grep -q '^# log: .*Kernel panic - not syncing: sysrq' "$tmp/tap"

UNPIN_PLAN=tests/runner/plan tests/group pair >"$tmp/pair" 2>"$tmp/err"
grep -E '^(not )?ok' "$tmp/pair" | sed 's/ (.*//' >"$tmp/got"
check "a peer that is lost fails its group, and nothing else" \
	diff -u - "$tmp/got" <<EOF
ok 1 - sham[waits] the peer has been there
ok 2 - sham[waits] ends well
not ok 3 - pair: the peer serves, kernel log clean
ok 4 - pair: modules unload, kernel log clean
EOF

tests/tally "$tmp/tap" >"$tmp/tally"
check "the tally counts them" \
	grep -qx '27 passed, 15 failed, 1 skipped' "$tmp/tally"
sed '$d' "$tmp/tap" >"$tmp/short"
tests/tally "$tmp/short" >"$tmp/tally"
check "a case that was planned and never came counts as failed" \
	grep -qx '26 passed, 16 failed, 1 skipped' "$tmp/tally"

tests/vm/run --stock --mem 512 --timeout 60 -- sh -c 'exit 7' >"$tmp/err" 2>&1
status=$?
check "tests/vm/run hands on the status of the command" test $status = 7

tests/check-pyverbs --compare tests/runner/pyverbs-ours tests/runner/pyverbs-stock \
	>"$tmp/got" 2>"$tmp/err"
grep -v '^#' tests/runner/pyverbs-compared >"$tmp/want"
check "tests/check-pyverbs shows each difference" diff -u "$tmp/want" "$tmp/got"
tests/check-pyverbs --compare /dev/null /dev/null >"$tmp/got" 2>"$tmp/err"
status=$?
check "and fails if there is nothing to compare" test $status = 1
