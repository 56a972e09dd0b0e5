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

# apt_private ARCH: from here on apt keeps lists of its own in the cache, of what the
# machine's sources have for ARCH. It takes no root, and dpkg does not hear of it.
apt_private()
{
	# shellcheck disable=SC2154 # of env.sh
	apt_state=$cache/apt-$1
	apt_conf=$apt_state/conf
	mkdir -p "$apt_state/lists/partial" "$apt_state/archives/partial"
	: >"$apt_state/status"
	cat >"$apt_conf.$$" <<-EOF
		APT::Architecture "$1";
		#clear APT::Architectures;
		APT::Architectures { "$1"; };
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Dir::State "$apt_state";
		Dir::State::lists "$apt_state/lists";
		Dir::State::status "$apt_state/status";
		Dir::Cache "$apt_state";
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
	EOF
	mv "$apt_conf.$$" "$apt_conf"
}

apt_get()
{
	apt-get -q ${apt_conf:+"-c=$apt_conf"} "$@"
}

apt_cache()
{
	apt-cache ${apt_conf:+"-c=$apt_conf"} "$@"
}

apt_update()
{
	say "apt-get update${apt_state:+ into $apt_state}"
	if [ "${apt_conf:-}" ]; then
		apt_get update >/dev/null
	else
		as_root apt-get -q update >/dev/null
	fi || die "apt-get update failed; check the network and /etc/apt/sources.list"
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
		if (cd "$apt_dir" && apt_get -o APT::Sandbox::User=root \
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
	apt_cache depends "$1" 2>/dev/null |
		sed -n 's/^ *|\{0,1\}Depends: //p' | grep -E "$2" | head -n 1 | grep .
}
