# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Sourced by the scripts of ci/ and tests/: where the cache is, how to complain.

top=${top:-$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)}
# shellcheck disable=SC2034 # for whoever sources this
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/unpin
PATH=$PATH:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL

say()
{
	printf '%s\n' "$*" >&2
}

# One clear line that says what is wrong and what to do.
die()
{
	say "${0##*/}: $*"
	exit 1
}
