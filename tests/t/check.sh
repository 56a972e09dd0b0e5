# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For the tests here that are written in shell: in the project's directory, with a
# directory $tmp of their own, the number $n of the last case, and $failed of them.

set -u
cd "$(dirname -- "$0")/../.." || exit
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
n=0 failed=0

# check WHAT COMMAND...: ok if it succeeds.
check()
{
	n=$((n + 1))
	what=$1
	shift
	if "$@" >"$tmp/out" 2>&1; then
		echo "ok $n - $what"
	else
		failed=$((failed + 1))
		echo "not ok $n - $what"
		sed 's/^/# /' "$tmp/out"
	fi
}
