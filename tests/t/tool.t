#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What can be said of the tool unpin without RDMA: options, messages, exit statuses,
# what it hands on, that it works from where it is installed, manual pages, completion.
# The rest is tests/verbs/preloaded.c.

. "$(dirname -- "$0")/check.sh"
top=$PWD
unpin=${UNPIN_BUILD:-$top/build}/userspace/unpin

# fails STATUS TEXT COMMAND...: with this exit status, and one or two lines on standard
# error only, which begin with the name of the tool and have TEXT.
fails()
{
	want=$1 text=$2
	shift 2
	"$@" >"$tmp/stdout" 2>"$tmp/stderr"
	status=$?
	echo "status $status"
	cat "$tmp/stdout" "$tmp/stderr"
	[ $status = "$want" ] && [ ! -s "$tmp/stdout" ] &&
		! grep -qv '^unpin: ' "$tmp/stderr" && grep -qF -e "$text" "$tmp/stderr"
}

# says TEXT COMMAND...: it succeeds, with TEXT in what it prints.
says()
{
	text=$1
	shift
	"$@" >"$tmp/stdout" || return
	cat "$tmp/stdout"
	grep -qF -e "$text" "$tmp/stdout"
}

# What only begins like the new one is another.
not_the_same()
{
	LD_PRELOAD=$1/libunpin.so.old "$unpin" run -x rxe10 -x rxe1 -x rxe1 env \
		2>"$tmp/stderr" | grep 'LD_PRELOAD\|EXCLUDE' >"$tmp/set"
	cat "$tmp/set"
	grep -qx UNPIN_EXCLUDE=rxe1,rxe10 "$tmp/set" &&
		grep -qx "LD_PRELOAD=$1/libunpin.so:$1/libunpin.so.old" "$tmp/set"
}

inner_forgets()
{
	"$unpin" run -v -x 'mlx*' "$unpin" run -m 1M env >"$tmp/env" || return
	grep UNPIN_ "$tmp/env"
	grep -qx UNPIN_MIN_SIZE=1048576 "$tmp/env" &&
		! grep -q 'UNPIN_VERBOSE\|UNPIN_EXCLUDE' "$tmp/env"
}

# With an own pid before, so that it is known to be the program's.
same_process()
{
	# shellcheck disable=SC2016 # the inner shell's
	sh -c 'echo $$; exec "$@"' sh "$unpin" run sh -c 'echo $$ $UNPIN_PID' >"$tmp/pids"
	cat "$tmp/pids"
	[ "$(tr '\n' ' ' <"$tmp/pids" | awk '$1 == $2 && $2 == $3')" ]
}

