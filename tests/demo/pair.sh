# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For the demonstrations that are written in shell: perftest's client and server on
# rxe0, and a directory $work.

top=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
watch=$top/build/userspace/userspace/demo/memory_watch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
port=20000

fail()
{
	printf '\n\n%s: %s\n' "${0##*/}" "$*"
	for file in server client; do
		[ ! -s "$work/$file" ] || sed "s/^/  $file: /" "$work/$file"
	done
	exit 1
}

listening()
{
	grep -qi ":$(printf %04X $port) [0-9A-F]*:0000 0A" \
		/proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# pair COMMAND...: both ends of it, until they have ended. What they had pinned and
# locked is in $work/now then, see memory_watch.
pair()
{
	port=$((port + 1))
	set -- "$@" -d rxe0 -x 1 -F -p $port
	"$@" >"$work/server" 2>&1 &
	server=$!
	tries=0
	until listening; do
		tries=$((tries + 1))
		[ $tries -lt 200 ] || fail "$*: the server does not listen"
		sleep 0.05
	done
	"$@" 127.0.0.1 >"$work/client" 2>&1 &
	client=$!
	"$watch" 60 $server $client >"$work/now" ||
		fail "$*: not done after 60 s, killed"
	wait $client || fail "$*: the client fails with status $?"
	wait $server || fail "$*: the server fails with status $?"
}
