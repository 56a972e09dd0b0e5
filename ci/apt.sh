# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Sourced after env.sh: what ci/ asks of apt. Nothing here installs anything.

as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "'$*' needs root; run it as root, or install sudo"
	fi
}

apt_update()
{
	say "apt-get update"
	as_root apt-get -q update >/dev/null ||
		die "apt-get update failed; check the network and /etc/apt/sources.list"
}

# A fresh container has no package lists at all.
apt_need_lists()
{
	[ -n "$(apt-cache madison linux-source-6.12 2>/dev/null)" ] && return
	apt_update
	[ -n "$(apt-cache madison linux-source-6.12 2>/dev/null)" ] ||
		die "apt offers no linux-source-6.12; needed is Debian 12 or 13 with its security archive in /etc/apt/sources.list"
}

# apt_download DIR PACKAGE[=VERSION]...: the .deb files of the packages into DIR.
# The sandbox user of apt could not write there. Old lists name files that the
# archive no longer has, so update and try once more before giving up.
apt_download()
{
	apt_dir=$1
	shift
	for apt_try in first last; do
		if (cd "$apt_dir" && apt-get -q -o APT::Sandbox::User=root \
			download "$@" >download.log 2>&1); then
			return
		fi
		[ $apt_try = last ] || apt_update
	done
	cat "$apt_dir/download.log" >&2
	die "apt cannot download $*; see above"
}

# apt_depends PACKAGE PATTERN: the first real dependency that matches; fails if none does.
apt_depends()
{
	apt-cache depends "$1" 2>/dev/null |
		sed -n 's/^ *|\{0,1\}Depends: //p' | grep -E "$2" | head -n 1 | grep .
}