summary_in()
{
	mkdir -p "$tmp/elsewhere" && echo old >"$tmp/summary" || return
	(cd "$tmp" && "$unpin" run --summary=summary env -C elsewhere true) || return
	cat "$tmp/summary"
	[ "$(sed 's/\[[0-9]*\]//' "$tmp/summary")" = \
		"unpin: true: registrations: 0, 0 bytes
unpin: true: on demand: 0, 0 bytes" ]
}

summary_on_dev_stderr()
{
	"$unpin" run --summary=/dev/stderr true 2>&1 | grep 'registrations: 0'
}

# no_reader WHERE: standard error is a pipe that nobody reads.
no_reader()
{
	perl -e 'pipe(R, W) && close(R) && open(STDERR, ">&", \*W) or exit 1;
		$SIG{PIPE} = "DEFAULT"; exec @ARGV; exit 1' "$unpin" run "$1" true
}

# Where the library cannot be preloaded from, and then moved.
installs()
{
	make -s install DESTDIR="$tmp/a root" PREFIX=/opt/x &&
		mv "$tmp/a root" "$tmp/root" &&
		(cd "$tmp/root" && find . -type f | sort) >"$tmp/files" || return
	cat "$tmp/files"
	[ "$(wc -l <"$tmp/files")" = 6 ] &&
		says "LD_PRELOAD=$tmp/root/opt/x/bin/../lib/unpin/libunpin.so" \
			"$tmp/root/opt/x/bin/unpin" run env
}

no_library()
{
	mkdir -p "$tmp/bare" && cp "$unpin" "$tmp/bare" &&
		fails 125 'no libunpin.so' "$tmp/bare/unpin" run true
}

blank_in_path()
{
	mkdir -p "$tmp/a b" && cp "$unpin" "${unpin%/*}/libunpin.so" "$tmp/a b" &&
		fails 125 'a colon or a blank' "$tmp/a b/unpin" run true
}

# Of each option in --help, the manual page, and the completion.
same_options()
{
	for command in doctor run; do
		"$unpin" $command --help
	done | grep -o -- '--[a-z-]*[a-z]' | sort -u >"$tmp/help"
	[ "$(wc -l <"$tmp/help")" -ge 10 ] || return
	while read -r option; do
		sed 's/\\-/-/g' userspace/man/unpin.1 | grep -qF -e "$option" ||
			echo "$option is not in unpin.1"
		grep -qF -e "$option" userspace/completion/unpin ||
			echo "$option is not completed"
	done <"$tmp/help" | tee "$tmp/missing"
	[ ! -s "$tmp/missing" ]
}

manual()
{
	for page in userspace/man/*.[1-8]; do
		groff -man -ww -z -Tutf8 "$page" || return
	done 2>&1 | tee "$tmp/warnings"
	[ ! -s "$tmp/warnings" ]
}

# doctor NAME COMMAND...: without this device it says what is missing, and how to get it.
doctor()
{
	name=$1
	shift
	"$@" doctor --verbose --device="$name" >"$tmp/stdout" 2>"$tmp/stderr"
	status=$?
	echo "status $status"
	cat "$tmp/stdout" "$tmp/stderr"
	[ $status = 1 ] && [ ! -s "$tmp/stderr" ] &&
		{ [ -d /sys/module/rdma_rxe ] || grep -q '^missing  module: ' "$tmp/stdout"; } &&
		grep -A 1 "^missing  device: there is no RDMA device '$name'" "$tmp/stdout" |
			grep -q "^ *remedy: rdma link add $name type rxe netdev " &&
		grep -q '^note     transfer: not tried' "$tmp/stdout" &&
		tail -n 1 "$tmp/stdout" | grep -q '^does not work: '
}

doctor_as_nobody()
{
	chmod 755 "$tmp"
	mkdir -p "$tmp/bin" && cp "$unpin" "$tmp/bin" || return
	set -- "$tmp/bin/unpin"
	[ "$(id -u)" != 0 ] || set -- setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
	doctor none "$@"
}

# completes WANT WORD...: the last word becomes one of WANT.
completes()
{
	# shellcheck disable=SC2016 # bash's own
	bash -c '. userspace/completion/unpin
		want=$1; shift
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		_unpin
		echo "${COMPREPLY[*]}"; [ "${COMPREPLY[*]}" = "$want" ]' bash "$@"
}

echo 1..43
check "no command" fails 125 'no command;' "$unpin"
check "an unknown command" fails 125 "no command 'fly'" "$unpin" fly
check "no program" fails 125 'no program' "$unpin" run
check "an unknown option" fails 125 "'--fly'" "$unpin" run --fly true
check "a size that is none" fails 125 "'64KB' is not a size" "$unpin" run -m 64KB true
check "a negative size" fails 125 "'-1' is not a size" "$unpin" run -m -1 true
check "a size beyond 64 bits" fails 125 'not a size' "$unpin" run -m 16777216T true
check "an unknown transport" fails 125 "'xrc' is not" "$unpin" run -t rc,xrc true
check "an unknown way to prefetch" fails 125 'not' "$unpin" run --prefetch=soon true
check "a summary where none can be" \
	fails 125 'No such file' "$unpin" run --summary=/nowhere/x true
check "a program that is not there" fails 127 'No such file' "$unpin" run ./nothing
check "a program that is none" fails 126 'Permission denied' "$unpin" run /etc/passwd
check "no library" no_library
check "a path that cannot be preloaded" blank_in_path
check "the program's exit status" \
	sh -c "'$unpin' run -- sh -c 'exit 42'; [ \$? = 42 ]"
check "the program's options are its own" says 'x -v --help' "$unpin" run echo x -v --help
check "help" says 'Commands:' "$unpin" --help
check "help of a command" says '--exclude' "$unpin" run --help
check "version" says 'unpin ' "$unpin" --version
check "options become environment" sh -c "'$unpin' run -m 64K -x a -x 'b*,c' --prefetch=wait \
	-t rc,ud -v env | grep ^UNPIN_ | grep -vE '^UNPIN_(PID|BUILD|TAP)=' | sort | tr '\n' ' ' |
	grep -x 'UNPIN_EXCLUDE=b\*,c,a UNPIN_MIN_SIZE=65536 UNPIN_ON_DEMAND=1 UNPIN_PREFETCH=wait UNPIN_TRANSPORT=rc,ud UNPIN_VERBOSE=1 '"
check "what was preloaded before stays" \
	sh -c "LD_PRELOAD=libc.so.6 '$unpin' run env | grep -x 'LD_PRELOAD=/.*/libunpin.so:libc.so.6'"
check "what is like it is another" not_the_same "${unpin%/*}"
check "--dlsym wants an auditor" says '/libunpin-audit.so' "$unpin" run --dlsym env
check "one unpin run inside another" inner_forgets
check "the program is the same process" same_process
check "a summary in a file" summary_in
check "a summary in a file without a path" summary_on_dev_stderr
check "a summary that nobody reads" no_reader --summary
check "a summary that nobody reads, by its path" no_reader --summary=/dev/stderr
check "doctor without a device" doctor none "$unpin"
check "doctor as nobody" doctor_as_nobody
check "doctor of what is no device" doctor . "$unpin"
check "doctor: an unknown option" fails 2 "'--fly'" "$unpin" doctor --fly
check "doctor: an argument" fails 2 "'rxe0' is no option" "$unpin" doctor rxe0
check "doctor: nobody can read it" \
	sh -c "'$unpin' doctor >/dev/full 2>'$tmp/stderr'; [ \$? = 2 ] && grep '^unpin: ' '$tmp/stderr'"
check "doctor: help" says '--no-transfer' "$unpin" doctor --help
check "make install" installs
check "all options everywhere" same_options
check "manual pages" manual
check "completion: options" completes --prefetch unpin run -v --pr
check "completion: doctor" completes --no-transfer unpin doctor --no
check "completion: values" completes 'rc uc ud' unpin run --transport = ''
check "completion: the program" completes "$(bash -c 'compgen -c -- shopt')" unpin run -m 4K -s -- shopt
