#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What can be said about the sources without running them: checkpatch --strict and
# sparse on the kernel files, shellcheck on the scripts, an SPDX line everywhere,
# a test plan that leaves no program and no group out, and mutants that it can catch.

set -eu
cd "$(dirname -- "$0")/../.."
top=$PWD
. ci/env.sh

kver=${KVER:-$(ci/kver)}
kernel=$(ci/fetch "$kver")
out=${UNPIN_BUILD:-$top/build}/$kver/debug-sparse
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
n=0

# Tracked files, and new ones that are not ignored.
files()
{
	git ls-files --cached --others --exclude-standard -- "$@" |
		while read -r file; do
			[ ! -f "$file" ] || printf '%s\n' "$file"
		done
}

# Without a list of files nothing would be found, and all be well.
[ -n "$(files mm drivers)" ] || die "git cannot list the files here"

# case_of WHAT: ok if nothing was found, else the findings.
case_of()
{
	n=$((n + 1))
	if [ -s "$tmp/found" ]; then
		echo "not ok $n - $1"
		sed 's/^/# /' "$tmp/found"
	else
		echo "ok $n - $1"
	fi
}

kernel_files()
{
	files mm include/linux include/trace drivers samples | grep '\.[ch]$'
}

checkpatch()
{
	perl "$kernel/src/scripts/checkpatch.pl" --no-tree --strict --terse \
		--no-summary --show-types "$@"
}

scripts()
{
	files | while read -r file; do
		case $(head -n 1 "$file") in
		'#!/bin/sh' | '# SPDX'*) ;;
		*) continue ;;
		esac
		case $(head -n 2 "$file") in
		'#!/bin/sh'* | *'shell=sh'*) printf '%s\n' "$file" ;;
		esac
	done
}

echo 1..7

# Nobody maintains these paths in the kernel's MAINTAINERS. What a header of
# tracepoints consists of are not the calls that checkpatch takes them for.
kernel_files | while read -r file; do
	ignore=FILE_PATH_CHANGES
	case $file in
	include/trace/*) ignore=$ignore,OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT ;;
	esac
	checkpatch --ignore $ignore -f "$file" || :
done >"$tmp/found" 2>&1
case_of "checkpatch --strict, kernel files"

# The patches are applied by the build and not sent anywhere: no sign-off. On
# standard input, because a file that git knows is not taken for a patch.
files 'drivers/**/patches/*.patch' | while read -r file; do
	checkpatch --ignore FILE_PATH_CHANGES --no-signoff - <"$file" |
		sed "s|^-:|${file##*/}:|"
done >"$tmp/found" 2>&1
case_of "checkpatch --strict, patch series"

# The stock files of rxe have findings of their own; only ours are looked at.
: >"$tmp/found"
if SPARSE=1 ci/modules "$kver" debug-sparse >"$tmp/log" 2>&1; then
	kernel_files | sed "s|.*/rxe/|$out/rxe/|; s|^samples/mm_mirror/|$out/samples/|
		s|^mm/|$out/mm/|; s|^include/|$out/include/|" |
		grep -F -f - "$out/all.log" | grep -E '(warning|error):' >"$tmp/found" || :
else
	cp "$tmp/log" "$tmp/found"
fi
case_of "sparse and W=1, kernel files"

scripts | xargs shellcheck -x -P SCRIPTDIR -P . -f gcc >"$tmp/found" 2>&1 || :
case_of "shellcheck"

# The texts of the licences and the plain text that patch reads have no comments.
files | grep -vE '^LICENSES/|\.(patch|md)$|/expected$' | while read -r file; do
	head -n 2 "$file" | grep -q 'SPDX-License-Identifier: ' ||
		echo "$file: no SPDX line"
done >"$tmp/found"
case_of "SPDX lines"

{
	sed 's/#.*//' tests/plan | while read -r group name mode count rest; do
		[ -n "$group" ] || continue
		[ -f "tests/t/$group.t" ] || [ -f "tests/t-debug/$group.t" ] ||
			echo "tests/plan: no tests/t/$group.t"
		[ -f "tests/verbs/$name.c" ] || [ -f "tests/mm/$name.c" ] ||
			[ -x "tests/guest/$name" ] ||
			echo "tests/plan: no program $name ($mode, $count cases $rest)"
	done
	for file in tests/verbs/*.c tests/mm/*.c; do
		name=${file##*/}
		grep -qE "^[a-z0-9_-]+[[:space:]]+${name%.c}[[:space:]]" tests/plan ||
			echo "$file: not in tests/plan"
	done
} >"$tmp/found"
case_of "tests/plan is complete"

# As tests/check-mutants would find it, an hour later.
ci/prepare "$kernel/src" "$tmp/tree"
cp -r userspace "$tmp/tree"
for file in tests/mutants/*.patch; do
	grep -q '^Caught-by: ' "$file" || echo "$file: nothing would catch it"
	sed -n 's/^Caught-by: *//p' "$file" | while read -r group name mode; do
		grep -qE "^${group}[[:space:]]+${name}[[:space:]]+${mode:-[^[:space:]]+}[[:space:]]" \
			tests/plan || echo "$file: no $group $name $mode in tests/plan"
	done
	patch -d "$tmp/tree" -p1 -F0 -f -s --dry-run <"$file" >/dev/null ||
		echo "$file: does not apply"
done >"$tmp/found" 2>&1
case_of "each mutant applies, and has tests"
