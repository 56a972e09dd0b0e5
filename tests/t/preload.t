#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Programs that know nothing of on-demand memory, under "unpin run".

exec tests/group preload
